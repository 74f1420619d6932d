"""A page about the lake, for who must decide whether to release tonight's IDs."""

import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jobs.entry import DEFAULT_CONFIG, ConfigFile, Overrides, Tokenizer, read_config, tell
from jobs.lines import logger, say

if TYPE_CHECKING:
    from pipeline.config.models import Config
    from pipeline.lake.run import Run

T = TypeVar("T")


def run_report(
    config: "Config",
    tokenizer: str | None = None,
    to: Path | None = None,
    run_id: str | None = None,
    *,
    nightly: bool = False,
) -> str:
    """The job, as nightly and demo run it too; returns the place of the page.

    A ``nightly`` one, as that of a night's ``run_id`` is, only names the newest one where it would repeat that.
    """
    from pipeline.inspect.report.standing import standing_report
    from pipeline.lake.run import Run

    arguments = {"tokenizer": tokenizer, "to": str(to) if to else None}
    with Run("report", config, run_id=run_id, writes=False, **arguments) as run:
        nightly = nightly or run_id is not None
        standing = standing_report(run, tokenizer)
        run.metrics |= standing if standing is not None and nightly else _new(run, tokenizer, to)
    tell(run)
    told = run.metrics
    as_before = "  nothing has changed since this report\n" if "unchanged_since" in told else ""
    say(f"{as_before}  {told['headline']}\n  {told['page']}", run, page=told["page"])
    return str(told["page"])


def _new(run: "Run", tokenizer: str | None, to: Path | None) -> dict[str, str]:
    from pipeline.inspect.report.gather import gather
    from pipeline.inspect.report.write import write
    from pipeline.on_spark.session import spark_for

    with spark_for(run) as spark:
        with run.phase("gather"):
            found = gather(spark, run.lake, run.config, tokenizer)
        with run.phase("write"):
            place = write(found, run.lake, run.run_id, to)
    return {"page": place, "verdict": found.data["verdict"]["state"], "headline": found.data["verdict"]["headline"]}


def reported(job: Callable[[], T], config: "Config", tokenizer: str | None, run_id: str) -> T:
    """What ``job`` gives, and a report after it, also where a gate refuses in it; one that fails fails no night."""
    from pipeline.errors import GateRefused

    refused = None
    try:
        done = job()
    except GateRefused as error:
        refused = error
    _try_report(config, tokenizer, run_id)  # out of the except, so that what it fails with is told as its own
    if refused is not None:
        raise refused
    return done


def _try_report(config: "Config", tokenizer: str | None, run_id: str) -> None:
    from jobs.error_messages import one_line

    if not config.report.nightly:
        return
    try:
        run_report(config, tokenizer, run_id=run_id)
    except Exception as error:  # noqa: BLE001  (whatever it is, the night's IDs are as good as without a report)
        logger.warning("report: there is none of this night: %s", one_line(error) or repr(error))


def open_page(place: str, config: "Config") -> None:
    """Show a page in the browser; one in an object store is copied to this machine first."""
    from pipeline.lake.storage import Lake

    if "://" in place and not place.startswith("file://"):
        lake = Lake.open(config.lake, config.storage_options)
        folder = Path(tempfile.mkdtemp(prefix="hisam-report-"))
        place = str(
            lake.download(place.removeprefix(f"{lake.uri}/").rpartition("/")[0], folder) / place.rpartition("/")[2]
        )
    uri = place if "://" in place else Path(place).as_uri()
    if not webbrowser.open(uri):
        typer.echo(f"  there is no browser on this machine: open {uri} in one")


def command(
    config: ConfigFile = DEFAULT_CONFIG,
    overrides: Overrides = None,
    tokenizer: Tokenizer = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="A folder to write into, instead of LAKE/reports/RUN_ID.")
    ] = None,
    nightly: Annotated[
        bool,
        typer.Option("--nightly", help="As nights do: none that repeats the newest, or if report.nightly is false."),
    ] = False,
    in_browser: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
) -> None:
    """Write a page about tonight's IDs: shall they be released?

    One HTML file that needs no network, and report.json with its figures.

    Before publish it is about the IDs that a release would have, after it
    about the release and what that changed. It shows

    - the verdict, and the gates with their figures and limits,
    - what changes for readers, and what is in quarantine and why,
    - what the codes stand for, how they are used, where they collide,
    - a map of the items, and neighbours by vector beside those by codes,
    - what text and picture both say, and the ranker beside simple rules,
    - what the last runs cost.

    Pictures and items are samples; counts are of all items.
    """
    settings = read_config(config, overrides)
    if nightly and not settings.report.nightly:
        say("report: report.nightly is false")
        return
    place = run_report(settings, tokenizer, to, nightly=nightly)
    if in_browser:
        open_page(place, settings)
