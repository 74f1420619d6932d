"""Two data-parallel workers with uneven data take the same steps as one process with all of it."""

from itertools import zip_longest
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from test_ranker_data import LAYOUT, taste_windows
from torch.nn.parallel import DistributedDataParallel

from ranker.architectures import build
from ranker.config import ItemIdConfig, RankerConfig
from ranker.training import EpochFigures, Training
from ranker.vocabulary import item_counts, vocabulary
from ranker.windows import collate

CONFIG = RankerConfig(dim=8, layers=2, heads=1, dropout=0, warmup_steps=0, item_id=ItemIdConfig(min_events=2))
SHARES = ([(0, 5), (5, 9), (9, 10)], [(10, 13)])  # rows of each worker's batches: the second runs out first


def fresh() -> torch.nn.Module:
    assert CONFIG.item_id is not None
    return build(CONFIG, LAYOUT, hash_I=vocabulary([item_counts(taste_windows(13, seed=5))], CONFIG.item_id))


def run_epoch(model: torch.nn.Module, rows: list[list[int]]) -> EpochFigures:
    windows = taste_windows(13, seed=5)
    batches = (collate(windows.take(batch), LAYOUT) for batch in rows)
    return Training(model, CONFIG, LAYOUT, 13).run_epoch(batches)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = fresh()
    figures = run_epoch(DistributedDataParallel(model), [list(range(*span)) for span in SHARES[rank]])
    save_file(model.state_dict() | {"loss": torch.tensor(figures.loss)}, f"{folder}/{rank}.safetensors")
    dist.barrier()  # whoever leaves first would cut the other one off
    dist.destroy_process_group()


def test_uneven_workers_equal_one_process(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    alone = fresh()
    steps = zip_longest(*SHARES, fillvalue=(0, 0))
    figures = run_epoch(alone, [[row for span in spans for row in range(*span)] for spans in steps])
    expected = alone.state_dict() | {"loss": torch.tensor(figures.loss)}
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, atol=1e-4, rtol=1e-3)
