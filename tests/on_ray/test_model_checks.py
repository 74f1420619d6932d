"""Models that cannot or must not be used are refused in one sentence, before torch is loaded."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.encoders import Encoder, TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.model_checks import usable_folder
from pipeline.on_ray.encoders.model_files import modules

POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
DENSE = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Files that look like a model of texts and pictures; they are never loaded."""
    write(tmp_path, "modules.json", [{"type": "sentence_transformers.models.Transformer", "path": ""}, POOLING, DENSE])
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]})
    write(tmp_path, "2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        write(tmp_path, name, {})
    for name in ("model.safetensors", "2_Dense/model.safetensors"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def add_module(folder: Path, kind: str, path: str = "3_Other") -> None:
    write(folder, "modules.json", [*modules(folder), {"type": kind, "path": path}])


def rename(folder: Path, name: str, other: str) -> None:
    (folder / name).rename((folder / name).with_name(other))


TEXT: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled weights": (
        lambda folder: rename(folder, "model.safetensors", "pytorch_model.bin"),
        r"pickled ones \(pytorch_model.bin\) are never loaded: convert them",
    ),
    "pickled layer": (
        lambda folder: rename(folder, "2_Dense/model.safetensors", "pytorch_model.bin"),
        r"there is no 2_Dense/model.safetensors, and pickled weights are never loaded: convert them",
    ),
    "unknown module": (
        lambda folder: add_module(folder, "sentence_transformers.models.WordWeights"),
        "modules.json has a module WordWeights; known are Transformer, Dense",
    ),
    "own module": (
        lambda folder: add_module(folder, "custom_st.Projection"),
        r"code of its own \(custom_st.Projection in modules.json\), .* only with encoders.text.trust_remote_code: true",
    ),
    "own architecture": (
        lambda folder: write(folder, "config.json", {"auto_map": {"AutoModel": "modeling.Model"}}),
        r"code of its own \(auto_map in config.json\), .* only with encoders.text.trust_remote_code: true",
    ),
    "own tokenizer": (
        lambda folder: write(folder, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Slow", None]}}),
        r"code of its own \(auto_map in tokenizer_config.json\)",
    ),
    "own activation": (
        lambda folder: write(folder, "2_Dense/config.json", {"activation_function": "mine.Swish"}),
        r"code of its own \(activation_function mine.Swish in 2_Dense/config.json\)",
    ),
    "unknown pooling": (
        lambda folder: write(folder, "1_Pooling/config.json", {"pooling_mode": "attention"}),
        "1_Pooling/config.json: pooling_mode attention is unknown; known are cls, max, mean",
    ),
    "unknown flag": (
        lambda folder: write(folder, "1_Pooling/config.json", {"pooling_mode_attention": True}),
        "1_Pooling/config.json: pooling_mode_attention is unknown",
    ),
    "outside": (lambda folder: add_module(folder, "sentence_transformers.models.Dense", "../x"), "leads out of the"),
    "sparse": (
        lambda folder: write(folder, "config_sentence_transformers.json", {"model_type": "SparseEncoder"}),
        "it is a SparseEncoder, which gives a text no vector of its own",
    ),
    "adapter": (lambda folder: write(folder, "adapter_config.json", {}), "an adapter needs another model's weights"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
    "no vocabulary": (lambda folder: (folder / "tokenizer.json").unlink(), "there is no tokenizer.json or other voc"),
    "broken": (lambda folder: (folder / "modules.json").write_text("[{"), "modules.json is no JSON"),
    "odd": (lambda folder: write(folder, "modules.json", {"a": 1}), "its JSON files are not those of a model"),
}


@pytest.mark.parametrize("fault", TEXT)
def test_a_text_model_that_cannot_be_used_is_refused(model: Path, fault: str) -> None:
    settings = TextEncoder(model=str(model))
    assert usable_folder("text", settings) == model
    damage, said = TEXT[fault]
    damage(model)
    with pytest.raises(ConfigError, match=said) as refusal:
        usable_folder("text", settings)
    assert "\n" not in str(refusal.value)
    assert str(model) in str(refusal.value)


IMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no processor": (
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        "there is no preprocessor_config.json, which says how pictures are prepared",
    ),
    "own processor": (
        lambda folder: write(folder, "preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "own.Processor"}}),
        r"auto_map in preprocessor_config.json\), .* only with encoders.image.trust_remote_code",
    ),
    "pickled weights": TEXT["pickled weights"],
}


@pytest.mark.parametrize("fault", IMAGE)
def test_a_vision_model_that_cannot_be_used_is_refused(model: Path, fault: str) -> None:
    settings = Encoder(model=str(model))
    assert usable_folder("image", settings) == model
    damage, said = IMAGE[fault]
    damage(model)
    with pytest.raises(ConfigError, match=rf"^encoders.image.model: {model}: .*{said}"):
        usable_folder("image", settings)


def test_own_code_that_is_trusted_lies_in_the_folder_whose_content_is_known(model: Path) -> None:
    settings = TextEncoder(model=str(model), trust_remote_code=True)
    for fault in ("own architecture", "own tokenizer", "own activation", "own module"):
        TEXT[fault][0](model)
        assert usable_folder("text", settings) == model
    write(model, "config.json", {"auto_map": {"AutoModel": "some/where--modeling.Model"}})
    with pytest.raises(ConfigError, match=r"its code lies in another repository \(some/where\), which may change"):
        usable_folder("text", settings)


def test_a_tokenizer_of_bytes_needs_no_vocabulary(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    write(model, "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"})
    assert usable_folder("text", TextEncoder(model=str(model))) == model


@pytest.mark.parametrize("revision", [None, "main", "abc123"])
def test_own_code_from_the_hub_is_of_one_commit(revision: str | None) -> None:
    settings = TextEncoder(model="some/model", revision=revision, trust_remote_code=True)
    with pytest.raises(
        ConfigError, match=r"encoders.text.revision: with trust_remote_code it must be a commit of some"
    ):
        usable_folder("text", settings)


def test_a_model_is_checked_and_named_and_the_builtin_one_loaded_without_torch(model: Path) -> None:
    program = (
        "import sys; from pipeline.config.encoders import Encoders, TextEncoder; "
        "from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints; "
        "from pipeline.on_ray.encoders.load import load_encoder; "
        "load_encoder('text', TextEncoder(), 'cpu')(['a lamp']); "
        f"both = {{'model': {str(model)!r}}}; print(encoder_fingerprints(Encoders(text=both, image=both))); "
        "assert not {'torch', 'transformers', 'sentence_transformers', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
