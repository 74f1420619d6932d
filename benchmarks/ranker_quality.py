"""HMAT against the flat transformer and against item IDs on MovieLens-1M, on all films and on films new to it.

``python -m benchmarks.ranker_quality CONFIG`` needs a lake in which the jobs up to ``hisam sequences`` have run. The
rankers read codes of tokenizers that the benchmark trains: on all films, and for *new films* without the seventh of
the films that neither tokenizer nor ranker sees before the test period. Results gather in a file, so a benchmark that
was cut off goes on where it stopped.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.compute as pc
import torch
import typer
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.movielens import Films, load_films
from benchmarks.ranking import load_windows, train_and_score, under_codes, without_history_of
from benchmarks.tokenizer_quality import MOVIELENS
from benchmarks.trials import RESULTS, Figures, Trial, paired, run_trials, summary
from ranker.config import RankerConfig
from ranker.evaluation import report
from ranker.hmat import model as hmat
from ranker.hmat.attention import own_item_mask
from ranker.hmat.rotary import plain_rotation
from tokenizer.base.config import TokenizerConfig
from tokenizer.quality.code_vectors import code_vectors
from tokenizer.quality.consensus import encode
from tokenizer.training.fitting import fit

ALL, NEW = "all films", "new films"
METHODS = ("dst", "rq_kmeans", "rq_vae")
ITEM_ID = {"dropout": 0.1}
DECODED: dict[str, Any] = {"codes": False, "decoded": ["text"]}
BOTH: dict[str, Any] = DECODED | {"item_id": {}, "free_dropout": 0.03}
VARIANTS: dict[str, dict[str, Any]] = {
    "flat stream, codes": {"arch": "flat"},
    "codes": {},
    "IDs": {"codes": False, "item_id": ITEM_ID},
    "codes + IDs": {"item_id": ITEM_ID},
    "decoded": DECODED,
    "decoded + IDs": BOTH,
    "decoded, dropout + IDs": BOTH | {"decoded_dropout": 0.5},
    "codes + decoded + IDs": BOTH | {"codes": True},
    "decoded + IDs, rq_kmeans": BOTH,
    "decoded + IDs, rq_vae": BOTH,
    "without hierarchical RoPE": {},
    "history as mean of tokens": {},
    "details of the past": {},
}
DIFFERENCES = (
    (ALL, "codes", "flat stream, codes"),
    (ALL, "codes", "without hierarchical RoPE"),
    (ALL, "codes", "history as mean of tokens"),
    (ALL, "codes", "details of the past"),
    (ALL, "codes + IDs", "IDs"),
    (ALL, "decoded + IDs", "IDs"),
    (ALL, "decoded, dropout + IDs", "IDs"),
    (NEW, "codes + IDs", "IDs"),
    (NEW, "decoded + IDs", "IDs"),
    (NEW, "decoded, dropout + IDs", "IDs"),
    (NEW, "decoded + IDs", "decoded + IDs, rq_kmeans"),
    (NEW, "decoded + IDs", "decoded + IDs, rq_vae"),
)
COLUMNS = ("auc", "gauc", "log_loss", "auc new", "gauc new", "gauc 1-10", "gauc 11-100", "gauc 101+", "seconds")


def one_stream(items: int, slots: int, head: int, base: float, device: torch.device) -> Tensor:
    """Rotations (N, S, F) by the position among all tokens."""
    return plain_rotation(items * slots, head, base, device).unflatten(0, (items, slots))


def mean_of_slots(x_BNSE: Tensor) -> Tensor:
    """``(B, N, E)``: all slots of an item instead of its anchor."""
    return x_BNSE.mean(2)


def all_details(q_BHNQD: Tensor, k_BHNSD: Tensor, v_BHNSD: Tensor, past_k_BHND: Tensor, past_v_BHND: Tensor) -> Tensor:
    """``(B, H, N, Q, D)``: attention to memories and own item, and to the semantic tokens of all earlier items."""
    items, queries, slots = *q_BHNQD.shape[2:4], k_BHNSD.shape[3]
    item_L, slot_L = (x.flatten() for x in torch.meshgrid(torch.arange(items), torch.arange(slots), indexing="ij"))
    item_R = torch.arange(items).repeat_interleave(queries)
    own_RL = own_item_mask(slots, queries, q_BHNQD.device).repeat(items, items) & (item_R[:, None] == item_L)
    earlier_RL = (item_L < item_R[:, None]) & (slot_L < slots - 1)
    visible = torch.cat([torch.arange(items) <= item_R[:, None], own_RL | earlier_RL], 1)
    keys, values = (
        torch.cat([past_k_BHND, k_BHNSD.flatten(2, 3)], 2),
        torch.cat([past_v_BHND, v_BHNSD.flatten(2, 3)], 2),
    )
    read = F.scaled_dot_product_attention(q_BHNQD.flatten(2, 3), keys, values, attn_mask=visible)
    return read.unflatten(2, (items, queries))


INSTEAD: dict[str, dict[str, Any]] = {
    "without hierarchical RoPE": {"hierarchical_rotation": one_stream},
    "history as mean of tokens": {"condensed": mean_of_slots},
    "details of the past": {"memory_anchor_attention": all_details},
}
ON = {
    ALL: [v for v in VARIANTS if not v.endswith(METHODS)],
    NEW: [v for v in VARIANTS if v not in ("flat stream, codes", *INSTEAD)],
}
Variant = Annotated[list[str] | None, typer.Option(help="Only these variants.")]
Data = Annotated[list[str] | None, typer.Option(help=f"Only these: {ALL}, {NEW}.")]


def _tokenizer(method: str) -> TokenizerConfig:
    """Seven codes of 64, most of them for the text, which says more of a film than its poster."""
    layout = {"shared_levels": 1, "text_levels": 4, "image_levels": 2}
    return TokenizerConfig.model_validate(MOVIELENS | layout | {"method": method})


def main(
    config: Path,
    work: Path,
    seeds: int = 3,
    processes: int = 2,
    epochs: int = 3,
    variant: Variant = None,
    data: Data = None,
) -> None:
    """Train and score every variant; ``work`` keeps the codes of the benchmark's tokenizers."""
    films = load_films(config)
    for name in ON:
        for method in METHODS:
            _codes(films, name, method, work)
    chosen = variant or list(VARIANTS)
    trials = [Trial(d, v, s) for s in range(seeds) for v in chosen for d in data or ON if v in ON[d]]
    measure = partial(_measure, config, work, epochs)
    results = run_trials(trials, measure, RESULTS / "ranker_quality.jsonl", processes)
    console = Console(width=200)
    for name in ON:
        console.print(summary(results, name, VARIANTS, COLUMNS, range(seeds)))
    for name, a, b in DIFFERENCES:
        both = [s for s in range(seeds) if {Trial(name, v, s).key for v in (a, b)} <= results.keys()]
        if both:
            figures = [c for c in COLUMNS[:-1] if c in results[Trial(name, a, both[0]).key]]
            found = (f"{c} {paired(results, name, a, b, c, both)}" for c in figures)
            console.print(f"{name}, {len(both)} seeds: {a} less {b}: {', '.join(found)}")


