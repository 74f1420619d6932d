"""The configuration of a lake: one frozen model a section, each key with its allowed range.

Relative paths are relative to the configuration file. The file itself is read by :mod:`pipeline.config.file`.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from pipeline.config.places import check_place
from ranker.config import RankerConfig
from schemas.semantic_id import MODALITIES
from tokenizer.base.config import TokenizerConfig

Place = Annotated[str, AfterValidator(check_place)]


class Section(BaseModel):
    """Frozen, and closed to keys that it does not declare."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _refuse_secrets(options: dict[str, Any]) -> dict[str, Any]:
    words = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY", "ACCESS.KEY", "ACCOUNT_KEY", "ACCOUNT.KEY")
    secret = [key for key in options if any(word in key.upper() for word in words)]
    if secret:
        raise ValueError(f"{secret[0]} looks like a secret: take it out of the file and set it in the environment")
    return options


class Source(Section):
    """A table that Spark reads: catalogue or interactions."""

    path: Place
    format: Literal["csv", "json", "parquet", "delta"]
    options: dict[str, str | int | float | bool] = {}
    columns: list[str] | None = Field(None, min_length=1, description="names for a file that carries none, in order")


class ImageSource(Section):
    """Where an item's picture comes from, and the bounds it must keep.

    ``column`` holds bytes, or a path or URI that must lie under ``root``. A root on this machine or a shared
    file system is read by the Python workers; any other one through Hadoop's connectors.
    """

    column: str
    root: str | None = None
    changed: str = Field(
        "stat",
        min_length=1,
        description="what says that a picture is still the same: stat (size and time of its file), bytes, or a column",
    )
    max_bytes: int = Field(20_000_000, ge=1, le=2_000_000_000)
    max_pixels: int = Field(50_000_000, ge=1, le=1_000_000_000)
    size: int = Field(256, ge=16, le=2048, description="the longer side after normalisation, in pixels")


class Catalog(Section):
    """The raw catalogue."""

    source: Source
    id: str
    text: str | None = Field(None, description="template over columns, such as '{title}. {genres}'")
    image: ImageSource | None = None
    full_snapshot: bool = Field(True, description="items absent from the source are deleted")
    max_text_chars: int = Field(20_000, ge=1, le=1_000_000)


class Time(Section):
    """The column that says when: seconds or milliseconds since 1970, or a timestamp.

    Of a column of dates or timestamps the type counts, whatever the unit.
    """

    column: str
    unit: Literal["s", "ms", "timestamp"] = "s"


class Interactions(Section):
    """Who did what, when, and whether it counts as positive (``label``, a Spark SQL expression)."""

    source: Source
    user: str
    item: str
    time: Time
    label: str
    feedback: str | None = Field(
        None, description="a numeric Spark SQL expression, graded feedback beside the label: a rating, ln(1 + dwell)"
    )
    request: str | None = Field(None, description="the column that names the request which an impression was part of")
    max_user_events: int = Field(10_000, ge=1, le=1_000_000, description="of a user; the newest are kept")


class Encoder(Section):
    """One modality's encoder: ``builtin``, a Hugging Face name, or a local folder."""

    model: str = "builtin"
    revision: str | None = Field(None, description="branch, tag or commit of a Hugging Face model")
    trust_remote_code: bool = Field(False, description="run the model's own code; from the hub of one commit alone")
    pooling: Literal["auto", "mean", "cls"] = Field("auto", description="auto: what the model says of itself")
    batch_size: int = Field(64, ge=1, le=65_536)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class TextEncoder(Encoder):
    """That of texts, with what only texts have."""

    max_length: int = Field(256, ge=8, le=131_072, description="tokens; longer texts are cut, at the model's limit too")
    prompt: str | None = Field(None, description="put before every text; default: the model's own default, if any")
    truncate_dim: int | None = Field(
        None, ge=2, le=65_536, description="first numbers of a vector to keep, of models trained for that"
    )


class VectorColumn(Section):
    """One modality's vectors where others have made them: a column of the catalogue in place of an encoder.

    ``column`` holds arrays of numbers, or bytes with their ``dtype``, little-endian.
    """

    column: str = Field(min_length=1)
    name: str = Field(min_length=1, description="of what made the vectors")
    version: str = Field(
        min_length=1, coerce_numbers_to_str=True, description="of what made them: another one, and all are read anew"
    )
    dtype: Literal["float16", "float32", "float64"] | None = Field(None, description="of a column of bytes")
    dim: int | None = Field(None, ge=1, le=65_536, description="numbers of a vector; default: as those stored already")

    def fingerprint(self, modality: str) -> str:
        """The name that the vectors are stored under, 16 hexadecimal digits."""
        parts = (modality, "column", self.name, self.version, str(self.dtype))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _kind(section: Any) -> str:
    """Which of the two a section is: a column of vectors by the keys that an encoder does not have."""
    own = VectorColumn.model_fields.keys() - Encoder.model_fields.keys()
    is_column = isinstance(section, VectorColumn) or (isinstance(section, Mapping) and bool(own & section.keys()))
    return "column" if is_column else "model"


GivenVectors = Annotated[VectorColumn, Tag("column")]


