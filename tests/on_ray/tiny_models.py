"""Folders of models of real architectures with small random weights, as the hub would have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "lamp", "chair", "with", "wood"]
TEXTS = ["a red lamp", "a blue chair with wood", "lamp", "unknown words only"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODER = SIZES | {"num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "max_position_embeddings": 64}


def pictures() -> list[Image.Image]:
    """Of three shapes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for h, w in ((40, 60), (32, 32), (90, 20))]


def save_tokenizer(folder: Path, length: int = 16) -> None:
    """BERT's own, in the form that the hub has had it in for years."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=length).save_pretrained(folder)


def save_words(folder: Path, special: list[str], template: str, length: int | None = None) -> None:
    """A tokenizer of words whose first ids are ``special``: padding, unknown, and those that ``template`` puts in."""
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS[5:], "passage:"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [(mark, vocabulary[mark]) for mark in special]
    words.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
    more: dict[str, Any] = {} if length is None else {"model_max_length": length}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", **more
    ).save_pretrained(folder)


def save(folder: Path, architecture: str, **config: Any) -> Path:
    """A plain folder of transformers: ``Bert``, ``Roberta``, ``XLMRoberta``, ``MPNet``, ``Qwen3``, ``Gemma3Text``, …"""
    torch.manual_seed(0)
    if architecture == "Bert":
        settings = transformers.BertConfig(
            **(SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 16} | config)
        )
        transformers.BertModel(settings).save_pretrained(folder)
        save_tokenizer(folder)
        return folder
    if architecture in ("Qwen3", "Gemma3Text"):
        sizes, special, template = DECODER, ["<pad>", "<unk>", "</s>"], "$A </s>"
    elif architecture.startswith("T5"):
        sizes, special, template = {}, ["<pad>", "</s>", "<unk>"], "$A </s>"
        sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "pad_token_id": 0}
        sizes |= {"decoder_start_token_id": 0}
    else:
        sizes, special, template = SIZES | {"pad_token_id": 1}, ["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"
    kind = getattr(transformers, f"{architecture.removesuffix('Encoder')}Config")
    model = getattr(transformers, f"{architecture}Model")(kind(**(sizes | {"vocab_size": 32} | config)))
    model.save_pretrained(folder)
    save_words(folder, special, template)
    return folder


def compose(folder: Path, *modules: tuple[str, str, dict[str, Any] | None], **stated: Any) -> Path:
    """Make a plain folder one of sentence-transformers: modules as (type, path, configuration), and what it states."""
    listed = [("sentence_transformers.models.Transformer", "", None), *modules]
    rows = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path, _) in enumerate(listed)]
    (folder / "modules.json").write_text(json.dumps(rows))
    for _, path, config in modules:
        (folder / path).mkdir(exist_ok=True)
        if config is not None:
            (folder / path / "config.json").write_text(json.dumps(config))
    if stated:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(stated))
    return folder


def pooling(width: int = 32, **config: Any) -> tuple[str, str, dict[str, Any]]:
    """A pooling module in the form of old, with flags."""
    return ("sentence_transformers.models.Pooling", "1_Pooling", {"word_embedding_dimension": width} | config)
