"""From embeddings to a tokenizer: what is refused, what is sampled, and the training of the configured method.

N items.
"""

import math

import torch
from torch import Tensor

from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import MODALITIES, Embeddings, TokenizerError, sample
from tokenizer.base.methods import build
from tokenizer.base.tokenizer import Tokenizer
from tokenizer.baselines.rq_kmeans import RQKMeans
from tokenizer.baselines.rq_vae import RQVAE
from tokenizer.dst.model import DST
from tokenizer.training.training import OnProgress, Training


def fit(
    embeddings: Embeddings,
    config: TokenizerConfig,
    *,
    validation: Embeddings | None = None,
    device: str | torch.device = "cpu",
    on_epoch: OnProgress | None = None,
    on_step: OnProgress | None = None,
    resume: bytes | None = None,
) -> Tokenizer:
    """Train a tokenizer; the seed, the data, the number of workers and the library versions fix the result.

    Args:
        embeddings: of the training items, which need not be normalised; they may be memory-mapped, a batch at a time is
            read. A modality that no item has is left out. Every worker is given all of them.
        config: method, shape and training settings.
        validation: items that early stopping watches, if ``config.patience`` asks for it.
        device: where to train; the embeddings stay where they are, batches travel.
        on_epoch: called after each epoch with the training, whose ``state()`` can be kept.
        on_step: called with it after each batch.
        resume: such a state of a training that did not come to its end, to go on from; the result is the same.

    Returns:
        The tokenizer in eval mode on ``device``.

    Raises:
        TokenizerError: too few items for the codebooks, unusable embeddings, a training that diverged, or a state of
            another training.
    """
    chosen_N = sample(len(embeddings), config.max_train_items, config.seed)
    check_size(embeddings, chosen_N, config)
    embeddings.check_usable()
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = build(config, embeddings.text_ND.shape[1], embeddings.image_ND.shape[1])
        model.seen_2.copy_(torch.stack([embeddings.present(m).any() for m in MODALITIES]))
        if isinstance(model, RQKMeans):
            model.learn(embeddings.select(chosen_N).to("cpu").normalised())
            return model.to(device).eval()
        assert isinstance(model, DST | RQVAE)
        training = Training(model.to(device), embeddings, chosen_N, validation)
        if resume is not None:
            training.restore(resume)
        while not training.finished:
            training.run_epoch(on_step)
            if on_epoch is not None:
                on_epoch(training)
        return training.result()


def check_size(embeddings: Embeddings, chosen_N: Tensor, config: TokenizerConfig) -> None:
    """Refuse a catalogue whose items at ``chosen_N`` cannot fill the codebooks.

    Raises:
        TokenizerError: fewer items, or items with a modality that some have, than a codebook has codes.
    """
    counts = {"": len(chosen_N)}
    counts |= {
        f" with {m}": int(embeddings.present(m)[chosen_N].sum()) for m in MODALITIES if embeddings.present(m).any()
    }
    what, fewest = min(counts.items(), key=lambda count: count[1])
    if fewest < config.codebook_size:
        raise TokenizerError(
            f"{fewest} items{what} cannot fill codebooks of {config.codebook_size} codes; lower codebook_size "
            f"(about {2 ** max(1, int(math.log2(max(fewest, 2) / 30)))} would suit), or give the tokenizer more items"
        )
