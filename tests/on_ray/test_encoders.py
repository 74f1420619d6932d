"""Vision and joint models with random weights, saved as the hub would have them; and what names an encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from test_text_models import gtr
from tiny_models import SIZES, TEXTS, WORDS, pictures, save, save_tokenizer

from pipeline.config.encoders import Encoder, Encoders, TextEncoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.encoders.load import load_encoder

PICTURE = {"image_size": 32, "patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}


def joint(folder: Path, family: str) -> Path:
    """CLIP or SigLIP of 24 numbers a vector."""
    torch.manual_seed(0)
    text = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3}
    sizes = {"projection_dim": 24} if family == "CLIP" else {}
    text |= {} if family == "CLIP" else {"projection_size": 24}
    vision = SIZES | PICTURE | ({"num_patches": 16} if family == "Siglip2" else {})
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision, **sizes)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    save_tokenizer(folder)
    how = SQUARE if family == "Siglip" else {"max_num_patches": 16, "patch_size": 8}
    if family == "CLIP":
        how = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    getattr(transformers, f"{family}ImageProcessorPil")(**how).save_pretrained(folder)
    return folder


def vision(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**PICTURE, **SIZES)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(**SQUARE).save_pretrained(folder)
    return folder


def convolutional(folder: Path, family: str) -> Path:
    """States are maps of channels."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 12], "depths": [1, 1]}
    more = {"ConvNext": {"num_stages": 2}, "ResNet": {"embedding_size": 8}}
    more["PoolFormer"] = {"num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]}
    config = getattr(transformers, f"{family}Config")(**sizes, **more[family])
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(**SQUARE).save_pretrained(folder)
    return folder


def vectors(folder: Path, pooling: str = "auto") -> NDArray[np.float32]:
    return load_encoder("image", Encoder(model=str(folder), pooling=pooling), "cpu")(pictures())


@torch.inference_mode()
@pytest.mark.parametrize("family", ["CLIP", "Siglip", "Siglip2"])
def test_projections_of_a_joint_model(family: str, tmp_path: Path) -> None:
    folder = joint(tmp_path, family)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "longest" if family == "CLIP" else "max_length"
    tokens = tokenizer(TEXTS, padding=padding, max_length=16, truncation=True, return_tensors="pt")
    texts = load_encoder("text", TextEncoder(model=str(folder)), "cpu")(TEXTS)
    expected = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=1)
    np.testing.assert_allclose(texts, expected.numpy(), atol=1e-5)
    prompted = load_encoder("text", TextEncoder(model=str(folder), prompt="a red "), "cpu")
    np.testing.assert_allclose(prompted(["lamp"]), texts[:1], atol=1e-5)

    processor = getattr(transformers, f"{family}ImageProcessorPil").from_pretrained(folder)
    for picture, found in zip(pictures(), vectors(folder), strict=True):
        features = model.get_image_features(**processor(images=picture, return_tensors="pt")).pooler_output
        np.testing.assert_allclose(found, torch.nn.functional.normalize(features, dim=1)[0].numpy(), atol=1e-5)


def test_what_a_joint_model_has_not_is_refused(tmp_path: Path) -> None:
    folder = joint(tmp_path, "CLIP")
    for more in ({"truncate_dim": 8}, {"pooling": "cls"}):
        with pytest.raises(ConfigError, match="a joint model of texts and pictures has neither pooling nor"):
            load_encoder("text", TextEncoder.model_validate({"model": str(folder)} | more), "cpu")


@torch.inference_mode()
@pytest.mark.parametrize("family", ["ViT", "Dinov2"])
def test_a_plain_vision_model_in_each_pooling(family: str, tmp_path: Path) -> None:
    folder = vision(tmp_path, family)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    output = model(**transformers.ViTImageProcessorPil.from_pretrained(folder)(images=pictures(), return_tensors="pt"))
    states = output.last_hidden_state
    for pooling, expected in {"auto": output.pooler_output, "mean": states.mean(1), "cls": states[:, 0]}.items():
        expected_ND = torch.nn.functional.normalize(expected, dim=1).numpy()
        np.testing.assert_allclose(vectors(folder, pooling), expected_ND, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["ConvNext", "ResNet", "PoolFormer"])
