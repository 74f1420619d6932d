"""The HMAT with its memory of taste, other networks and what is cheap, on MovieLens-1M or X-Wines.

``python -m benchmarks.taste FOLDER ENCODER`` trains and scores every variant; see :mod:`benchmarks.rating_log` for what
the folder holds. Frozen figures are of blocks of 20 test events of a user. Settings were chosen with ``--validation``,
on the last tenth of the training period of MovieLens-1M; for wines none were. Results gather in a file, so a benchmark
that was cut off goes on. The boosted trees need the extra ``dev``.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.boosted_trees import TREES, boosted_trees
from benchmarks.item_rates import RIDGE, like_rates, rates_with_text
from benchmarks.rating_log import (
    Floats,
    RatingLog,
    batch_of,
    cut_windows,
    figures,
    items_of,
    known_of,
    load_log,
    paired_intervals,
    text_vectors,
)
from benchmarks.trials import RESULTS, Figures, Trial, paired, run_trials, summary
from ranker.architectures import build
from ranker.baselines.factorisation import GRADED, PLAIN
from ranker.config import RankerConfig
from ranker.factors import ItemFactors
from ranker.frozen import frozen_logits
from ranker.hmat.collaborative import CollaborativeMemory, expected
from ranker.requests import as_requests
from ranker.training import Training
from ranker.training_events import TrainingEvents, factors_of
from ranker.windows import FOLDS, bucket
from schemas.semantic_id import Layout

DATA: dict[str, dict[str, Any]] = {
    "all {}": {},
    "new {}": {"hidden_class": 0},
    "new {}, another class": {"hidden_class": 1},
    "new {}, a third class": {"hidden_class": 2},
    "{} in ReLLa's split": {"rella": True},
}
TASTE = {"content_strength": 2.0, "content_components": 32, "unknown": 0.2}
HMAT: dict[str, Any] = {
    "max_items": 2000,
    "dim": 32,
    "layers": 1,
    "codes": False,
    "decoded": ["text"],
    "decoded_dropout": 0.5,
    "feedback": True,
    "collaborative": TASTE,
    "request_share": 0.5,
    "batch_items": 800,
    "learning_rate": 0.002,
    "epochs": 4,
}
NEURAL: dict[str, Any] = {
    "max_items": 200,
    "dim": 32,
    "codes": False,
    "item_id": {},
    "decoded": ["text"],
    "decoded_dropout": 0.5,
    "free_dropout": 0.1,
    "feedback": True,
    "request_share": 0.5,
    "dropout": 0.2,
    "weight_decay": 0.1,
    "epochs": 4,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "like rate": {},
    "like rate, ridge from text": RIDGE,
    "boosted trees": TREES,
    "factorisation, 0/1": PLAIN | {"graded": 0.0},
    "factorisation": GRADED,
    "memory of taste alone": TASTE,
    "HMAT without it": HMAT | {"collaborative": None},
    "HMAT": HMAT,
    "flat stream": NEURAL | {"arch": "flat"},
    "SASRec": NEURAL | {"arch": "sasrec"},
    "HSTU": NEURAL | {"arch": "hstu"},
    "DIN": NEURAL | {"arch": "din"},
}
OURS = "HMAT"
COLUMNS = ("auc", "gauc", "gauc frozen", "gauc 1-10", "gauc 11-100", "gauc 101+", "auc new", "gauc new", "seconds")
Names = Annotated[list[str] | None, typer.Option()]


def main(
    folder: Path,
    encoder: Path,
    seeds: int = 3,
    processes: int = 2,
    variant: Names = None,
    data: Names = None,
    validation: bool = False,
) -> None:
    """Every variant on all data; ``folder/scores`` keeps the scores of each."""
    text_vectors(folder, encoder)
    kinds = _data(folder)
    chosen = [(d, v) for d in data or kinds for v in variant or VARIANTS]
    trials = [Trial(d, v, s) for s in range(seeds) for d, v in chosen]
    file = RESULTS / ("taste_validation.jsonl" if validation else "taste.jsonl")
    results = run_trials(trials, partial(_measure, folder, encoder, validation), file, processes)
    console = Console(width=200)
    for name, split in kinds.items():
        console.print(summary(results, name, VARIANTS, COLUMNS, range(seeds)))
        for other in VARIANTS:
            both = [s for s in range(seeds) if {Trial(name, v, s).key for v in (OURS, other)} <= results.keys()]
            if other == OURS or not both:
                continue
            found = (f"{c} {paired(results, name, OURS, other, c, both)}" for c in COLUMNS[:3])
            console.print(f"{name}, {len(both)} seeds: {OURS} less {other}: {', '.join(found)}")
            log = load_log(folder, validation=validation, **split)
            scores = [_stored(folder, Trial(name, v, both[0]), validation) for v in (OURS, other)]
            console.print(f"  users drawn again, seed {both[0]}: {paired_intervals(log, *scores)}")


def _data(folder: Path) -> dict[str, dict[str, Any]]:
    return {name.format(items_of(folder)): split for name, split in DATA.items()}


def _measure(folder: Path, encoder: Path, validation: bool, trial: Trial) -> Figures:
    log = load_log(folder, validation=validation, **_data(folder)[trial.data])
    vectors_NV = text_vectors(folder, encoder)
    settings = VARIANTS[trial.variant]
    if trial.variant == "like rate":
        scores = _by_item(log, like_rates(log))
    elif settings is RIDGE:
        scores = _by_item(log, rates_with_text(log, vectors_NV, **RIDGE))
    elif settings is TREES:
        scores = boosted_trees(log, vectors_NV, TREES, trial.seed)
    elif "max_items" in settings:
        scores = _trained(log, vectors_NV, RankerConfig.model_validate(settings | {"seed": trial.seed}))
    else:
        config = RankerConfig.model_validate({"max_items": 2000, "collaborative": settings}).collaborative
        assert config is not None
        with_content = config.content_components > 0
        factors = factors_of(_events(log), config, vectors_NV if with_content else None, trial.seed)
        scores = _by_taste(log, CollaborativeMemory(factors, config, 1), vectors_NV if with_content else None)
    file = _file(folder, trial, validation)
    file.parent.mkdir(exist_ok=True)
    save_file(dict(zip(("streamed", "frozen"), scores, strict=True)), file)
    return figures(log, *scores)


def _file(folder: Path, trial: Trial, validation: bool) -> Path:
    name = trial.key.replace("/", "_").replace(" ", "_")
    return folder / "scores" / f"{'validation_' * validation}{name}.safetensors"


def _stored(folder: Path, trial: Trial, validation: bool) -> tuple[Tensor, Tensor]:
    stored = load_file(_file(folder, trial, validation))
    return stored["streamed"], stored["frozen"]


def _events(log: RatingLog) -> TrainingEvents:
    train_P = log.train_P
    known_N = np.unique(log.item_P[train_P])
    known_N = known_N[np.argsort(log.hash_N[known_N])]
    place_N = np.zeros(len(log.hash_N), np.int64)
    place_N[known_N] = np.arange(len(known_N))
    user_P = log.user_P[train_P]
    return TrainingEvents(
        user_P,
        place_N[log.item_P[train_P]],
        log.liked_P[train_P].astype(np.int8),
        log.rating_P[train_P].astype(np.float32),
        log.hash_N[known_N],
        known_N[:, None],
        np.arange(user_P.max() + 1) % FOLDS,
    )


def _by_item(log: RatingLog, rate_N: Floats) -> tuple[Tensor, Tensor]:
    score_R = torch.from_numpy(rate_N[log.item_P[log.test_P]])
    return score_R, score_R.clone()


def _scored(log: RatingLog, max_items: int, score: Any) -> tuple[Tensor, Tensor]:
    """Streamed and frozen probabilities of the test events, of what ``score(batch, known_BN)`` gives of windows."""
    windows_Q3 = cut_windows(log, max_items, test=True)
    found = torch.zeros(2, len(log.user_P))
    for some in bucket(windows_Q3[:, 1] - windows_Q3[:, 0], 6400):
        place_BN, batch = batch_of(log, windows_Q3[some], test=True)
        both = score(batch, known_of(log, windows_Q3[some], place_BN, batch))
        place_R = place_BN[batch.loss_mask.numpy()]
        for row, scores_BN in zip(found, both, strict=True):
            row[place_R] = scores_BN[batch.loss_mask]
    streamed_R, frozen_R = found[:, torch.from_numpy(log.test_P)]
    return streamed_R.clone(), frozen_R.clone()


def _by_taste(log: RatingLog, memory: CollaborativeMemory, vectors_NV: Tensor | None) -> tuple[Tensor, Tensor]:
    content_NV = None if vectors_NV is None else torch.cat([vectors_NV, torch.zeros(1, vectors_NV.shape[1])])

    @torch.inference_mode()
    def score(batch: Any, known_BN: Tensor) -> tuple[Tensor, Tensor]:
        rows_BNF, _ = memory.rows(batch.items, None if content_NV is None else content_NV[batch.tokens[..., 0]])
        states_BMG = memory.states(rows_BNF, memory.feedback(batch.labels, batch.feedback), batch.items)
        at = (seen[..., None].expand(-1, -1, states_BMG.shape[2]) for seen in (batch.seen, known_BN))
        streamed, frozen = (expected(rows_BNF, states_BMG.gather(1, places)).clamp(0.005, 0.995) for places in at)
        return streamed, frozen

    return _scored(log, 2000, score)


def _trained(log: RatingLog, vectors_NV: Tensor, config: RankerConfig) -> tuple[Tensor, Tensor]:
    events = _events(log)
    decoded_CV = torch.cat([vectors_NV, torch.zeros(1, vectors_NV.shape[1])])
    layout = Layout(1, 0, 0, len(vectors_NV))  # a code an item: the vectors themselves, not decoded from codes
    factors: ItemFactors | None = None
    if config.collaborative is not None:
        factors = factors_of(events, config.collaborative, decoded_CV, config.seed)
    hash_I = None if config.item_id is None else torch.from_numpy(events.hash_I)
    model = build(config, layout, decoded_CV, factors, hash_I)
    _standardise(model, events)
    windows_Q3 = cut_windows(log, config.max_items, test=False)
    training = Training(model, config, layout, len(windows_Q3))
    while not training.finished:
        rng = np.random.default_rng([config.seed, len(training.progress.epochs), 0])
        batches = bucket(windows_Q3[:, 1] - windows_Q3[:, 0], config.batch_items, rng)
        training.run_epoch(
            as_requests(batch_of(log, windows_Q3[some], test=False)[1], config.request_share, rng) for some in batches
        )
    model.eval()

    @torch.inference_mode()
    def score(batch: Any, known_BN: Tensor) -> tuple[Tensor, Tensor]:
        return model(*batch.inputs).sigmoid(), frozen_logits(model, batch, known_BN).sigmoid()

    return _scored(log, config.max_items, score)


def _standardise(model: nn.Module, events: TrainingEvents) -> None:
    model.feedback.standardise(float(events.graded_P.mean()), float(events.graded_P.std()))  # type: ignore[union-attr, operator]


if __name__ == "__main__":
    typer.run(main)
