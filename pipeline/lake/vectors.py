"""What the table ``vectors`` knows of inputs that an encoder failed on."""

from collections.abc import Mapping

from deltalake import CommitProperties

from pipeline.lake.commit import fenced
from pipeline.lake.storage import Lake
from schemas.tables import VECTORS


def forget_failures(lake: Lake, encoders: Mapping[str, str]) -> None:
    """Drop the failures under ``encoders`` in one commit, so that the next plan tries those inputs again.

    Rewrites the files that hold one.
    """
    if not lake.exists(VECTORS):
        return
    named = ", ".join(f"'{encoder}'" for encoder in encoders.values())
    with fenced(lake, VECTORS) as (delta, transactions):
        properties = CommitProperties(app_transactions=transactions)
        delta.delete(f"encoder IN ({named}) AND fault IS NOT NULL", commit_properties=properties)
