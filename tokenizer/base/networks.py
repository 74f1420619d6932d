"""The small networks of the tokenizer: a linear path beside a one-hidden-layer perceptron."""

from typing import cast

import torch
from torch import Tensor, nn

from tokenizer.base.rounding import Bound, grown, spectral_norm, unit

GELU_SLOPE = 1.13  # its steepest
GELU_ERROR = 8  # roundings


class Network(nn.Module):
    """``linear(x) + mlp(x)`` with dropout in the hidden layer.

    The linear path carries what a linear code would carry, so that the perceptron only learns what is left; with
    dropout this is what keeps small catalogues from being memorised.
    """

    def __init__(self, width_in: int, hidden: int, width_out: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)
        self.hidden = nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Dropout(dropout))
        self.last = nn.Linear(hidden, width_out, bias=False)

    @torch.no_grad()
    def start_linear(self) -> None:
        """Begin as the linear path alone, without an offset."""
        self.linear.bias.zero_()
        self.last.weight.zero_()

    def forward(self, x_BI: Tensor) -> Tensor:
        """Outputs (B, width_out) of inputs (B, width_in)."""
        return self.linear(x_BI) + self.last(self.hidden(x_BI))

    @torch.no_grad()
    def bound(self) -> Bound:
        """The error of :meth:`forward` without dropout, by the weights as they are; costs three eigenvalue problems."""
        linear, hidden, last = self.linear, cast(nn.Linear, self.hidden[0]), self.last
        slope, hidden_slope, last_slope = (spectral_norm(layer.weight) for layer in (linear, hidden, last))
        u, width_in, width_hidden = unit(linear.weight.dtype), linear.in_features, hidden.out_features

        def at(length: float, offset: float) -> float:  # the error of an input of that length
            reached = hidden_slope * length + offset * float(hidden.bias.norm())
            before = grown(width_in) * (float(hidden.weight.norm()) * length + offset * float(hidden.bias.norm()))
            after = last_slope * (GELU_SLOPE * before + GELU_ERROR * reached)
            direct = grown(width_in) * (float(linear.weight.norm()) * length + offset * float(linear.bias.norm()))
            return u * (after + direct + grown(width_hidden) * float(last.weight.norm()) * reached)

        return Bound(slope + GELU_SLOPE * last_slope * hidden_slope, at(1, 0), at(0, 1))


class Standardiser(nn.Module):
    """A modality's fixed mean and spread, learnt once from the training items.

    Encoders put all items into a narrow cone; taking its mean off lets networks and codebooks spend themselves on
    differences between items. ``spread`` is the root mean square of one centred component.
    """

    centre_D: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("centre_D", torch.zeros(width))
        self.register_buffer("spread", torch.ones(()))

    def learn(self, e_ND: Tensor) -> None:
        """Take mean and spread from normalised embeddings (N, D)."""
        self.centre_D.copy_(e_ND.mean(dim=0))
        self.spread.copy_((e_ND - self.centre_D).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, e_BD: Tensor) -> Tensor:
        """Normalised embeddings (B, D) to inputs of mean zero and unit spread."""
        return (e_BD - self.centre_D) / self.spread

    def error(self, e_BD: Tensor) -> Tensor:
        """The error (B,) of :meth:`forward`, where embeddings were normalised in their own precision."""
        u, width = unit(e_BD.dtype), e_BD.shape[1]
        return (u * grown(width) * (1 + self.centre_D.norm()) / self.spread).expand(len(e_BD))

    def invert(self, x_BD: Tensor) -> Tensor:
        """Inputs (B, D) back to normalised embeddings (B, D): the inverse of :meth:`forward`."""
        return x_BD * self.spread + self.centre_D
