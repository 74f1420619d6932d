"""Text models of sentence-transformers and transformers: a vector is the one that the library itself gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import TEXTS, compose, pooling, save

from pipeline.config.encoders import TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.load import load_encoder
from pipeline.on_ray.encoders.model_files import longest_text, said_of_length

NORMALIZE = ("sentence_transformers.models.Normalize", "9_Normalize", None)
LAST = {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
NEW = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"


def vectors(folder: Path, texts: list[str] = TEXTS, **settings: Any) -> NDArray[np.float32]:
    return load_encoder("text", TextEncoder(model=str(folder), **settings), "cpu")(texts)


def reference(folder: Path, texts: list[str] = TEXTS, **settings: Any) -> NDArray[np.float32]:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(texts, normalize_embeddings=True, **settings)


def dense(folder: Path, path: str, sizes: tuple[int, int]) -> tuple[str, str, dict[str, Any]]:
    """A layer such as LaBSE and EmbeddingGemma end with."""
    torch.manual_seed(len(path))
    (folder / path).mkdir()
    save_file({"linear.weight": torch.randn(sizes[1], sizes[0]) / sizes[0] ** 0.5}, folder / path / "model.safetensors")
    config = {"in_features": sizes[0], "out_features": sizes[1], "bias": False}
    config["activation_function"] = "torch.nn.modules.activation.Tanh"
    return ("sentence_transformers.models.Dense", path, config)


def qwen3(folder: Path) -> Path:
    return compose(save(folder, "Qwen3"), pooling(**LAST), NORMALIZE)


def qwen3_saved_anew(folder: Path) -> Path:
    said = {"embedding_dimension": 32, "pooling_mode": "lasttoken", "include_prompt": True}
    return compose(save(folder, "Qwen3"), (NEW, "1_Pooling", said))


def bge(folder: Path) -> Path:
    return compose(save(folder, "Bert"), (NEW, "1_Pooling", {"embedding_dimension": 32, "pooling_mode": "cls"}))


def labse(folder: Path) -> Path:
    save(folder, "Bert")
    return compose(folder, pooling(**CLS), dense(folder, "2_Dense", (32, 32)), NORMALIZE)


def embedding_gemma(folder: Path) -> Path:
    save(folder, "Gemma3Text", use_bidirectional_attention=True)
    return compose(folder, pooling(), dense(folder, "2_Dense", (32, 48)), dense(folder, "3_Dense", (48, 16)), NORMALIZE)


def e5(folder: Path) -> Path:
    prompts = {"query": "query: ", "passage": "passage: "}
    return compose(save(folder, "XLMRoberta"), pooling(), NORMALIZE, prompts=prompts, default_prompt_name="passage")


def gtr(folder: Path) -> Path:
    save(folder, "T5Encoder")
    return compose(folder, pooling(), dense(folder, "2_Dense", (32, 24)), NORMALIZE)


def several(folder: Path) -> Path:
    return compose(save(folder, "Bert"), pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=True))


def weighted(folder: Path) -> Path:
    return compose(save(folder, "Bert"), pooling(pooling_mode_weightedmean_tokens=True, pooling_mode_mean_tokens=False))


def maximum(folder: Path) -> Path:
    return compose(save(folder, "Roberta"), pooling(pooling_mode_max_tokens=True, pooling_mode_mean_tokens=False))


FAMILIES: dict[Callable[[Path], Path], int] = {
    **{qwen3: 32, qwen3_saved_anew: 32, bge: 32, labse: 32, embedding_gemma: 16, e5: 32, gtr: 24},
    **{several: 64, weighted: 32, maximum: 32},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_the_library(family: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = family(tmp_path)
    found = vectors(folder)
    assert found.shape == (len(TEXTS), FAMILIES[family])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(folder), rtol=0, atol=2e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_without_weights_texts_are_prepared_alike(family: Callable[[Path], Path], tmp_path: Path) -> None:
    settings = TextEncoder(model=str(family(tmp_path)), batch_size=2)
    texts = [*TEXTS, "a lamp with wood " * 5]
    whole, half = (list(load_encoder("text", settings, device).prepare(texts)) for device in ("cpu", None))
    for (places, batch), (expected_places, expected) in zip(half, whole, strict=True):
        assert places.tolist() == expected_places.tolist()
        assert {name: x.tolist() for name, x in batch.items()} == {name: x.tolist() for name, x in expected.items()}


@torch.inference_mode()
def test_the_last_token_is_that_of_the_text_and_not_of_the_padding(tmp_path: Path) -> None:
    folder = qwen3(tmp_path)
    model, tokenizer = (kind.from_pretrained(folder) for kind in (transformers.AutoModel, transformers.AutoTokenizer))
    states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1] for text in TEXTS]
    np.testing.assert_allclose(vectors(folder), torch.nn.functional.normalize(torch.stack(states)), atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "pools"), [("Bert", True), ("MPNet", True), ("T5", False), ("T5Encoder", False)]
)
def test_a_plain_folder_is_pooled_by_the_mean_or_as_asked(architecture: str, pools: bool, tmp_path: Path) -> None:
    folder = save(tmp_path, architecture)
    np.testing.assert_allclose(vectors(folder), reference(folder), atol=1e-6)
    np.testing.assert_allclose(vectors(folder, pooling="mean"), vectors(folder), atol=1e-6)
    assert not np.allclose(vectors(folder, pooling="cls"), vectors(folder), atol=1e-2)
    assert np.array_equal(vectors(folder), vectors(folder))  # nothing is drawn at random


@pytest.mark.parametrize("family", [qwen3, bge, gtr, e5])
def test_neighbours_do_not_change_a_vector(family: Callable[[Path], Path], tmp_path: Path) -> None:
    encode = load_encoder("text", TextEncoder(model=str(family(tmp_path))), "cpu")
    texts = [" ".join(TEXTS * (n % 4 + 1))[: 5 + 7 * n] for n in range(24)]
    together = encode(texts)
    np.testing.assert_allclose(encode(texts[::-1])[::-1], together, rtol=0, atol=2e-7)
    np.testing.assert_allclose(np.concatenate([encode([text]) for text in texts]), together, rtol=0, atol=2e-7)


def test_a_pooling_that_is_configured_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    mean = vectors(save(tmp_path / "plain", "Bert"))
    np.testing.assert_allclose(vectors(bge(tmp_path / "bge"), pooling="mean"), mean, atol=1e-6)


def test_prompts(tmp_path: Path) -> None:
    folder = e5(tmp_path)
    own, none, other = vectors(folder), vectors(folder, prompt=""), vectors(folder, prompt="a red ")
    np.testing.assert_allclose(own, reference(folder, prompt_name="passage"), atol=1e-6)
    np.testing.assert_allclose(none, reference(folder, prompt=""), atol=1e-6)
    np.testing.assert_allclose(other, reference(folder, prompt="a red "), atol=1e-6)
    np.testing.assert_allclose(own, vectors(folder, [f"passage: {text}" for text in TEXTS], prompt=""), atol=1e-6)
    assert not np.allclose(own, none, atol=1e-2)


def test_a_shorter_vector_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    folder = bge(tmp_path)
    whole, short = vectors(folder), vectors(folder, truncate_dim=8)
    np.testing.assert_allclose(short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(short, reference(folder, truncate_dim=8), atol=1e-6)
    with pytest.raises(ConfigError, match="truncate_dim is 64, the model's vectors have 32 numbers"):
        vectors(folder, truncate_dim=64)


@pytest.mark.parametrize("architecture", ["Roberta", "XLMRoberta", "MPNet", "Camembert", "Data2VecText", "Bert"])
def test_a_text_is_cut_where_the_models_positions_end(architecture: str, tmp_path: Path) -> None:
    """Those of RoBERTa's kin begin after the padding token's: of 34 positions 32 are for tokens."""
    folder = save(tmp_path, architecture, max_position_embeddings=32 if architecture == "Bert" else 34)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"model_max_length": 10**30})
    )
    assert longest_text(folder) == 32
    text, longer = "lamp " * 30, "lamp " * 29 + "chair " * 600
    cut = vectors(folder, [text.strip()], max_length=32)
    for length in (32, 33, 34, 1024):
        np.testing.assert_array_equal(vectors(folder, [text + "chair " * 600], max_length=length), cut)
    assert not np.allclose(vectors(folder, [longer], max_length=1024), cut, atol=1e-4)


def test_a_length_that_the_model_cannot_keep_is_told_if_somebody_chose_it(tmp_path: Path) -> None:
    roberta = str(save(tmp_path, "Roberta", max_position_embeddings=34))
    assert said_of_length(TextEncoder(model=roberta, max_length=32)) is None
    assert said_of_length(TextEncoder(model=roberta)) is None
    assert said_of_length(TextEncoder(max_length=1024)) is None
    said = said_of_length(TextEncoder(model=roberta, max_length=33))
    assert said == "encoders.text.max_length is 33: the model reads 32 tokens, longer texts are cut there"
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    compose(tmp_path, pooling())
    assert longest_text(tmp_path) == 12


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_float32_vectors_of_length_one(dtype: str, tmp_path: Path) -> None:
    folder = labse(tmp_path)
    half = vectors(folder, dtype=dtype)
    assert half.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, rtol=1e-5)
    assert (half * vectors(folder)).sum(1).min() > 0.99


@pytest.mark.parametrize("architecture", ["Bert", "T5", "Qwen3"])
def test_weights_that_are_not_there_are_not_invented(architecture: str, tmp_path: Path) -> None:
    """A pooler is not asked, and may be absent."""
    folder = save(tmp_path, architecture)
    whole, weights = vectors(folder), load_file(folder / "model.safetensors")
    weights = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(vectors(folder), whole)
    lost = [name for name in weights if not name.startswith("decoder.") and ".1." in name]
    for name in lost[:2]:
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    said = rf"does not load .*the weights lack {lost[0]} and 1 more that {architecture}\w*Model has: fetch it again"
    with pytest.raises(ConfigError, match=said):
        vectors(folder)


OWN = """
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
import torch

class OwnConfig(PreTrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(32, config.hidden_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **more):
        return BaseModelOutput(last_hidden_state=self.words(input_ids))
"""


def test_code_of_a_local_folder_is_run_if_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "own"
    save(folder, "Roberta")
    (folder / "own.py").write_text(OWN)
    classes = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    described = {"model_type": "own", "hidden_size": 8, "auto_map": classes, "architectures": ["OwnModel"]}
    (folder / "config.json").write_text(json.dumps(described))
    table = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    save_file({"words.weight": table}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="brings code of its own"):
        vectors(folder)
    assert not (tmp_path / "cache").exists()
    tokens = transformers.PreTrainedTokenizerFast.from_pretrained(folder)(TEXTS[0])["input_ids"]
    expected = torch.nn.functional.normalize(table[tokens].mean(0), dim=0)
    np.testing.assert_allclose(vectors(folder, trust_remote_code=True)[0], expected, atol=1e-6)
