"""Encoders: models of real architectures with random weights, saved as the hub would have them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pipeline.config.models import Encoder, Encoders
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.fingerprint import encoder_fingerprints
from pipeline.on_ray.encoders.load import load_encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "lamp", "chair", "with", "wood"]
TEXTS = ["a red lamp", "a blue chair with wood", "lamp", "unknown words only"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for h, w in ((40, 60), (32, 32), (90, 20))]


def save_tokenizer(folder: Path, length: int = 16) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=length)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **SIZES)
    folder = tmp_path / "bert"
    transformers.BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "clip"
    config = transformers.CLIPConfig(
        text_config=SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3},
        vision_config=SIZES | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    crop = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessorPil(**crop).save_pretrained(folder)
    return folder


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "vit"
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@torch.inference_mode()
def test_text_pooling_is_that_of_the_model_run_text_by_text(bert: Path) -> None:
    model, tokenizer = transformers.AutoModel.from_pretrained(bert), transformers.AutoTokenizer.from_pretrained(bert)
    for pooling in ("mean", "cls"):
        vectors = load_encoder("text", Encoder(model=str(bert), pooling=pooling), "cpu")(TEXTS)
        assert vectors.shape == (4, 32)
        assert vectors.dtype == np.float32
        for text, vector in zip(TEXTS, vectors, strict=True):
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            expected = torch.nn.functional.normalize(states[0] if pooling == "cls" else states.mean(0), dim=0)
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_texts_longer_than_the_model_are_cut(bert: Path) -> None:
    encode = load_encoder("text", Encoder(model=str(bert)), "cpu")
    np.testing.assert_allclose(encode(["lamp " * 14]), encode(["lamp " * 500]), atol=1e-6)


@torch.inference_mode()
def test_projections_of_a_joint_model(clip: Path) -> None:
    settings = Encoder(model=str(clip))
    text, image = load_encoder("text", settings, "cpu"), load_encoder("image", settings, "cpu")
    for vectors in (text(TEXTS), image(pictures())):
        assert vectors.shape[1] == 24
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    model = transformers.AutoModel.from_pretrained(clip)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(clip)
    pixels = processor(images=pictures()[0], return_tensors="pt")["pixel_values"]
    expected = model.get_image_features(pixel_values=pixels).pooler_output
    np.testing.assert_allclose(
        image(pictures())[0], torch.nn.functional.normalize(expected, dim=1)[0].numpy(), atol=1e-5
    )


def test_a_plain_vision_model_in_each_pooling(vit: Path) -> None:
    vectors = {
        p: load_encoder("image", Encoder(model=str(vit), pooling=p), "cpu")(pictures()) for p in ("auto", "mean", "cls")
    }
    assert all(v.shape == (3, 32) for v in vectors.values())
    assert not np.allclose(vectors["mean"], vectors["cls"])
    assert not np.allclose(vectors["auto"], vectors["cls"])


def test_the_fingerprint_follows_what_decides_a_vector_and_nothing_else(bert: Path) -> None:
    text = Encoder(model=str(bert))

    def of(encoder: Encoder, **more: int) -> str:
        return encoder_fingerprints(Encoders(text=encoder, **more))["text"]

    base = of(text)
    assert base == of(text.model_copy(update={"batch_size": 3}), commit_rows=500)
    changes = ({"pooling": "cls"}, {"max_length": 9}, {"dtype": "bfloat16"}, {"model": "builtin"})
    others = {of(text.model_copy(update=change)) for change in changes}
    weights = bert / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    others.add(of(text))
    assert len(others | {base}) == 6


def test_each_modality_has_a_fingerprint_of_its_own(clip: Path) -> None:
    joint, builtin = Encoder(model=str(clip)), Encoder()
    found = encoder_fingerprints(Encoders(text=joint, image=joint))
    assert found["text"] != found["image"]
    assert encoder_fingerprints(Encoders(text=joint, image=builtin))["text"] == found["text"]


def test_a_model_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ConfigError, match=r"encoders.text.model: no/such is no local folder .*no network"):
        encoder_fingerprints(Encoders(text=Encoder(model="no/such")))
