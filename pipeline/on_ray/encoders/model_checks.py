"""What a model must be before anything of it is loaded: safetensors, known modules, no code that nobody asked for.

Looks at files alone, without torch, so that a model that cannot be used is refused before any work is begun.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.encoders import Encoder
from pipeline.errors import ConfigError
from pipeline.on_ray.encoders.model_files import model_folder, modules, read_json, transformer_folder

WITH_WEIGHTS = ("Transformer", "Dense", "LayerNorm")
KNOWN_MODULES = (*WITH_WEIGHTS, "Pooling", "Normalize", "Dropout")
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
POOLING_FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
CONFIGURATIONS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes", "*.model", "*.spm", "*.bpe", "*.tiktoken")
OF_BYTES = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")  # need no vocabulary
PICTURES = ("preprocessor_config.json", "processor_config.json")


def usable_folder(modality: str, settings: Encoder) -> Path:
    """The local folder of the model that the configuration names, fetched if need be.

    Raises:
        ConfigError: as :func:`pipeline.on_ray.encoders.model_files.model_folder`, or what lies there cannot or must
            not be loaded: one sentence that names the file, what is wrong with it and what to do.
    """
    folder = model_folder(modality, settings)
    named = f"encoders.{modality}.model: {settings.model}"
    try:
        fault = next(_faults(modality, settings, folder), None)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{named}: its JSON files are not those of a model ({error!r}): fetch it again") from error
    if fault is not None:
        raise ConfigError(f"{named}: {fault}")
    return folder


def _faults(modality: str, settings: Encoder, folder: Path) -> Iterator[str]:
    if modality == "text":
        yield from _faults_of_modules(settings, folder)
    place = transformer_folder(folder) if modality == "text" else folder
    if not (place / "config.json").is_file():
        yield f"there is no {_name(folder, place / 'config.json')}: is it a model of (sentence-)transformers?"
    if (place / "adapter_config.json").is_file():
        yield "adapter_config.json: an adapter needs another model's weights; merge the two and name the result"
    yield from _faults_of_code(modality, settings, folder, place)
    if not any(place.glob("*.safetensors")):
        yield (
            "there are no weights in the form of safetensors, and pickled ones (pytorch_model.bin) are never loaded: "
            "convert them where you trust them, with from_pretrained(FOLDER).save_pretrained(NEW)"
        )
    if modality == "text" and not settings.trust_remote_code and not _has_vocabulary(place):
        yield "there is no tokenizer.json or other vocabulary, all words would be the same: fetch the model again"
    if modality == "image" and not any((folder / name).is_file() for name in PICTURES):
        yield f"there is no {PICTURES[0]}, which says how pictures are prepared: take it from the model's origin"


def _faults_of_modules(settings: Encoder, folder: Path) -> Iterator[str]:
    """What ``modules.json`` and the modules it names are to be."""
    kind = (read_json(folder / "config_sentence_transformers.json") or {}).get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        yield f"it is a {kind}, which gives a text no vector of its own: name a SentenceTransformer"
    for module in modules(folder):
        place = folder / module["path"]
        name, known = module["type"].rpartition(".")[2], module["type"].startswith("sentence_transformers.")
        if not place.resolve().is_relative_to(folder.resolve()):
            yield f"modules.json: {module['path']} leads out of the folder"
        if not known:
            if not settings.trust_remote_code:
                yield _untrusted("text", f"{module['type']} in modules.json")
        elif name not in KNOWN_MODULES:
            yield f"modules.json has a module {name}; known are {', '.join(KNOWN_MODULES)}: name another model"
        elif name == "Pooling":
            yield from _faults_of_pooling(_name(folder, place / "config.json"), read_json(place / "config.json") or {})
        elif name in WITH_WEIGHTS[1:] and not (place / "model.safetensors").is_file():
            yield (
                f"there is no {_name(folder, place / 'model.safetensors')}, and pickled weights are never loaded: "
                "convert them where you trust them, with SentenceTransformer(FOLDER).save_pretrained(NEW)"
            )
        if name == "Dense":
            function = (read_json(place / "config.json") or {}).get("activation_function", "torch.")
            if known and not function.startswith("torch.") and not settings.trust_remote_code:
                yield _untrusted("text", f"activation_function {function} in {_name(folder, place / 'config.json')}")


def _faults_of_pooling(file: str, config: dict[str, Any]) -> Iterator[str]:
    modes = config.get("pooling_mode", [])
    for mode in [modes] if isinstance(modes, str) else modes:
        if mode not in POOLINGS:
            yield f"{file}: pooling_mode {mode} is unknown; known are {', '.join(POOLINGS)}: name another model"
    for key in config:
        if key.startswith("pooling_mode_") and key.removeprefix("pooling_mode_") not in POOLING_FLAGS:
            yield f"{file}: {key} is unknown; known poolings are {', '.join(POOLINGS)}: name another model"


def _faults_of_code(modality: str, settings: Encoder, folder: Path, place: Path) -> Iterator[str]:
    """Code that comes with a model is run if it is asked for, and if it lies in the folder whose content is known."""
    for file in (place / name for name in CONFIGURATIONS):
        classes = (read_json(file) or {}).get("auto_map")
        if not classes:
            continue
        if not settings.trust_remote_code:
            yield _untrusted(modality, f"auto_map in {_name(folder, file)}")
        elsewhere = ", ".join(sorted({name.split("--")[0] for name in _strings(classes) if "--" in name}))
        if elsewhere:
            yield (
                f"its code lies in another repository ({elsewhere}), which may change: put it into a local folder, "
                f"beside the weights, and take the repository out of auto_map in {_name(folder, file)}"
            )


def _has_vocabulary(place: Path) -> bool:
    stated = (read_json(place / "tokenizer_config.json") or {}).get("tokenizer_class")
    return stated in OF_BYTES or any(any(place.glob(name)) for name in VOCABULARIES)


def _untrusted(modality: str, what: str) -> str:
    return (
        f"it brings code of its own ({what}), which is run only with encoders.{modality}.trust_remote_code: true; "
        "set it if you have read the code and trust it"
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _name(folder: Path, file: Path) -> str:
    return str(file.relative_to(folder))
