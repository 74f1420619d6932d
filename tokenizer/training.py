"""Training of the tokenizer: align first, then initialise the codebooks, then train all of it together.

N training items, B items of a batch.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from tokenizer.codebooks import CodebookLearner
from tokenizer.config import TokenizerConfig
from tokenizer.dst import DST
from tokenizer.embeddings import MODALITIES, Embeddings, TokenizerError
from tokenizer.objective import Objective
from tokenizer.quantiser import ResidualQuantiser

Progress = Callable[[int, int, dict[str, float]], None]

GRADIENT_NORM = 1.0
VCLUB_LEARNING_RATE = 1e-3
KMEANS_ITEMS_PER_CODE = 256
LEARNING_RATE_RISE = 0.1  # share of the training until the learning rate is at its peak
WORSE_THAN_NOTHING = 1.5  # unexplained variance by modality; the mean item alone would leave 1


def fit(
    embeddings: Embeddings,
    config: TokenizerConfig,
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> DST:
    """Train a tokenizer; the seed, the data and the library versions fix the result.

    Args:
        embeddings: of the training items, which need not be normalised. A modality that no item has is left out.
        config: shape and training settings.
        device: where to train; the embeddings stay where they are, batches travel.
        progress: called after each epoch with its number from 1, the number of epochs, and the mean of each loss term.

    Returns:
        The tokenizer in eval mode on ``device``.

    Raises:
        TokenizerError: too few items for the codebooks, unusable embeddings, or a training that diverged.
    """
    embeddings = _sample(embeddings, config)
    check_size(embeddings, config)
    embeddings = embeddings.to("cpu").normalised()
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = DST(config, embeddings.text_ND.shape[1], embeddings.image_ND.shape[1])
        for m in MODALITIES:
            model.branch(m).learn_statistics(embeddings.vectors(m)[embeddings.present(m)])
        model = model.to(device)
        _train(model, Objective(config).to(device), embeddings, progress)
    return model.eval()


def check_size(embeddings: Embeddings, config: TokenizerConfig) -> None:
    """Refuse a catalogue that cannot fill the codebooks.

    Raises:
        TokenizerError: fewer items, or items with a modality that some have, than a codebook has codes.
    """
    counts = {"": len(embeddings)}
    counts |= {f" with {m}": n for m in MODALITIES if (n := int(embeddings.present(m).sum()))}
    what, fewest = min(counts.items(), key=lambda count: count[1])
    if fewest < config.codebook_size:
        raise TokenizerError(
            f"{fewest} items{what} cannot fill codebooks of {config.codebook_size} codes; lower codebook_size "
            f"(about {2 ** max(1, int(math.log2(max(fewest, 2) / 30)))} would suit), or give the tokenizer more items"
        )


def _train(model: DST, objective: Objective, embeddings: Embeddings, progress: Progress | None) -> None:
    config, device = model.config, model.device
    batches = math.ceil(len(embeddings) / config.batch_size)
    epochs = max(config.epochs, math.ceil(config.min_steps / batches))
    warmup = min(max(1, round(config.warmup * epochs)), epochs - 1)
    learners = {
        q: CodebookLearner(q, decay=config.ema_decay, revive_below=config.revive_below, seed=config.seed)
        for q in (model.shared, model.text.quantiser, model.image.quantiser)
    }
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, epochs * batches))
    bound_optimiser = torch.optim.Adam(objective.parameters(), lr=VCLUB_LEARNING_RATE)
    for epoch in range(epochs):
        if epoch == warmup:
            _initialise_codebooks(model, learners, embeddings)
        model.train()
        ramp = min(1.0, max(0.0, (epoch - warmup) / max(1, warmup)))
        means: dict[str, float] = {}
        for batch in _batches(embeddings, batches, device):
            outcome = objective(model, batch, ramp)
            optimiser.zero_grad(set_to_none=True)
            outcome.loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            bound_optimiser.zero_grad(set_to_none=True)
            objective.mismatch(outcome).backward()
            bound_optimiser.step()
            if epoch >= warmup:
                for quantiser, quantised in outcome.quantised:
                    learners[quantiser].update(quantised)
            for name, term in outcome.terms.items():
                means[name] = means.get(name, 0.0) + float(term.detach()) / batches
        _refuse_divergence(means, epoch, model)
        if progress is not None:
            progress(epoch + 1, epochs, means)


def _rate(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(LEARNING_RATE_RISE * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def _sample(embeddings: Embeddings, config: TokenizerConfig) -> Embeddings:
    if len(embeddings) <= config.max_train_items:
        return embeddings
    generator = torch.Generator().manual_seed(config.seed)
    chosen_N = torch.randperm(len(embeddings), generator=generator)[: config.max_train_items]
    return embeddings.select(chosen_N.sort().values)


def _batches(embeddings: Embeddings, count: int, device: torch.device) -> Iterator[Embeddings]:
    """All items in a new order, in ``count`` batches of nearly equal size."""
    for index_B in torch.randperm(len(embeddings)).tensor_split(count):
        yield embeddings.select(index_B).to(device)


@torch.no_grad()
def _initialise_codebooks(
    model: DST, learners: dict[ResidualQuantiser, CodebookLearner], embeddings: Embeddings
) -> None:
    """k-means for each level on what the warmed-up networks make of (a sample of) the training items."""
    model.eval()
    limit = KMEANS_ITEMS_PER_CODE * model.config.codebook_size
    items = embeddings.select(torch.randperm(len(embeddings))[:limit]).to(model.device)
    x = {m: model.branch(m).standardise(items.vectors(m)) for m in MODALITIES}
    z = {m: model.branch(m).align(x[m]) for m in MODALITIES}
    merged_ND = model.merge(z["text"], z["image"], items.has_text_N, items.has_image_N)
    learners[model.shared].initialise(merged_ND)
    q_shared_ND = model.shared.lookup(model.shared.encode(merged_ND))
    for m in MODALITIES:
        has_N = items.present(m)
        if bool(has_N.any()):
            branch = model.branch(m)
            learners[branch.quantiser].initialise(branch.left_over(x[m][has_N], q_shared_ND[has_N]))


def _refuse_divergence(means: dict[str, float], epoch: int, model: DST) -> None:
    config = model.config
    advice = (
        f"lower learning_rate (now {config.learning_rate:g}) or information_weight (now {config.information_weight:g})"
    )
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        raise TokenizerError(f"training diverged in epoch {epoch + 1}: loss term {broken[0]} is not finite; {advice}")
    unexplained = (
        means["rebuild"] / max(config.rebuild_weight, 1e-12) / sum(bool(model.branch(m).seen) for m in MODALITIES)
    )
    if config.rebuild_weight and unexplained > WORSE_THAN_NOTHING:
        raise TokenizerError(
            f"training diverged in epoch {epoch + 1}: decoding leaves {unexplained:.2f} of the variance, worse than "
            f"no codes at all; {advice}"
        )
