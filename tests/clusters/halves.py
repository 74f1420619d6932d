"""Jobs of which Spark does one half here and a cluster of Ray's the other."""

from pathlib import Path

from shops import arguments, config_of

from jobs.backfill import run_backfill
from jobs.encode import run_encode
from jobs.planning import Halves
from jobs.tokenize import run_tokenize
from jobs.train_tokenizer import run_train_tokenizer
from pipeline.config.models import Config
from pipeline.lake.artefacts import newest
from pipeline.lake.storage import Lake


def _plan_backfill(config: Config, *, halves: Halves) -> None:
    run_backfill(config, newest(Lake(config.lake), "tokenizers"), halves)


PLANS = {
    "encode": run_encode,
    "train-tokenizer": run_train_tokenizer,
    "tokenize": run_tokenize,
    "backfill": _plan_backfill,
}


def planned(job: str, folder: Path) -> list[str]:
    """The command line of a job's half on Ray, whose other half, if it has one, is done here."""
    if job not in PLANS:
        return arguments(job, folder)
    PLANS[job](config_of(folder), halves=Halves(plan_only=True))
    run_id = max(file.parent.name for file in (folder / "lake" / "runs").glob(f"*/{job}-plan.json"))
    return [*arguments(job, folder), "--planned", run_id]
