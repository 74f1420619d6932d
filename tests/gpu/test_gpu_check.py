"""``make gpu-check``: what it measures runs on any device; without a GPU it says so and fails."""

import pytest
import torch

from benchmarks import gpu_check


def test_every_rate_is_measured(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH": 8, "CANDIDATES": 20, "LONGEST": 30, "WINDOWS": 40}.items():
        monkeypatch.setattr(gpu_check, name, value)
    rates = [
        gpu_check.encoding(device, 0.01, layers=1),
        gpu_check.tokenizing(device, 0.01, rows=80),
        gpu_check.training(device, 0.01, count=20, longest=20),
        gpu_check.scoring(device, 0.01, users=3),
    ]
    assert all(ours > 0 and bare > 0 for ours, bare in rates)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match=r"^gpu-check needs a GPU, and torch \S+ finds none that it can use on this"):
        gpu_check.main()
