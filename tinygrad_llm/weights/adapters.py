"""LoRA adapters in files, as `peft` of Hugging Face writes them: a small folder beside a base model.

    adapter_model.safetensors   base_model.model.LAYER.lora_A.weight (rank, in), ….lora_B.weight (out, rank); of an
                                embedding, ….lora_embedding_A (rank, ids), ….lora_embedding_B (channels, rank); and
                                base_model.model.NAME, parameters that were trained as they are, such as a new head
    adapter_config.json         rank, alpha, the adapted layers, and the path of the base

Three adapters that share a layer, as ours of queries, keys and values do, are one of rank 3r in this form: its B has
three blocks, and zeros elsewhere.

Source:   peft 0.21: peft.LoraConfig, peft.utils.save_and_load.get_peft_model_state_dict.
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Linear, LoRA, LoRAEmbedding, LoRALinear, Module, adapt, lora_layers, merge_lora
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, open_regular, parse_json, show
from tinygrad_llm.weights.find import WEIGHTS

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"

_LABELS, _BASE = "tinygrad_llm.labels", "tinygrad_llm.base_sha256"  # in the metadata of the arrays
_MAX_JSON = 1_000_000  # bytes
_PREFIX = "base_model.model."
_EMBEDDING = "lora_embedding_"
_PEFTS_ALPHA = 8  # where a config states none
_MOST_BASES = 100  # adapters on top of each other
_WANTED = {
    "lora_alpha": "a number",
    "alpha_pattern": "an object with a number for each layer",
    "use_rslora": "true or false",
}
_REFUSED = {"use_dora": False, "bias": "none"}  # fields that we do not support, with their harmless values


def save_adapter(
    model: Module,
    folder: str | Path,
    base: str = "",
    base_hash: str = "",
    whole: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
) -> None:
    """Write the adapters of a model, without its frozen weights.

    Args:     base: the path or name of the base model, for the reader. base_hash: `state_hash` of it.
              whole: layers, such as a new head, that the base lacks: they are written whole, with their adapter merged.
              labels: of a classifier.
    Raises:   ValueError: the model has no adapters; a weight is NaN or infinite. OSError: a file cannot be written.
    """
    layers = dict(lora_layers(model))
    if not layers:
        raise ValueError("the model has no LoRA adapters to save")
    arrays: dict[str, Array] = {}
    for name, layer in layers.items():
        if name in whole:
            arrays[f"{_PREFIX}{name}.weight"] = layer.merged_weight()
            if isinstance(layer.base_layer, Linear) and layer.base_layer.bias is not None:
                arrays[f"{_PREFIX}{name}.bias"] = layer.base_layer.bias.data
        elif isinstance(layer, LoRAEmbedding):
            arrays[f"{_PREFIX}{name}.{_EMBEDDING}A"] = np.ascontiguousarray(layer.lora_B[0].weight.data.T)
            arrays[f"{_PREFIX}{name}.{_EMBEDDING}B"] = np.ascontiguousarray(layer.lora_A.weight.data.T)
        else:
            arrays[f"{_PREFIX}{name}.lora_A.weight"] = layer.lora_A.weight.data
            arrays[f"{_PREFIX}{name}.lora_B.weight"] = _block_diagonal([up.weight.data for up in layer.lora_B])
    for name, p in model.named_parameters():
        owner = name.rpartition(".")[0]
        if owner in whole and owner not in layers:
            arrays[f"{_PREFIX}{name}"] = p.data
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise ValueError(f"not saved to {folder}: NaN or infinity in {', '.join(broken)}")
    adapted = {name: layer for name, layer in layers.items() if name not in whole}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / ADAPTER_CONFIG) as file:
        file.write((json.dumps(_config(adapted, base, whole), indent=2) + "\n").encode())
    metadata = {"format": "pt", _LABELS: json.dumps(labels) if labels else "", _BASE: base_hash}
    save_safetensors(folder / ADAPTER, arrays, {name: text for name, text in metadata.items() if text})


def _config(layers: dict[str, LoRALinear], base: str, whole: tuple[str, ...]) -> dict[str, Any]:
    ranks = {name: layer.rank * len(layer.lora_B) for name, layer in layers.items()}
    alphas = {name: layer.alpha * len(layer.lora_B) for name, layer in layers.items()}
    rank, alpha = min(ranks.values(), default=1), min(alphas.values(), default=1)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if whole else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": next((layer.lora_dropout.p for layer in layers.values()), 0.0),
        "target_modules": list(layers),
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != alpha},
        "modules_to_save": list(whole) or None,
        "fan_in_fan_out": True,  # GPT-2's layers of transformers hold their weights transposed
        "bias": "none",
        "inference_mode": True,
    }


def _block_diagonal(blocks: list[Array]) -> Array:
    rows, columns = blocks[0].shape
    whole = np.zeros((rows * len(blocks), columns * len(blocks)), blocks[0].dtype)
    for i, block in enumerate(blocks):
        whole[rows * i : rows * (i + 1), columns * i : columns * (i + 1)] = block
    return whole


class Adapter(NamedTuple):
    """The base of an adapter: where it is, its hash ("": unknown), and the labels of a classifier."""

    base: str
    base_hash: str
    labels: tuple[str, ...]


def find_adapter(path: str | Path) -> Adapter | None:
    """The base that the adapter in a folder states; None where the folder holds no adapter, or a whole model.

    Raises:   LoadError: its files are damaged, or name no base; its bases lead in a circle.
    """
    found = _read_adapter(path)
    above, at = [os.path.realpath(path)], found
    while at is not None:
        place = os.path.realpath(at.base)
        if place in above or len(above) == _MOST_BASES:
            said = "its bases lead in a circle" if place in above else f"has more than {_MOST_BASES} bases"
            raise LoadError(f"{path}: {said}: mend base_model_name_or_path in {above[-1]}/{ADAPTER_CONFIG}")
        above.append(place)
        at = _read_adapter(at.base)
    return found


def _read_adapter(path: str | Path) -> Adapter | None:
    folder = Path(path)
    if not (folder / ADAPTER).is_file() or (folder / WEIGHTS).is_file():
        return None
    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise LoadError(
            f"{folder / ADAPTER_CONFIG}: base_model_name_or_path must name the base model, got {show(base)}"
        )
    _, metadata = load_safetensors(folder / ADAPTER, mmap=True)  # the arrays are read, and their hash, by load_adapter
    labels = parse_json(f"{folder / ADAPTER}: labels", metadata.get(_LABELS, "[]").encode())
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise LoadError(f"{folder / ADAPTER}: labels must be a list of texts, got {show(labels)}")
    if labels and len(set(labels)) < max(2, len(labels)):
        raise LoadError(f"{folder / ADAPTER}: labels must be at least two different texts, got {show(labels)}")
    return Adapter(base, metadata.get(_BASE, ""), tuple(labels))


def merge_adapter(model: Module, folder: str | Path) -> None:
    """Put the adapters of a folder into the weights of their base model, in place.

    Raises:   LoadError: as `load_adapter`.
    """
    load_adapter(model, folder)
    merge_lora(model)


def check_base(base: Module, adapter: Adapter, path: str | Path) -> None:
    """Raise LoadError if the base is not the one that the adapter was trained with."""
    if adapter.base_hash and state_hash(base) != adapter.base_hash:
        raise LoadError(
            f"{path}: its base {adapter.base} has other weights than when the adapter was trained: put it back"
        )


def state_hash(model: Module) -> str:
    """The SHA-256 of all parameters, by name."""
    digest = hashlib.sha256()
    for name, array in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_adapter(model: Module, folder: str | Path) -> None:
    """Put the adapters of a folder beside the layers of their base model, in place.

    Raises:   LoadError: a file is missing or damaged; a layer or a shape does not fit the model; a kind of adapter that
              we do not have. The model is then unchanged.
    """
    file = Path(folder) / ADAPTER
    config = read_adapter_config(folder)
    arrays, _ = load_safetensors(file)
    pairs, whole = _sorted(arrays, str(file))
    parameters = dict(model.named_parameters())
    for name, array in whole.items():
        if name not in parameters or parameters[name].shape != array.shape:
            raise LoadError(f"{file}: {show(name)} {array.shape} is not a parameter of the model")
    shapes = {name.removesuffix(".weight"): p.shape for name, p in parameters.items()}
    for name, (A, B) in pairs.items():
        if shapes.get(name) != (B.shape[0], A.shape[1]):
            raise LoadError(
                f"{file}: the adapter of {show(name)} is for a layer {(B.shape[0], A.shape[1])}, and the model's is "
                f"{shapes.get(name, 'missing')}"
            )
    try:
        adapters = {name: LoRA(len(A), _alpha(config, name, len(A))) for name, (A, _) in pairs.items()}
        adapt(model, adapters, rng=Generator(0))
    except (TypeError, ValueError) as error:
        raise LoadError(f"{file}: does not fit the model: {error}") from None
    for name, array in whole.items():
        parameters[name].data = array.astype(parameters[name].dtype)
    for name, layer in lora_layers(model):
        for linear, array in zip((layer.lora_A, *layer.lora_B), pairs[name], strict=True):
            linear.weight.data = array.astype(linear.weight.dtype)


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    """The fields of adapter_config.json.

    Raises:   LoadError: it is missing, damaged, or of a kind of adapter that we do not have.
    """
    path = Path(folder) / ADAPTER_CONFIG
    if not path.is_file():
        raise LoadError(f"{folder}: no adapter here ({ADAPTER_CONFIG} is missing)")
    with open_regular(path) as file:
        text = file.read(_MAX_JSON + 1)
    config = parse_json(str(path), text) if len(text) <= _MAX_JSON else None
    if not isinstance(config, dict):
        raise LoadError(f"{path}: must be a JSON object of at most {_MAX_JSON} bytes")
    if config.get("peft_type") != "LORA":
        raise LoadError(f"{path}: peft_type is {show(config.get('peft_type'))}, and only LORA can be read")
    for name, harmless in _REFUSED.items():
        if config.get(name) not in (harmless, None):
            raise LoadError(f"{path}: {name} is {show(config[name])}, which cannot be read")
    alphas = config.get("alpha_pattern")
    good = {
        "lora_alpha": config.get("lora_alpha") is None or _is_number(config["lora_alpha"]),
        "alpha_pattern": alphas is None or (isinstance(alphas, dict) and all(map(_is_number, alphas.values()))),
        "use_rslora": isinstance(config.get("use_rslora", False), bool | None),
    }
    for name, is_good in good.items():
        if not is_good:
            raise LoadError(f"{path}: {name} must be {_WANTED[name]}, got {show(config[name])}")
    return config


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sorted(arrays: dict[str, Array], where: str) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array]]:
    """The pairs (A, B) of each adapted layer, and the parameters that were trained as they are."""
    found: dict[str, dict[str, Array]] = {}
    whole: dict[str, Array] = {}
    for name, array in arrays.items():
        if not name.startswith(_PREFIX) or array.dtype.kind != "f":
            raise LoadError(f"{where}: {show(name)} is not of a LoRA adapter of linear layers")
        plain = name.removeprefix(_PREFIX).replace(".modules_to_save.default.", ".").replace(".default.", ".")
        layer, half, _ = plain.rpartition(".lora_")
        if half:
            which = plain.removeprefix(layer + half).removesuffix(".weight").removesuffix(".default")
            if which.startswith("embedding_"):  # theirs are B and A of ours, transposed
                which, array = {"A": "B", "B": "A"}.get(which.removeprefix("embedding_"), which), array.T
            found.setdefault(layer, {})[which] = array
        else:
            whole[plain] = array
    for layer, halves in found.items():
        if halves.keys() != {"A", "B"} or any(array.ndim != 2 for array in halves.values()):
            raise LoadError(f"{where}: {show(layer)} must have one matrix lora_A and one lora_B")
        if len(halves["A"]) != halves["B"].shape[1]:
            raise LoadError(f"{where}: lora_A and lora_B of {show(layer)} have unequal ranks")
    if not arrays:
        raise LoadError(f"{where}: holds no adapter")
    return {layer: (halves["A"], halves["B"]) for layer, halves in found.items()}, whole


def _alpha(config: dict[str, Any], name: str, rank: int) -> float:
    pattern = config.get("alpha_pattern") or {}
    alpha = next((value for key, value in pattern.items() if name == key or name.endswith("." + key)), None)
    if alpha is None:
        alpha = config.get("lora_alpha")
    number = float(_PEFTS_ALPHA if alpha is None else alpha)
    return number * math.sqrt(rank) if config.get("use_rslora") else number
