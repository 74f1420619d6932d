"""A memory of taste beside attention: the user's vector as a ridge regression over all that came before.

With the rows x_j of earlier items and what their feedback was above their bias, r_j, the user's vector after n items is

    θ_n = A_n⁻¹ (c_n + Λ μ_n),   A_n = Λ + Σ_{j<n} x_j x_jᵀ,   c_n = Σ_{j<n} x_j r_j

a state of one size however long the history, updated item by item (linear attention with an exact delta rule). The
prior's mean μ_n says what is usual among users who met such items, however they liked them: a regression on the mean of
vectors of the items met, which items that the same users meet share. What is old fades: before each stretch of items
the sums are multiplied by a constant. Nothing here is trained by gradients: all comes from a ranker's
:class:`ranker.factors.ItemFactors`.

All θ of a stretch are computed at once. With P = A⁻¹ at its start, the Cholesky factor of X P Xᵀ + 1 = C Cᵀ whitens the
errors, e = C⁻¹ (r − X P c), and with the columns w of P Xᵀ C⁻ᵀ

    A_n⁻¹ c_n = P c + Σ_{j<n} w_j e_j,   A_n⁻¹ = P − Σ_{j<n} w_j w_jᵀ

A regression over all that came before is slow to see a mood. Beside θ_n the network is told how the latest items were
received beyond what θ expected of them: averages of r_j − x_j · θ_j that fade within a few items.

Letters: B windows, N items, M = N + 1 states, L items of a stretch, V width of a content vector, F numbers of a row
(the bias first), G = F − 1, R averages, Z width of the vectors of items met, E width of the ranker.
"""

import torch
from torch import Tensor, nn

from ranker.config import CollaborativeConfig
from ranker.factors import ItemFactors, history_features
from ranker.hmat.items import places_among

STRETCH = 64
FIRST_SLOPE = 5.0  # of the logit by the expected feedback: 4 is that of a probability of a half
LOG_COUNTS = 4.0
NOBODYS = -1  # hashes are not negative
RECENT = 4.0, 16.0  # items after which an item counts half in an average of the latest
FEW_RECENT = 2.0  # items of no surprise that each average begins with


