"""DST against residual k-means and RQ-VAE at equal bits, and the DST without each of its parts.

``python -m benchmarks.tokenizer_quality generated`` needs nothing; ``movielens CONFIG`` needs a lake in which
``hisam extract`` and ``hisam encode`` have run on MovieLens-1M. Results gather in a file, so a benchmark that was cut
off goes on where it stopped.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from sklearn.preprocessing import OneHotEncoder
from torch.nn import functional as F

from benchmarks.ablations import ABLATIONS, METHODS, RANDOM_START, SETTINGS, ablated
from benchmarks.disentanglement import measure
from benchmarks.known_factors import GRADES, Catalogue, generate
from benchmarks.movielens import Films, load_films, new_items_gauc
from benchmarks.ranking import load_windows, train_and_score, under_codes
from benchmarks.trials import RESULTS, Figures, Trial, paired, run_trials, summary
from ranker.config import RankerConfig
from ranker.evaluation import report
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.dst.model import DST
from tokenizer.quality.consensus import encode
from tokenizer.quantisation.quantiser import ResidualQuantiser
from tokenizer.training.fitting import fit

ITEMS, HELD_OUT = 20_000, 4_000
GENERATED: dict[str, Any] = {
    "shared_levels": 3,
    "text_levels": 2,
    "image_levels": 2,
    "codebook_size": 256,
    "epochs": 20,
}
# Text and posters have little in common: one shared level, led by the text; a small catalogue wants much noise.
MOVIELENS: dict[str, Any] = {
    "shared_levels": 1,
    "text_levels": 3,
    "image_levels": 3,
    "codebook_size": 64,
    "text_share": 0.78,
    "self_weight": 1.0,
    "input_noise": 1.0,
    "dropout": 0.3,
    "decorrelation_weight": 0.3,
    "beam": 5,
    "linear_start": True,
}
LAYOUTS = {"movielens 1+3+3": (1, 3, 3), "movielens 1+4+2": (1, 4, 2)}
FILMS_HELD_OUT = 483

app = typer.Typer(add_completion=False)
Seeds = Annotated[int, typer.Option(help="Seeds of each variant.")]
Processes = Annotated[int, typer.Option(help="Trials that run at a time, one thread each.")]


@app.command()
def generated(
    seeds: Seeds = 5, ablation_seeds: Seeds = 3, processes: Processes = 2, grade: list[str] | None = None
) -> None:
    """Catalogues of known factors, in three grades."""
    grades = grade or list(GRADES)
    trials = [Trial(g, v, s) for s in range(seeds) for g in grades for v in METHODS]
    # What text and image of the easy grade have in common fills 64 codes, no more: see docs/tokenizer.md.
    trials += [Trial("easy", "dst, 64 codes", s) for s in range(seeds) if "easy" in grades]
    ablated_on = [g for g in ("easy", "hard") if g in grades]
    trials += [Trial(g, v, s) for s in range(ablation_seeds) for g in ablated_on for v in ABLATIONS]
    results = run_trials(trials, _generated, RESULTS / "tokenizer_generated.jsonl", processes)
    columns = (
        ("rebuilt:text", "rebuilt:image", "kept:text_alone", "kept:image_alone", "collisions", "used", "perplexity"),
        ("first:shared", "shared:text", "shared:image", "text:shared", "image:shared", "text:text", "image:image"),
    )
    for data in grades:
        for part in columns:
            Console(width=180).print(summary(results, data, SETTINGS, part, range(seeds)))


@app.command()
def movielens(config: Path, seeds: Seeds = 5, processes: Processes = 2) -> None:
    """Held-out films and new items of MovieLens-1M."""
    trials = [Trial(d, v, s) for s in range(seeds) for d in LAYOUTS for v in METHODS]
    first = next(iter(LAYOUTS))
    trials = [t for t in trials if t.variant == "dst" or t.data == first]
    trials += [Trial(first, RANDOM_START, s) for s in range(seeds)]
    results = run_trials(trials, partial(_movielens, config), RESULTS / "tokenizer_movielens.jsonl", processes)
    names = list(next(iter(results.values())))
    columns = (
        ("rebuilt:text", "rebuilt:image", "overlap:text", "overlap:image", "kept:text_alone", "used", "perplexity"),
        [name for name in names if name.startswith("new items, decoded")],
        [name for name in names if name.startswith("new items, one-hot")],
    )
    for part in columns:
        for data in LAYOUTS:
            Console(width=200).print(summary(results, data, (*METHODS, RANDOM_START), part, range(seeds)))


@app.command()
def downstream(config: Path, seeds: Seeds = 3, processes: Processes = 2, epochs: int = 2) -> None:
    """The same HMAT on the codes of each method."""
    measure_one = partial(_downstream, config, epochs)
    trials = [Trial("downstream", v, s) for s in range(seeds) for v in METHODS]
    results = run_trials(trials, measure_one, RESULTS / "tokenizer_downstream.jsonl", processes)
    columns = list(next(iter(results.values())))[:-1]
    console = Console(width=180)
    console.print(summary(results, "downstream", METHODS, columns, range(seeds)))
    for other in METHODS[1:]:
        for column in columns:
            found = paired(results, "downstream", "dst", other, column, range(seeds))
            console.print(f"dst less {other}, {column}: {found}")


def _downstream(config_file: Path, epochs: int, trial: Trial) -> Figures:
    films = load_films(config_file)
    with ablated(trial.variant) as settings:
        config = TokenizerConfig.model_validate(MOVIELENS | settings | {"seed": trial.seed})
        model = fit(films.embeddings, config)
    codes_NS = encode(model, films.embeddings).numpy()
    train, test = (under_codes(windows, films.film_N, codes_NS) for windows in load_windows(config_file))
    ranker = RankerConfig(max_items=200, epochs=epochs, seed=trial.seed)
    found = report(train_and_score(train, test, model.layout, ranker))
    cold = found["slices"]
    return {"auc": found["auc"], "gauc": found["gauc"], "log_loss": found["log_loss"]} | {
        f"{measure} {name}": cold[name][measure] for name in ("0", "1-10", "11-100") for measure in ("auc", "gauc")
    }


def _generated(trial: Trial) -> Figures:
    catalogue = generate(trial.data, ITEMS + HELD_OUT, trial.seed)
    train, held_out = catalogue.select(slice(0, ITEMS)), catalogue.select(slice(ITEMS, None))
    with ablated(trial.variant) as settings:
        config = TokenizerConfig.model_validate(GENERATED | settings | {"seed": trial.seed})
        return measure(fit(train.embeddings, config), train, held_out)


def _movielens(config_file: Path, trial: Trial) -> Figures:
    films = load_films(config_file)
    names = ("shared_levels", "text_levels", "image_levels")
    layout = dict(zip(names, LAYOUTS[trial.data], strict=True))
    with ablated(trial.variant) as settings:
        config = TokenizerConfig.model_validate(MOVIELENS | layout | settings | {"seed": trial.seed})
        order_N = torch.randperm(len(films.embeddings), generator=torch.Generator().manual_seed(trial.seed))
        held_out, train = (
            films.embeddings.select(rows.sort().values)
            for rows in order_N.split_with_sizes([FILMS_HELD_OUT, len(order_N) - FILMS_HELD_OUT])
        )
        figures = measure(fit(train, config), Catalogue(train, {}), Catalogue(held_out, {}))
        visible = films.embeddings.select(torch.from_numpy(~films.hidden_N))
        return figures | _new_items(films, fit(visible, config))


def _new_items(films: Films, model: Tokenizer) -> Figures:
    """GAUC on new films from decoded codes and from one-hot codes, by how many of an ID's codes are used."""
    codes_NS = encode(model, films.embeddings)
    figures = {}
    for length in range(1, model.layout.slots + 1):
        decoded = [F.normalize(x_NE, dim=1).numpy() for x_NE in first_codes(model, length).decode(codes_NS)]
        one_hot = OneHotEncoder(sparse_output=False, dtype=np.float32).fit_transform(codes_NS[:, :length].numpy())
        figures[f"new items, decoded text, {length}"] = new_items_gauc(films, decoded[MODALITIES.index("text")])
        figures[f"new items, one-hot, {length}"] = new_items_gauc(films, one_hot)
    figures["new items, decoded both"] = new_items_gauc(films, np.concatenate(decoded, axis=1))
    return figures


def first_codes(model: Tokenizer, length: int) -> Tokenizer:
    """A tokenizer that decodes from the first ``length`` of an ID's codes: the later ones say nothing."""
    short = copy.deepcopy(model)
    own = [short.shared, short.text.quantiser, short.image.quantiser] if isinstance(short, DST) else [short.quantiser]
    slot = 0
    for quantiser in own:
        assert isinstance(quantiser, ResidualQuantiser)
        for codebook_KD in quantiser.codebooks_LKD:
            if slot >= length:
                codebook_KD.zero_()
            slot += 1
    return short


if __name__ == "__main__":
    app()
