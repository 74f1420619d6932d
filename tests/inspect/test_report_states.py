"""What a report says as a lake goes from a release to a refusal, another release and a rollback."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from report_shop import ReportShop

from pipeline.errors import JobError
from pipeline.inspect.report.gather import Findings, gather
from pipeline.inspect.report.page import page
from pipeline.lake.run import Run

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def kinds(found: Findings) -> dict[str, int]:
    """Items by kind of change, where there are any."""
    return {kind["kind"]: kind["items"] for kind in found.data["changes"]["kinds"] if kind["items"]}


def test_from_a_release_to_a_rollback(spark: SparkSession, tmp_path: Path) -> None:
    shop = ReportShop(spark, tmp_path)

    def found(**gates: float) -> Findings:
        strict = shop.config.gates.model_copy(update=gates)
        return gather(spark, shop.opened(), shop.config.model_copy(update={"gates": strict}))

    first = found()
    assert first.data["verdict"]["headline"] == "Readers have it all, as release 1"
    assert kinds(first) == {"added": 41}
    assert not first.data["quarantine"]["reasons"]
    figures = {gate["name"]: gate["figure"] for gate in first.data["gates"]["gates"]}
    assert {name: gate["figure"] for name, gate in shop.gates().items() if name != "forced"}.items() <= figures.items()

    shop.news()
    shop.quarantine()
    refused = found(max_group=1).data
    assert refused["verdict"]["headline"] == "Do not release: 1 gate refuses"
    gate = next(gate for gate in refused["gates"]["gates"] if gate["name"] == "max_group")
    assert (gate["ok"], gate["way"]) == (False, 2.0)
    waiting = found()
    assert waiting.data["verdict"]["state"] == "release"
    assert page(waiting) == page(found())  # the same lake, the same page

    with pytest.raises(JobError), Run("extract", shop.config):
        raise JobError("the source is torn")
    torn = found().data["verdict"]
    assert torn["headline"] == "Look first: every gate holds, but the last extract failed"
    assert {"weight": "bad", "text": "the last extract failed: the source is torn"} in torn["reasons"]
    assert shop.publish()
    released = found()
    assert released.data["verdict"]["state"] == "standing"
    assert kinds(released) == kinds(waiting) == {"added": 3, "removed": 2, "codes": 2, "content": 1}
    shop.rollback()
    held = found()
    assert held.data["verdict"]["headline"] == "Held: these are the IDs of release 2, which was rolled back"
    assert kinds(held) == kinds(waiting)
