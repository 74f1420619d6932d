"""Time stamps in nanoseconds, which pandas writes and Spark reads as plain numbers: told by a Parquet file's footer."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

from pipeline.on_spark.columns import named

NANOS_AS_LONG = "spark.sql.legacy.parquet.nanosAsLong"  # set on the session: without it Spark refuses the file


def with_timestamps(spark: SparkSession, frame: DataFrame) -> DataFrame:
    """``frame``, just read from Parquet, with its columns of nanoseconds as timestamps, cut to microseconds.

    One footer is read; files of one source must agree in their units.
    """
    if not any(isinstance(field.dataType, LongType) for field in frame.schema.fields):
        return frame
    nanoseconds = _nanosecond_columns(spark, frame.inputFiles()[0])
    micros = {n: F.call_function("div", named(frame, n), F.lit(1000)) for n in frame.columns if n in nanoseconds}
    return frame.withColumns({name: F.timestamp_micros(each) for name, each in micros.items()})


def _nanosecond_columns(spark: SparkSession, file: str) -> set[str]:
    """The columns of a file, given by its URI, whose footer says that they hold nanoseconds."""
    java, context = spark._jvm, spark.sparkContext._jsc
    assert java is not None
    assert context is not None
    path = java.org.apache.hadoop.fs.Path(java.java.net.URI(file))
    there = java.org.apache.parquet.hadoop.util.HadoopInputFile.fromPath(path, context.hadoopConfiguration())
    reader = java.org.apache.parquet.hadoop.ParquetFileReader.open(there)
    try:
        fields = reader.getFooter().getFileMetaData().getSchema().getFields()
        return {field.getName() for field in fields if "NANOS" in str(field.getLogicalTypeAnnotation())}
    finally:
        reader.close()
