# The jobs that run on Spark: extract, sequences. Spark comes with the pyspark package.
FROM python:3.11-slim-bookworm

RUN apt-get update && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps curl \
    && rm -rf /var/lib/apt/lists/*
ENV JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64

WORKDIR /opt/hi-sam
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY tokenizer tokenizer
COPY ranker ranker
COPY pipeline pipeline
COPY jobs jobs
# Spark's side needs no torch, but one package serves both sides; the CPU build is the small one.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu .

# Delta and S3A by their Maven coordinates, without what Spark already brings.
ARG MAVEN=https://repo1.maven.org/maven2
RUN cd "$(python -c 'import pyspark; print(pyspark.__path__[0])')/jars" && for path in \
      io/delta/delta-spark_4.2_2.13/4.4.0/delta-spark_4.2_2.13-4.4.0.jar \
      io/delta/delta-storage/4.4.0/delta-storage-4.4.0.jar \
      io/delta/delta-kernel-api/4.4.0/delta-kernel-api-4.4.0.jar \
      io/delta/delta-kernel-defaults/4.4.0/delta-kernel-defaults-4.4.0.jar \
      io/delta/delta-kernel-unitycatalog/4.4.0/delta-kernel-unitycatalog-4.4.0.jar \
      io/unitycatalog/unitycatalog-client/0.6.0/unitycatalog-client-0.6.0.jar \
      io/unitycatalog/unitycatalog-hadoop/0.6.0/unitycatalog-hadoop-0.6.0.jar \
      org/apache/hadoop/hadoop-aws/3.5.0/hadoop-aws-3.5.0.jar \
      software/amazon/awssdk/bundle/2.35.4/bundle-2.35.4.jar; \
    do curl --fail --silent --show-error --remote-name "$MAVEN/$path" || exit 1; done

RUN useradd --create-home --uid 1000 hisam
USER hisam
ENTRYPOINT ["hisam"]