def test_the_state_of_a_convolutional_model_is_the_mean_of_its_map(family: str, tmp_path: Path) -> None:
    folder = convolutional(tmp_path, family)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    output = model(**transformers.ViTImageProcessorPil.from_pretrained(folder)(images=pictures(), return_tensors="pt"))
    mean_NC = output.last_hidden_state.mean(dim=(2, 3))
    pooled_NC = mean_NC if family == "PoolFormer" else output.pooler_output.flatten(1)
    for pooling, expected in {"auto": pooled_NC, "mean": mean_NC}.items():
        expected_ND = torch.nn.functional.normalize(expected, dim=1).numpy()
        np.testing.assert_allclose(vectors(folder, pooling), expected_ND, atol=1e-5)
    with pytest.raises(ConfigError, match=r"^encoders.image.pooling: \w+Model has no first state, .* auto or mean$"):
        load_encoder("image", Encoder(model=str(folder), pooling="cls"), "cpu")


def test_weights_that_are_not_there_are_not_invented(tmp_path: Path) -> None:
    """A classifier's weights have no pooler: its first state is taken. Without a layer it is no model."""
    weights = vision(tmp_path, "ViT") / "model.safetensors"
    first = vectors(tmp_path, "cls")
    kept = {name: value for name, value in load_file(weights).items() if not name.startswith("pooler.")}
    save_file(kept, weights, {"format": "pt"})
    np.testing.assert_array_equal(vectors(tmp_path), first)
    kept.pop(next(name for name in kept if "attention" in name))
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(
        ConfigError, match=rf"^encoders.image.model: {tmp_path} does not load .*the weights lack .*atten"
    ):
        vectors(tmp_path)


def test_a_model_of_the_other_modality_is_told(tmp_path: Path) -> None:
    folder = vision(tmp_path, "ViT")
    with pytest.raises(ConfigError, match=rf"^encoders.text.model: {tmp_path}: there is no tokenizer.json"):
        load_encoder("text", TextEncoder(model=str(folder)), "cpu")


def of(text: TextEncoder, **more: int) -> str:
    return encoder_fingerprints(Encoders(text=text, **more))["text"]


def test_the_fingerprint_follows_the_settings_that_decide_a_vector(tmp_path: Path) -> None:
    text = TextEncoder(model=str(save(tmp_path, "Bert")))
    assert of(text) == of(text.model_copy(update={"batch_size": 3, "revision": "main"}), commit_rows=500)
    changes = (
        *({"pooling": "cls"}, {"max_length": 9}, {"dtype": "bfloat16"}, {"model": "builtin"}, {"prompt": "passage: "}),
        *({"prompt": ""}, {"truncate_dim": 8}, {"trust_remote_code": True}),
    )
    assert len({of(text)} | {of(text.model_copy(update=change)) for change in changes}) == 1 + len(changes)


def test_the_fingerprint_follows_every_file_that_decides_a_vector(tmp_path: Path) -> None:
    text = TextEncoder(model=str(gtr(tmp_path)))
    (tmp_path / "own.py").write_text("x = 1")
    files = {str(file.relative_to(tmp_path)): file for file in tmp_path.rglob("*") if file.is_file()}
    assert {"model.safetensors", "2_Dense/model.safetensors", "1_Pooling/config.json", "tokenizer.json"} < set(files)
    for name, file in files.items():
        before, content = of(text), file.read_bytes()
        file.write_bytes(content + b" ")
        assert (of(text) != before) == (name != "own.py"), name
        file.write_bytes(content)
    trusted = text.model_copy(update={"trust_remote_code": True})
    before = of(trusted)
    (tmp_path / "own.py").write_text("x = 2")
    assert of(trusted) != before
    before = of(text)
    (tmp_path / "README.md").write_text("A model.")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "config.json").write_text("{}")
    assert of(text) == before


def test_each_modality_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    model = str(joint(tmp_path, "CLIP"))
    found = encoder_fingerprints(Encoders(text=TextEncoder(model=model), image=Encoder(model=model)))
    assert found["text"] != found["image"]
    assert encoder_fingerprints(Encoders(text=TextEncoder(model=model)))["text"] == found["text"]


def test_a_model_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ConfigError, match=r"encoders.text.model: no/such is no local folder .*no network"):
        encoder_fingerprints(Encoders(text=TextEncoder(model="no/such")))
