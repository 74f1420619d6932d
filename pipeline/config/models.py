"""The configuration of a lake: one frozen model a section, each key with its allowed range.

Relative paths are relative to the configuration file. The file itself is read by :mod:`pipeline.config.file`.
"""

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from pipeline.config.encoders import Encoders
from pipeline.config.places import SECRETS, check_lake, check_options, check_place
from pipeline.config.section import Section
from ranker.config import RankerConfig
from tokenizer.base.config import TokenizerConfig

Place = Annotated[str, AfterValidator(check_place)]


def _refuse_secrets(options: dict[str, Any]) -> dict[str, Any]:
    secret = [key for key in options if any(word in key.upper() for word in SECRETS)]
    if secret:
        raise ValueError(f"{secret[0]} looks like a secret: take it out of the file and set it in the environment")
    return options


class Source(Section):
    """A table that Spark reads: catalogue or interactions."""

    path: Place = Field(description="a file, a folder, a pattern, or a URI of an object store")
    format: Literal["csv", "json", "parquet", "delta"] = Field(description="what Spark reads it as")
    options: dict[str, str | int | float | bool] = Field(default_factory=dict, description="of Spark's reader")
    columns: list[str] | None = Field(None, min_length=1, description="names for a file that carries none, in order")


def _host(value: str) -> str:
    """``name``, ``name:port``, an address, or an address and a port, in one spelling."""
    text = value.strip().lower()
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
        sound = name is not None and parts.netloc == text and not set(text) & set("@*\\ ")
        bare = str(ip_address(name)) if name and ":" in name else name
    except ValueError:
        sound = False
    if not sound or bare is None:
        raise ValueError(f"{value!r} is no host: write a name or an address, with or without :port, and nothing else")
    if port is None:
        return bare
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


class Fetch(Section):
    """Pictures that are fetched over http and https, from the hosts that are named here and from no other."""

    hosts: list[Annotated[str, AfterValidator(_host)]] = Field(
        min_length=1, description="each without a port (any is allowed) or with one; a private address must be named"
    )
    workers: int = Field(16, ge=1, le=256, description="pictures that one task of Spark fetches at once")
    per_host: int = Field(8, ge=1, le=256, description="pictures that all tasks together fetch from a host at once")
    timeout_s: float = Field(
        30, gt=0, le=3600, description="of one try, from the name to the last byte, redirects included"
    )
    retries: int = Field(2, ge=0, le=10, description="of a picture that failed for what may pass")
    recheck_days: int = Field(7, ge=0, le=3650, description="an unchanged row's URL is asked again; 0: every night")


class ImageSource(Section):
    """Where an item's picture comes from, and the bounds it must keep.

    ``column`` holds bytes, or a path or URI that must lie under ``root``, or a URL that is fetched where ``fetch``
    names its host; or a list of such references, of which the first that may be read counts. A root on this machine or
    a shared file system is read by the Python workers; any other one through Hadoop's connectors.
    """

    column: str = Field(description="the column of bytes, paths, URIs or URLs, or of lists of these")
    root: Place | None = Field(None, description="the folder or URI that references must lie under")
    fetch: Fetch | None = None
    changed: str = Field(
        "stat",
        min_length=1,
        description="what says that a picture is still the same: stat (size and time of its file), bytes, or a column",
    )
    max_bytes: int = Field(20_000_000, ge=1, le=2_000_000_000, description="of a picture as the source has it")
    max_pixels: int = Field(50_000_000, ge=1, le=1_000_000_000, description="of a picture, counted before decoding")
    size: int = Field(256, ge=16, le=2048, description="the longer side after normalisation, in pixels")


class Catalog(Section):
    """The raw catalogue."""

    source: Source
    id: str = Field(description="the column of the items' ids")
    text: str | None = Field(None, description="template over columns, such as '{title}. {genres}'")
    image: ImageSource | None = None
    full_snapshot: bool = Field(True, description="items absent from the source are deleted")
    max_text_chars: int = Field(20_000, ge=1, le=1_000_000, description="characters of an item's text; the rest is cut")


class Time(Section):
    """The column that says when: seconds or milliseconds since 1970, or a timestamp.

    Of a column of dates or timestamps the type counts, whatever the unit.
    """

    column: str = Field(description="the column that says when")
    unit: Literal["s", "ms", "timestamp"] = Field("s", description="of a column of numbers or strings")


class Interactions(Section):
    """Who did what, when, and whether it counts as positive (``label``, a Spark SQL expression)."""

    source: Source
    user: str = Field(description="the column of the users' ids")
    item: str = Field(description="the column of the items' ids")
    time: Time
    label: str = Field(description="a Spark SQL expression that is true, or 1, where the event is positive")
    feedback: str | None = Field(
        None, description="a numeric Spark SQL expression, graded feedback beside the label: a rating, ln(1 + dwell)"
    )
    request: str | None = Field(None, description="the column that names the request which an impression was part of")
    max_user_events: int = Field(10_000, ge=1, le=1_000_000, description="of a user; the newest are kept")


def _no_number(value: Any) -> Any:
    if isinstance(value, (int, float)) or str(value).isdigit():
        raise ValueError("must be a date, such as 2025-06-01, or a date and time")
    return value


class Split(Section):
    """Train and test, by one global point in time: the newest fraction of the events, or those from a time on."""

    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of the events, the newest, that are the test")
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
    delta: Literal["embedded", "native"] = Field(
        "embedded", description="embedded: delta-rs commits what Spark wrote; native: delta-spark, which needs its JARs"
    )
    conf: dict[str, str | int | float | bool] = Field(default_factory=dict, description="Spark's own settings")

    _no_secrets = field_validator("conf")(_refuse_secrets)


class RaySettings(Section):
    """The Ray cluster: ``local`` starts one here, else an address; ``RAY_ADDRESS`` in the environment wins over it."""

    address: str = Field("local", description="local, or the address of a cluster to join")
    num_cpus: int | None = Field(None, ge=2, le=4096, description="of a local cluster; default: its cores and one")
    num_gpus: int | None = Field(None, ge=0, le=64, description="GPUs of a local cluster; default: all")
    stall_seconds: float = Field(
        1800, ge=10, le=86_400, description="without progress, or without a core to begin on, after which a job fails"
    )


class LockSettings(Section):
    """How jobs that write to one lake keep out of each other's way."""

    wait_seconds: float = Field(0, ge=0, le=604_800, description="that a job waits for another one to end")


class ReportSettings(Section):
    """The page that ``hisam report`` makes."""

    nightly: bool = Field(
        True, description="a night, and the demo, end with a report in LAKE/reports, unless the newest says as much"
    )


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
    min_generalisation: float = Field(
        0.75,
        le=1,
        description="what a tokenizer's codes keep of held-out items, by what they keep of its training items; where "
        "they keep less, train one with fewer codes or levels, or on more items",
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

    lake: Annotated[str, AfterValidator(check_lake)] = Field(description="the folder or s3:// URI of all tables")
    storage_options: Annotated[dict[str, str], AfterValidator(check_options)] = Field(
        default_factory=dict, description="where its store is: AWS_ENDPOINT_URL, AWS_REGION, …; never who asks"
    )
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
    report: ReportSettings = ReportSettings()
    lock: LockSettings = LockSettings()
