"""Train the tokenizer on the vectors of the live items, and leave it in the lake with its metrics."""

import hashlib
import logging
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.errors import JobError
from pipeline.lake.artefacts import store
from pipeline.lake.run import Run
from pipeline.on_ray.encoders.encoders import encoder_fingerprint
from pipeline.on_ray.training.runs import Progress
from pipeline.on_ray.training.tokenizer_workers import train
from pipeline.on_ray.training.vector_files import Vectors, live_vectors, splits
from schemas.tables import EMBEDDINGS, ITEMS
from tokenizer.base import artefact
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.base.methods import build
from tokenizer.quality.metrics import evaluate

logger = logging.getLogger(__name__)


def train_tokenizer(run: Run, progress: Progress | None = None) -> str:
    """Fit the configured tokenizer on Ray and return its fingerprint.

    A run whose configuration and data are those of one that was killed goes on from its last checkpoint.

    Raises:
        JobError: there are no vectors under the configured encoders, they cannot train this tokenizer, or the workers
            died again and again.
    """
    config, lake = run.config.tokenizer, run.lake
    with run.phase("read"):
        encoder = encoder_fingerprint(run.config.encoders)
        run.read(ITEMS)
        run.read(EMBEDDINGS)
        versions = run.versions["read"]
        vectors = live_vectors(lake, encoder, versions[ITEMS.name], versions[EMBEDDINGS.name])
        embeddings = vectors.spool()
        run.count(rows_in=len(embeddings))
    _say_what_is_absent(embeddings)
    checkpoints = f"checkpoints/{training_name(config, vectors)}"
    try:
        with run.phase("train"):
            trained = train(config, vectors, checkpoints, progress)
        with run.phase("measure"):
            model = build(config, embeddings.text_ND.shape[1], embeddings.image_ND.shape[1])
            model.load_state_dict(trained.weights)
            model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
            held_out = splits(vectors.keys_N, watched=False).held_out
            rest = slice(held_out.stop, len(embeddings))
            metrics = evaluate(model, embeddings.select(rest), embeddings.select(held_out))
        with run.phase("write"), tempfile.TemporaryDirectory() as folder:
            fingerprint = artefact.save(model, Path(folder), metrics, encoder)
            store(lake, "tokenizers", Path(folder), fingerprint)
    except TokenizerError as error:
        lake.delete(checkpoints)  # going on from them would end the same way
        raise JobError(f"tokenizer: {error}") from error
    lake.delete(checkpoints)
    run.metrics |= {
        "tokenizer": fingerprint,
        "encoder": encoder,
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
    for part in (config.model_dump_json(), vectors.encoder, *map(version, ("hi-sam", "torch", "ray"))):
        digest.update(f"\0{part}".encode())
    return f"tokenizer-{digest.hexdigest()[:16]}"


def _say_what_is_absent(embeddings: Embeddings) -> None:
    there = [m for m in MODALITIES if bool(embeddings.present(m).any())]
    if there == ["text"]:
        logger.warning("no item has an image: the tokenizer learns from text alone")
    elif there == ["image"]:
        logger.warning("no item has a text: the tokenizer learns from images alone")
