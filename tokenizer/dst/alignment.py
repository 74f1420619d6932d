"""Cross-modal geometric alignment (CGA): one hypersphere for all modalities, and the consensus on it.

B items, D width of the common space, E width of an embedding; z are unit vectors.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def consensus(
    z_text_BD: Tensor, z_image_BD: Tensor, has_text_B: Tensor, has_image_B: Tensor, text_share: float
) -> Tensor:
    """The normalised weighted sum of the projections that are there, ``c = normalise(Σ p_m w_m z_m)``: (B, D).

    Departure from the paper, which weighs all modalities alike: where one tells less of an item (a poster, beside a
    plot), ``text_share`` other than a half keeps it from turning the consensus over.
    """
    return F.normalize(weighted_sum(z_text_BD, z_image_BD, has_text_B, has_image_B, text_share), dim=1)


def weighted_sum(
    z_text_BD: Tensor, z_image_BD: Tensor, has_text_B: Tensor, has_image_B: Tensor, text_share: float
) -> Tensor:
    """What :func:`consensus` normalises: (B, D)."""
    w_text_B1 = has_text_B[:, None] * text_share
    w_image_B1 = has_image_B[:, None] * (1 - text_share)
    zero = z_text_BD.new_zeros(())
    # An absent row may hold anything, NaN too, so it is replaced, not multiplied by zero.
    total_BD = torch.where(has_text_B[:, None], z_text_BD, zero) * w_text_B1
    return total_BD + torch.where(has_image_B[:, None], z_image_BD, zero) * w_image_B1


def contrastive_loss(z_text_BD: Tensor, z_image_BD: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE, a scalar in nats: an item's text and image find each other among the batch."""
    logits_BB = z_text_BD @ z_image_BD.T / temperature
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, own_B) + F.cross_entropy(logits_BB.T, own_B)) / 2


def agreement_loss(z_text_BD: Tensor, z_image_BD: Tensor) -> Tensor:
    """Mean squared distance between an item's own text and image, a scalar.

    Departure from the paper: the contrastive loss rewards whatever tells items apart, so on a small catalogue it keeps
    what one modality alone knows and learns the pairs by heart; this term takes out of the common space what the other
    modality does not know.
    """
    return (z_text_BD - z_image_BD).square().sum(dim=1).mean()


def geometry_loss(z_BD: Tensor, x_BE: Tensor) -> Tensor:
    """Mean squared difference between the cosines of all pairs before and after projection, a scalar.

    Departure from the paper's ``‖Z Zᵀ − E Eᵀ‖²``: ``x_BE`` are centred embeddings, since encoders leave all pairs at
    nearly the same angle.
    """
    x_BE = F.normalize(x_BE, dim=1)
    return F.mse_loss(z_BD @ z_BD.T, x_BE @ x_BE.T)
