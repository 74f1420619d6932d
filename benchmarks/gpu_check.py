"""What a GPU does with the pipeline: the tests marked ``gpu``, then rates, each beside a bare loop over the same model.

``make gpu-check``. A bare loop has its inputs on the device and does nothing but call the model; the fraction of its
rate is what is left of it once inputs are made, moved and looked at. Nothing else should use the GPU meanwhile.

Letters: B windows, N items, T semantic tokens, D width of vectors.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table

from pipeline.config.encoders import TextEncoder
from pipeline.on_ray.encoders.load import load_encoder
from ranker.architectures import build
from ranker.config import RankerConfig
from ranker.hmat.model import HMAT
from ranker.training import Training, loss_sum
from ranker.windows import WindowBatch, collate, shuffled_batches
from schemas.semantic_id import Layout
from tokenizer.base.config import TokenizerConfig
from tokenizer.base.embeddings import Embeddings
from tokenizer.training.fitting import fit

LAYOUT = Layout(3, 2, 2, 256)
WORDS, BATCH = 64, 256
WIDTH = 384
WINDOWS, LONGEST = 4000, 300
CANDIDATES = 1000
SECONDS = 5.0

Rates = tuple[float, float]  # of the pipeline's way and of the bare loop, a second


def windows(count: int, longest: int) -> pa.Table:
    """Random rows of ``sequences``, as far as a ranker reads them."""
    rng = np.random.default_rng(0)
    length_B = rng.integers(longest // 10, longest + 1, count)
    offset_B, items = np.append(0, np.cumsum(length_B)), int(length_B.sum())

    def lists(values: np.ndarray, each: int, kind: pa.DataType) -> pa.ListArray:
        return pa.ListArray.from_arrays(pa.array(offset_B * each, pa.int32()), pa.array(values, kind))

    codes = rng.integers(0, LAYOUT.codebook_size, items * LAYOUT.slots)
    return pa.table(
        {
            "user_id": [f"u{user}" for user in range(count)],
            "tokens": lists(codes, LAYOUT.slots, pa.int16()),
            "item_hashes": lists(rng.integers(0, 2**62, items), 1, pa.int64()),
            "labels": lists(rng.integers(0, 2, items), 1, pa.int8()),
            "feedback": pa.nulls(count, pa.list_(pa.float32())),
            "times": lists(np.arange(items) * 1000, 1, pa.int64()),
            "loss_mask": lists(np.ones(items, bool), 1, pa.bool_()),
        }
    )


def rate(work: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Of what ``work`` says it did, a second; its first call, in which kernels are made, does not count."""
    work()
    _wait(device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += work()
    _wait(device)
    return done / (time.perf_counter() - began)


def encoding(device: torch.device, seconds: float, layers: int = 6) -> Rates:
    """Texts: the encoder that the pipeline loads, and its model alone on texts that are tokens already. The model is
    BERT as in MiniLM's size, of random weights."""
    import transformers

    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(1000)]
    texts = [" ".join(rng.choice(words, rng.integers(8, WORDS))) for _ in range(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        tokenizer = transformers.BertTokenizer(str(vocabulary), model_max_length=128)
        tokenizer.save_pretrained(folder)
        sizes = {
            "hidden_size": WIDTH,
            "num_hidden_layers": layers,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
        }
        transformers.BertModel(transformers.BertConfig(vocab_size=1005, **sizes)).save_pretrained(folder)
        encode = load_encoder("text", TextEncoder(model=folder), str(device))
        model = transformers.AutoModel.from_pretrained(folder).eval().to(device)
    tokens = tokenizer(texts, padding=True, return_tensors="pt").to(device)

    @torch.inference_mode()
    def bare() -> int:
        model(**tokens)
        return BATCH

    return rate(lambda: len(encode(texts)), device, seconds), rate(bare, device, seconds)


def tokenizing(device: torch.device, seconds: float, rows: int = 2048) -> Rates:
    """Items: vectors from the host to codes there, and the tokenizer alone."""
    there = torch.ones(rows, dtype=torch.bool)
    inputs = torch.randn(rows, WIDTH), torch.randn(rows, WIDTH), there, there
    brief = TokenizerConfig(epochs=1, min_steps=1, codebook_size=min(256, rows // 4))
    model = fit(Embeddings(*inputs), brief).to(device)
    on_device = [x.to(device) for x in inputs]

    def from_host() -> int:
        return len(model.encode(*(x.to(device) for x in inputs)).cpu())

    def bare() -> int:
        return len(model.encode(*on_device))

    return rate(from_host, device, seconds), rate(bare, device, seconds)


def training(device: torch.device, seconds: float, count: int = WINDOWS, longest: int = LONGEST) -> Rates:
    """Events: a pass of :class:`ranker.training.Training` over windows, and the same steps on batches that are on the
    device already."""
    config, table = RankerConfig(batch_items=16_000), windows(count, longest)

    def batches() -> Iterator[WindowBatch]:
        return shuffled_batches([table], LAYOUT, config.batch_items, np.random.default_rng(0))

    def fresh() -> Training:
        return Training(build(config, LAYOUT).to(device), config, LAYOUT, count, device)

    passes, steps = fresh(), fresh()
    there = [batch.to(device) for batch in batches()]

    def bare() -> int:
        steps.model.train()
        for batch in there:
            with steps._autocast():
                logits_BN = steps.model(*batch.inputs, batch.fold)
            steps.optimisers.zero_grad()
            (loss_sum(logits_BN, batch) / batch.impressions).backward()
            steps.optimisers.step(config.learning_rate)
        return sum(batch.impressions for batch in there)

    return rate(lambda: passes.run_epoch(batches()).impressions, device, seconds), rate(bare, device, seconds)


def scoring(device: torch.device, seconds: float, users: int = 64) -> Rates:
    """Candidates: histories from rows to probabilities on the host, and scoring against what is remembered alone."""
    table = windows(users, LONGEST)
    model = build(RankerConfig(), LAYOUT).to(device).eval()
    assert isinstance(model, HMAT)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, LAYOUT.codebook_size, (users, CANDIDATES, LAYOUT.slots), generator=generator)
    hashes = torch.randint(0, 2**62, (users, CANDIDATES), generator=generator)
    codes_there, hashes_there = codes.to(device), hashes.to(device)
    with torch.inference_mode():
        memory = model.remember(*collate(table, LAYOUT).to(device).inputs)

    @torch.inference_mode()
    def whole() -> int:
        remembered = model.remember(*collate(table, LAYOUT).to(device).inputs)
        return model.score(remembered, codes.to(device), hashes.to(device)).sigmoid().cpu().numel()

    @torch.inference_mode()
    def bare() -> int:
        return model.score(memory, codes_there, hashes_there).numel()

    return rate(whole, device, seconds), rate(bare, device, seconds)


RATES: dict[str, Callable[[torch.device, float], Rates]] = {
    "encode, texts": encoding,
    "tokenize, items": tokenizing,
    "train, events": training,
    "score, candidates": scoring,
}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Run the tests, then print the rates."""
    if not torch.cuda.is_available():
        sys.exit(f"gpu-check needs a GPU, and torch {torch.__version__} finds none that it can use on this machine")
    tests = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu"], check=False)
    if tests.returncode:
        sys.exit(tests.returncode)
    table = Table("", "a second", "bare loop", "fraction", title=torch.cuda.get_device_name())
    for name, measure in RATES.items():
        ours, bare = measure(torch.device("cuda"), SECONDS)
        table.add_row(name, f"{ours:,.0f}", f"{bare:,.0f}", f"{ours / bare:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