class CollaborativeMemory(nn.Module):
    """Rows of items, states of users, and what both together expect of the feedback: an offset of the logit, and an
    input that says the rest of it."""

    def __init__(self, factors: ItemFactors, config: CollaborativeConfig, dim: int) -> None:
        super().__init__()
        self.graded, self.unknown = config.graded, config.unknown
        self.fade = 1.0 if config.half_life is None else 0.5 ** (STRETCH / config.half_life)
        for name, tensor in factors.kept().items():
            self.register_buffer(name, tensor)
        self.register_buffer("apart_GIF", factors.apart_GIF, persistent=False)
        self.apart_GIF: Tensor | None
        self.hash_I: Tensor
        self.deviation_IF: Tensor
        self.count_I: Tensor
        self.intercept_F: Tensor
        self.content_VF: Tensor
        self.precision_F: Tensor
        self.scale_F: Tensor
        self.ends_2: Tensor
        self.met_IZ: Tensor
        self.usual_HG: Tensor
        self.slope = nn.Parameter(torch.tensor(FIRST_SLOPE))
        self.project = nn.Linear(2 * len(self.intercept_F) + 2 + len(RECENT), dim)

    def asked(
        self, items_BN: Tensor, content_BNV: Tensor | None, fold_B: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What :meth:`rows` gives, ``(B, N, F)`` and ``(B, N)``, of items that are to be scored: in training some are
        taken for new ones."""
        if not self.training or not self.unknown:
            return self.rows(items_BN, content_BNV, fold_B)
        hidden_BN = torch.rand(items_BN.shape, device=items_BN.device) < self.unknown
        return self.rows(items_BN.masked_fill(hidden_BN, NOBODYS), content_BNV, fold_B)

    def rows(self, items_BN: Tensor, content_BNV: Tensor | None, fold_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows ``(B, N, F)`` of int64 hashes and content vectors, and training events ``(B, N)`` of the items; with
        ``fold_B`` without what the users of that fold said."""
        place_BN = places_among(self.hash_I, items_BN)
        if fold_B is None or self.apart_GIF is None:
            deviation_BNF = self.deviation_IF[place_BN]
        else:
            deviation_BNF = self.apart_GIF[fold_B[:, None], place_BN]
        rows_BNF = self.intercept_F + deviation_BNF
        if content_BNV is not None:
            with torch.autocast(items_BN.device.type, enabled=False):
                rows_BNF = rows_BNF + content_BNV.float() @ self.content_VF
        return rows_BNF, self.count_I[place_BN]

    def feedback(self, labels_BN: Tensor, graded_BN: Tensor | None) -> Tensor:
        """``(B, N)``, 0 to 1: labels, mixed with the graded feedback where there is any."""
        if graded_BN is None:
            return labels_BN.float()
        low, high = self.ends_2
        graded_BN = ((graded_BN - low) / (high - low)).clamp(0, 1)
        mixed_BN = torch.lerp(labels_BN.float(), graded_BN, self.graded)
        return torch.where(graded_BN.isnan(), labels_BN.float(), mixed_BN)

    @torch.no_grad()
    def states(self, rows_BNF: Tensor, feedback_BN: Tensor, items_BN: Tensor) -> Tensor:
        """Users' vectors ``(B, M, G)`` after 0 to N items, whose feedback lies between 0 and 1. Time and memory are
        linear in N."""
        precision_G = self.precision_F[1:].double()
        x_BNG, above_BN1 = rows_BNF[..., 1:].double(), (feedback_BN - rows_BNF[..., 0]).double().unsqueeze(-1)
        wanted_BMG = precision_G * self._usual(items_BN)
        evidence_BGG = x_BNG.new_zeros(len(x_BNG), len(precision_G), len(precision_G))
        weighed_B1G = x_BNG.new_zeros(len(x_BNG), 1, len(precision_G))
        states = []
        for first in range(0, x_BNG.shape[1] + 1, STRETCH):
            stretch = slice(first, first + STRETCH)
            x_BLG, above_BL1, wanted_BLG = x_BNG[:, stretch], above_BN1[:, stretch], wanted_BMG[:, stretch]
            spread_BGG = torch.linalg.inv_ex(torch.diag(precision_G) + evidence_BGG).inverse  # both are positive
            state_B1G = weighed_B1G @ spread_BGG
            known_BLG = x_BLG @ spread_BGG
            own_LL = torch.eye(x_BLG.shape[1], dtype=x_BLG.dtype, device=x_BLG.device)
            factor_BLL = torch.linalg.cholesky_ex(known_BLG @ x_BLG.transpose(1, 2) + own_LL).L  # definite: unchecked
            both = torch.cat([known_BLG, above_BL1 - x_BLG @ state_B1G.transpose(1, 2)], 2)
            both = torch.linalg.solve_triangular(factor_BLL, both, upper=False)
            gain_BLG, error_BL1 = both[..., :-1], both[..., -1:]
            learned_BMG = torch.cat([state_B1G, state_B1G + (gain_BLG * error_BL1).cumsum(1)], 1)
            before_BLL = (wanted_BLG @ gain_BLG.transpose(1, 2)).tril(-1)
            usual_BLG = wanted_BLG @ spread_BGG - before_BLL @ gain_BLG
            states.append(learned_BMG[:, : wanted_BLG.shape[1]] + usual_BLG)
            evidence_BGG = self.fade * (evidence_BGG + x_BLG.transpose(1, 2) @ x_BLG)
            weighed_B1G = self.fade * (weighed_B1G + (x_BLG * above_BL1).sum(1, keepdim=True))
        return torch.cat(states, 1).to(rows_BNF.dtype)

    def recent(self, rows_BNF: Tensor, feedback_BN: Tensor, states_BMG: Tensor) -> Tensor:
        """``(B, M, R)``: after 0 to N items, by how much the latest were received better than their state foretold."""
        with torch.autocast(rows_BNF.device.type, enabled=False):
            surprise_BN = feedback_BN - expected(rows_BNF, states_BMG[:, :-1])
            return torch.stack([fading_mean(surprise_BN, half_life) for half_life in RECENT], -1)

    def _usual(self, items_BN: Tensor) -> Tensor:
        """``(B, M, G)`` float64: the mean of the prior after 0 to N items."""
        met_BMZ = nn.functional.pad(self.met_IZ[places_among(self.hash_I, items_BN)].double().cumsum(1), (0, 0, 1, 0))
        number_M1 = torch.arange(met_BMZ.shape[1], dtype=torch.float64, device=items_BN.device)[:, None]
        return history_features(met_BMZ, number_M1) @ self.usual_HG.double()

    def read(self, rows_BNF: Tensor, count_BN: Tensor, known_BMX: Tensor, seen_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets of the logits ``(B, N)`` and inputs of the anchors ``(B, N, E)`` of items, each after so many of the
        remembered ones; ``known_BMX`` are :meth:`states` and :meth:`recent`, side by side."""
        known_BNX = known_BMX.gather(1, seen_BN[..., None].expand(-1, -1, known_BMX.shape[2]))
        state_BNG, recent_BNR = known_BNX.split([rows_BNF.shape[2] - 1, len(RECENT)], -1)
        above_BN1 = (expected(rows_BNF, state_BNG) - self.intercept_F[0]).unsqueeze(-1)
        parts = (
            FIRST_SLOPE * above_BN1,
            torch.log1p(torch.stack([count_BN, seen_BN], -1)) / LOG_COUNTS,
            (rows_BNF - self.intercept_F) / self.scale_F.clamp(min=1e-6),
            state_BNG * self.precision_F[1:].sqrt(),
            FIRST_SLOPE * recent_BNR,
        )
        return self.slope * above_BN1.squeeze(-1), self.project(torch.cat(parts, -1))


def fading_mean(x_BN: Tensor, half_life: float) -> Tensor:
    """``(B, M)``: means of the first 0 to N numbers, each counting ``2 ** (-1 / half_life)`` of the one after it, and
    of :data:`FEW_RECENT` zeros. Time and memory are linear in N."""
    fade, (windows, items) = 0.5 ** (1 / half_life), x_BN.shape
    place_L = torch.arange(STRETCH, dtype=x_BN.dtype, device=x_BN.device)
    weight_LL = (fade ** (place_L[:, None] - place_L).clamp(min=0)).tril()
    sums = [x_BN.new_zeros(windows, 1)]
    for first in range(0, items, STRETCH):
        x_BL = x_BN[:, first : first + STRETCH]
        here = slice(x_BL.shape[1])
        sums.append(x_BL @ weight_LL[here, here].T + sums[-1][:, -1:] * fade ** (place_L[here] + 1))
    number_M = torch.arange(items + 1, dtype=x_BN.dtype, device=x_BN.device)
    return torch.cat(sums, 1) / ((1 - fade**number_M) / (1 - fade) + FEW_RECENT)


def expected(rows_BNF: Tensor, state_BNG: Tensor) -> Tensor:
    """``(B, N)``, the feedback that rows and states expect."""
    return rows_BNF[..., 0] + (rows_BNF[..., 1:] * state_BNG).sum(-1)