def _measure(config_file: Path, work: Path, epochs: int, trial: Trial) -> Figures:
    films = load_films(config_file)
    train, test = load_windows(config_file)
    hidden_N = films.film_N[films.hidden_N]
    if trial.data == NEW:
        cut = pc.max(pc.list_flatten(train["times"])).as_py() + 1
        train, test = (without_history_of(windows, hidden_N, cut) for windows in (train, test))
    method = next((m for m in METHODS if trial.variant.endswith(m)), "dst")
    codes_NS, decoded_CV = _codes(films, trial.data, method, work)
    train, test = (under_codes(windows, films.film_N, codes_NS.numpy()) for windows in (train, test))
    settings = {"max_items": 200, "epochs": epochs, "seed": trial.seed} | VARIANTS[trial.variant]
    ranker = RankerConfig.model_validate(settings)
    layout = _tokenizer(method).layout()
    with patch.dict(vars(hmat), INSTEAD.get(trial.variant, {})):
        scored = train_and_score(train, test, layout, ranker, decoded_CV if ranker.decoded else None)
    figures = _figures(scored)
    if trial.data == NEW:
        new = pc.is_in(scored["item_id"].cast(pa.int64()), value_set=pa.array(hidden_N))
        figures |= {f"{name} new": _figures(scored.filter(new))[name] for name in ("auc", "gauc")}
    return figures


def _figures(scored: pa.Table) -> Figures:
    found = report(scored)
    figures = {name: found[name] for name in ("auc", "gauc", "log_loss")}
    return figures | {f"gauc {name}": found["slices"][name]["gauc"] for name in ("1-10", "11-100", "101+")}


def _codes(films: Films, data: str, method: str, work: Path) -> tuple[Tensor, Tensor]:
    """Of a tokenizer that saw the films of ``data``: codes of all films (N, S) int16, decoded text vectors (C, V)."""
    file = work / f"{data}, {method}.safetensors".replace(" ", "_")
    if not file.exists():
        seen_N = torch.from_numpy(~films.hidden_N | (data == ALL))
        model = fit(films.embeddings.select(seen_N), _tokenizer(method))
        codes_NS = encode(model, films.embeddings)
        work.mkdir(parents=True, exist_ok=True)
        save_file({"codes": codes_NS, "decoded": code_vectors(model, codes_NS[seen_N], ["text"])}, file)
    stored = load_file(file)
    return stored["codes"], stored["decoded"]


if __name__ == "__main__":
    typer.run(main)
