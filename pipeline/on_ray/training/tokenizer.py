"""Train the tokenizer on the vectors of a plan, and leave it in the lake with its metrics.

The metrics are of the sample that the plan holds; of the whole catalogue the gates of ``publish`` tell.
"""

import hashlib
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.errors import JobError
from pipeline.lake.artefacts import store
from pipeline.lake.plans import Plan
from pipeline.lake.run import Run
from pipeline.on_ray.training.runs import Progress
from pipeline.on_ray.training.tensorboard import tensorboard
from pipeline.on_ray.training.tokenizer_workers import train
from pipeline.on_ray.training.vector_files import Vectors, splits
from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.base.methods import build
from tokenizer.quality.metrics import evaluate

logger = logging.getLogger(__name__)


def train_tokenizer(run: Run, plan: Plan, progress: Progress | None = None) -> str:
    """Fit the configured tokenizer on Ray to the vectors of ``plan``; return its fingerprint.

    A run whose configuration and data are those of one that was killed goes on from its last checkpoint.

    Raises:
        JobError: the vectors cannot train this tokenizer, or the workers died again and again.
    """
    config, lake, encoders = run.config.tokenizer, run.lake, plan.facts["encoders"]
    with run.phase("read"):
        vectors = Vectors(lake, plan)
        embeddings = vectors.load()
        run.count(rows_in=len(embeddings))
    held_out = splits(vectors.keys_N, watched=False).held_out
    _say_what_is_absent(embeddings, splits(vectors.keys_N, watched=config.patience is not None).train)
    checkpoints = f"checkpoints/{training_name(config, vectors)}"
    try:
        with run.phase("train"), tensorboard(run, progress) as told:
            trained = train(config, vectors, checkpoints, told)
        with run.phase("measure"):
            model = build(config, embeddings.text_ND.shape[1], embeddings.image_ND.shape[1])
            model.load_state_dict(trained.weights)
            model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            rest = slice(held_out.stop, len(embeddings))
            metrics = evaluate(model, *(model.readable(embeddings.select(rows)) for rows in (rest, held_out)))
        with run.phase("write"), tempfile.TemporaryDirectory() as folder:
            fingerprint = artefact.save(model, Path(folder), metrics, encoders)
            store(lake, "tokenizers", Path(folder), fingerprint)
    except TokenizerError as error:
        lake.delete(checkpoints)  # going on from them would end the same way
        raise JobError(f"tokenizer: {error}") from error
    lake.delete(checkpoints)
    run.metrics |= {
        "tokenizer": fingerprint,
        "encoders": encoders,
        "contents": plan.facts["contents"],
        "method": config.method,
        "modalities": model.known(),
        "device": trained.device,
        "workers": config.workers,
        "epochs": trained.epochs,
        "seconds": round(trained.seconds, 3),
        **metrics,
    }
    return fingerprint


def training_name(config: TokenizerConfig, vectors: Vectors) -> str:
    """What tells a training's checkpoints from others': its settings, its data, and the software."""
    digest = hashlib.sha256(vectors.keys_N.tobytes())
    encoders = sorted(vectors.plan.facts["encoders"].items())
    for part in (config.model_dump_json(), encoders, *map(version, ("hi-sam", "torch", "ray"))):
        digest.update(f"\0{part}".encode())
    return f"tokenizer-{digest.hexdigest()[:16]}"


def _say_what_is_absent(embeddings: Embeddings, train: slice) -> None:
    there = [m for m in MODALITIES if bool(embeddings.present(m)[train].any())]
    for absent, known, one, all_of in (("image", "text", "an image", "text"), ("text", "image", "a text", "images")):
        if there == [known]:
            others = bool(embeddings.present(absent).any())
            nobody = f"no training item has {one}, others have" if others else f"no item has {one}"
            logger.warning("%s: the tokenizer learns from %s alone", nobody, all_of)