class Encoders(Section):
    """The encoders of both modalities, each a model or a column of vectors, and how the work is spread."""

    text: Annotated[Annotated[TextEncoder, Tag("model")] | GivenVectors, Discriminator(_kind)] = TextEncoder()
    image: Annotated[Annotated[Encoder, Tag("model")] | GivenVectors, Discriminator(_kind)] = Encoder()
    workers: int | None = Field(None, ge=1, le=10_000, description="actors; default: one a GPU, else one a core")
    commit_rows: int = Field(100_000, ge=100, le=100_000_000, description="rows a commit; a killed job redoes one")

    @property
    def models(self) -> dict[str, Encoder]:
        """By modality the encoders that are models."""
        return {m: found for m in MODALITIES if isinstance(found := getattr(self, m), Encoder)}

    @property
    def vector_columns(self) -> dict[str, VectorColumn]:
        """By modality the columns of vectors."""
        return {m: found for m in MODALITIES if isinstance(found := getattr(self, m), VectorColumn)}


def _no_number(value: Any) -> Any:
    if isinstance(value, (int, float)) or str(value).isdigit():
        raise ValueError("must be a date, such as 2025-06-01, or a date and time")
    return value


class Split(Section):
    """Train and test, by one global point in time: the newest fraction of the events, or those from a time on."""

    test_fraction: float = Field(0.1, gt=0, lt=1)
    at: Annotated[datetime, BeforeValidator(_no_number)] | None = Field(
        None, description="in place of test_fraction: date or timestamp, in UTC unless it names a zone"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.at is not None and "test_fraction" in self.model_fields_set:
            raise ValueError("give test_fraction or at, not both")
        return self

    @property
    def at_ms(self) -> int | None:
        """``at`` in milliseconds since 1970."""
        if self.at is None:
            return None
        at = self.at if self.at.tzinfo else self.at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)


class Evaluation(Section):
    """What a request is: the impressions that are ranked together, by what was known before the first of them."""

    requests: Literal["auto", "time", "blocks"] = Field(
        "auto",
        description="auto: interactions.request, else blocks; time: all of a user at one time; blocks: a user's test "
        "events in order, so many at once, those of one time together",
    )
    block: int = Field(20, ge=2, le=100_000, description="events of a block")


class SparkSettings(Section):
    """The Spark session."""

    master: str = Field("local[*]", description="spark-submit's own master wins over it")
    delta: Literal["embedded", "native"] = "embedded"
    conf: dict[str, str | int | float | bool] = {}

    _no_secrets = field_validator("conf")(_refuse_secrets)


class RaySettings(Section):
    """The Ray cluster: ``local`` starts one here, else an address; ``RAY_ADDRESS`` in the environment wins over it."""

    address: str = "local"
    num_cpus: int | None = Field(None, ge=2, le=4096, description="of a local cluster; default: its cores and one")
    num_gpus: int | None = Field(None, ge=0, le=64, description="GPUs of a local cluster; default: all")


class LockSettings(Section):
    """How jobs that write to one lake keep out of each other's way."""

    wait_seconds: float = Field(0, ge=0, le=604_800, description="that a job waits for another one to end")


class Gates(Section):
    """What new IDs must keep before they are released. Those that look at the release pass before there is one."""

    max_collision_rate: float = Field(0.05, ge=0, le=1, description="share of items whose codes other content has too")
    max_group: int = Field(1000, ge=1, description="different contents that have the same codes, in the largest group")
    min_perplexity: float = Field(
        0.2, ge=0, le=1, description="perplexity of a level's codes over min(codes, items), in the lowest level"
    )
    max_code_share: float = Field(
        32, ge=1, description="items in a level's largest code, as a multiple of an even share of min(codes, items)"
    )
    min_coverage: float = Field(0.999, ge=0, le=1, description="share of live items that have an ID")
    max_without_text: float = Field(1, ge=0, le=1, description="share of items that have no text")
    max_without_image: float = Field(1, ge=0, le=1, description="share of items that have no image")
    max_without_text_growth: float = Field(
        0.05, ge=0, le=1, description="rise, since the release, in items without text"
    )
    max_without_image_growth: float = Field(
        0.05, ge=0, le=1, description="rise, since the release, in items without image"
    )
    max_row_drift: float = Field(0.5, ge=0, description="growth or loss of live items, as a share of the released")
    max_delete_fraction: float = Field(
        0.2, ge=0, le=1, description="live items that one extract, or all since the release, may delete"
    )
    max_degraded_fraction: float = Field(0.5, ge=0, le=1, description="rows that may go on without a faulty modality")


class Config(Section):
    """Everything that one configuration file says."""

    lake: Place
    storage_options: dict[str, str] = {}
    catalog: Catalog
    interactions: Interactions | None = None
    encoders: Encoders = Encoders()
    tokenizer: TokenizerConfig = TokenizerConfig()
    ranker: RankerConfig = RankerConfig()
    split: Split = Split()
    evaluation: Evaluation = Evaluation()
    spark: SparkSettings = SparkSettings()
    ray: RaySettings = RaySettings()
    gates: Gates = Gates()
    lock: LockSettings = LockSettings()

    _no_secrets = field_validator("storage_options")(_refuse_secrets)
