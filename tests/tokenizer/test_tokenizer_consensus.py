"""Bits that both modalities know: against plain loops, and at their known ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.base.config import TokenizerConfig
from tokenizer.quality.consensus import Pairs, consensus, known_bits


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 25), codes=st.integers(2, 6), levels=st.integers(0, 2))
def test_known_bits_match_a_plain_loop(seed: int, count: int, codes: int, levels: int):
    rng = np.random.default_rng(seed)
    cue, code = rng.integers(codes, size=(2, count))
    context, scored = rng.integers(2, size=(count, levels)), rng.random(count) < 0.7
    scored[0] = True
    weights = [4.0**n for n in range(-3, 11)]
    chosen = [i for i in range(count) if scored[i]]

    def best(given: list[tuple[int, ...]], prior: list[float]) -> list[float]:
        options = []
        for weight in weights:
            expected = []
            for i in range(count):
                others = [j for j in range(count) if j != i and given[j] == given[i]]
                hits = sum(code[j] == code[i] for j in others)
                expected.append((hits + weight * prior[i]) / (len(others) + weight))
            options.append(expected)
        return max(options, key=lambda p: np.mean([np.log2(p[i]) for i in chosen]))

    prefixes = [tuple(row) for row in context.tolist()]
    without = best(prefixes, best([()] * count, [1 / codes] * count))
    share = np.mean([cue[i] == code[i] for i in chosen])
    told = []
    for trust in (0, share / 2, share):
        prior = [(1 - trust) * without[i] + trust * (cue[i] == code[i]) for i in range(count)]
        p = best([(*prefixes[i], cue[i]) for i in range(count)], prior)
        told.append(np.mean([np.log2(p[i] / without[i]) for i in chosen]))
    assert known_bits(cue, code, context, scored, codes) == pytest.approx(max(0, *told), abs=1e-9)


def bits(cue: np.ndarray, code: np.ndarray, codes: int) -> float:
    return known_bits(cue, code, np.zeros((len(cue), 0), dtype=np.int64), np.ones(len(cue), dtype=bool), codes)


def test_known_bits_know_their_ends_and_the_middle():
    rng = np.random.default_rng(0)
    a, b = rng.integers(256, size=(2, 3000))
    assert bits(a, a, 256) == pytest.approx(8, abs=0.05)
    assert bits(a, b, 256) == pytest.approx(0, abs=0.02)
    half = np.where(rng.random(3000) < 0.5, a, b)
    joint = 0.5 / 256 + 0.5 / 256**2  # on the diagonal
    assert bits(a, half, 256) == pytest.approx(
        256 * joint * np.log2(joint * 256**2) + (1 - 256 * joint) * np.log2(0.5), abs=0.15
    )
    group = rng.integers(16, size=3000)  # which both know, while which of its 4 codes is a matter of chance
    a, b = (4 * group + rng.integers(4, size=3000) for _ in range(2))
    assert bits(a, b, 64) == pytest.approx(4, abs=0.15)
    few = [bits(*rng.integers(8, size=(2, 30)), 8) for _ in range(50)]
    assert np.mean(few) < 0.1


def test_other_pairs_sharpen_but_do_not_stand_in_for_the_measured_ones():
    rng, layout = np.random.default_rng(0), TokenizerConfig(shared_levels=1, codebook_size=64).layout()

    def drawn(count: int, agreeing: bool) -> Pairs:
        group = rng.integers(16, size=(2, count, 1))
        text, image = (4 * group[i] + rng.integers(4, size=(count, 1)) for i in (0, 0 if agreeing else 1))
        return Pairs(text, {"text": text, "image": image}, {})

    few, many = drawn(200, agreeing=True), drawn(5000, agreeing=True)
    assert 1 < consensus(few, layout)["bits"] < 3.5 < consensus(few, layout, many)["bits"] < 4.3
    assert consensus(drawn(200, agreeing=False), layout, many)["bits"] < 0.1


def test_consensus_counts_bits_once_and_only_while_both_agree():
    rng, layout = np.random.default_rng(0), TokenizerConfig(shared_levels=3, codebook_size=8).layout()
    first, second = rng.integers(8, size=(2, 4000))
    text = np.stack([first, second, first], axis=1)  # the third level tells nothing new
    image = text.copy()
    lost = rng.random(4000) < 0.5
    image[lost, 1] = rng.integers(8, size=lost.sum())
    found = consensus(Pairs(text, {"text": text, "image": image}, {}), layout)
    assert [level["slot"] for level in found["levels"]] == ["shared_0", "shared_1", "shared_2"]
    assert [level["agreement"] for level in found["levels"]] == pytest.approx([1, 9 / 16, 9 / 16], abs=0.03)
    assert [level["chance"] for level in found["levels"]] == pytest.approx([1 / 8, 1 / 64, 1 / 64], abs=0.005)
    told = [level["bits"] for level in found["levels"]]
    assert told[0] == pytest.approx(3, abs=0.05)
    assert told[1] == pytest.approx(9 / 16 * np.log2(9 / 2) - 7 / 16, abs=0.08)
    assert told[2] == pytest.approx(0, abs=0.05)
    assert found["bits"] == sum(told)
    assert found["levels_worth_sharing"] == 2
