"""A model's files: its own, OpenAI's and Hugging Face's, read and written.

    form         files in a folder                                     the sizes stand in
    safetensors  model.safetensors (`save_pretrained`)                 its metadata
    huggingface  model.safetensors                                     config.json
    openai       model.ckpt.index, .data-00000-of-00001, checkpoint    hparams.json
    npz          model.npz                                             hparams.json

Every check comes before memory is taken for a model, and arrays are handed on rather than copied, so that reading takes
hardly more memory than the file has bytes.
"""

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.formats import (
    LoadError,
    atomic_write,
    parse_json,
    read_arrays,
    save_npz,
    save_safetensors,
    show,
    write_tensorbundle,
)
from tinygrad_llm.kernels import Array
from tinygrad_llm.models.config import CONFIGS, GPTConfig, from_hparams, from_huggingface, to_hparams, to_huggingface
from tinygrad_llm.models.gpt2_names import STYLES, from_ours, recognise, to_ours

WEIGHTS = "model.safetensors"  # the file in a checkpoint folder
FORMS = ("safetensors", "huggingface", "openai", "npz")

_HPARAMS, _CONFIG = "hparams.json", "config.json"
_MAX_JSON = 1_000_000  # bytes
_HEAD_SIZE = 64  # of all GPT-2s
_HEAD, _WTE, _WPE = "lm_head.weight", "transformer.wte.weight", "transformer.wpe.weight"


class Pretrained(NamedTuple):
    """What `read_pretrained` found: sizes, parameters by our names, and a description such as "npz, our names"."""

    config: GPTConfig
    state: dict[str, Array]
    found: str


def read_pretrained(path: str | Path, n_head: int | None = None, allow_non_finite: bool = False) -> Pretrained:
    """Read a model from a folder or a file of any of the forms above.

    The sizes are those that the model's own metadata, hparams.json or config.json state; what none of them does is seen
    in the tensors, but for the number of heads: there it is `n_head`, or n_embd / 64, GPT-2's rule. Dropout is that of
    the model's own metadata, and else 0.

    A name such as "gpt2" that is no path here is the folder that `tinygrad-llm download` fills.

    Returns:  parameters that own their memory: float64 if all in the file are, and else float32.
    Raises:   LoadError: no model there; a damaged file; sizes that contradict each other or the tensors; tensors that
              are missing, too many, misshapen or of integers, all of them listed; NaN or infinity, unless allowed.
              OSError: a file cannot be read.
    """
    file = _find(Path(path))
    read = read_arrays(file)
    own = "config" in read.metadata
    style = "ours" if own else recognise(read.arrays)
    state = to_ours(read.arrays, style)
    found = f"{read.format}, {STYLES[style]}"
    if own:
        source = f"{file}: field 'config'"
        stated = _parse(source, read.metadata["config"].encode("utf-8", "replace"))
    else:
        source, stated = _stated_beside(file, style)
    del read  # or the arrays that are converted below would be kept too

    config = _settle(file, source, stated, state, n_head, own)
    _check(file, source, config, state)
    _convert(state)
    broken = [] if allow_non_finite else not_finite(state)
    if broken:
        raise LoadError(f"{file}: NaN or infinity in {_brief(', '.join(broken))}")
    return Pretrained(config, state, found)


def write_pretrained(folder: str | Path, config: GPTConfig, state: Mapping[str, Array], form: str = FORMS[0]) -> None:
    """Write a model into a folder, made if need be, in one of the forms above. Each file is replaced only when whole.

    Raises:   ValueError: a weight is NaN or infinite, or the form cannot hold this model; nothing is written then.
              OSError: a file cannot be written.
    """
    folder = Path(folder)
    broken = not_finite(state)
    if broken:
        raise ValueError(f"not saved to {folder}: NaN or infinity in {', '.join(broken)}")
    arrays = from_ours(state, form if form in STYLES else "ours")
    folder.mkdir(parents=True, exist_ok=True)
    if form == "safetensors":
        metadata = {"format": "tinygrad_llm.GPT", "config": json.dumps(dataclasses.asdict(config))}
        save_safetensors(folder / WEIGHTS, arrays, metadata)
    elif form == "huggingface":
        save_safetensors(folder / WEIGHTS, arrays, {"format": "pt"})  # without which transformers refuses it
        _write_json(folder / _CONFIG, to_huggingface(config, arrays["transformer.wte.weight"].dtype.name))
    else:
        if form == "openai":
            write_tensorbundle(folder / "model.ckpt", arrays)
            with atomic_write(folder / "checkpoint") as file:  # where TensorFlow looks for the latest
                file.write(b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n')
        else:
            save_npz(folder / "model.npz", arrays)
        _write_json(folder / _HPARAMS, to_hparams(config))


def not_finite(state: Mapping[str, Array]) -> list[str]:
    """The names of the tensors that hold NaN or infinity."""
    return [name for name, array in state.items() if not np.isfinite(array).all()]


# Files


def _find(path: Path) -> Path:
    """The file or folder to read arrays from."""
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if path.is_dir():
        kinds = ("*.safetensors*", "*.index", "*.npz", "pytorch_model*.bin")
        if not any(any(path.glob(kind)) for kind in kinds):
            raise LoadError(f"{path}: no model here ({WEIGHTS} is missing): train one, or check the path")
    elif not path.exists() and not path.with_name(path.name + ".index").exists():
        if str(path) in CONFIGS:
            from tinygrad_llm.models.hub import cached  # here, as it loads Python's web client

            if folder := cached(str(path)):
                return _find(folder)
            raise LoadError(f"{path}: not here: run `tinygrad-llm download {path}` first, or give its folder")
        raise LoadError(f"{path}: no model here: train one, or check the path")
    return path


def _stated_beside(file: Path, style: str) -> tuple[str, dict[str, Any]]:
    """Where sizes are stated beside the weights, and which; {} if nowhere."""
    readers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]]
    readers = {_HPARAMS: from_hparams, _CONFIG: from_huggingface}
    folder = file if file.is_dir() else file.parent
    for name in sorted(readers, reverse=style != "huggingface"):  # if both are there, first the one of this style
        path = folder / name
        if not path.is_file():
            continue
        with open(path, "rb") as stream:
            text = stream.read(_MAX_JSON + 1)
        if len(text) > _MAX_JSON:
            raise LoadError(f"{path}: longer than {_MAX_JSON} bytes, so not the sizes of a model")
        try:
            return str(path), readers[name](_parse(str(path), text))
        except (TypeError, ValueError) as error:
            raise error if isinstance(error, LoadError) else LoadError(f"{path}: {_brief(error)}") from None
    return f"the sizes seen in {file}", {}


def _parse(where: str, text: bytes) -> dict[str, Any]:
    fields = parse_json(where, text)
    if not isinstance(fields, dict):
        raise LoadError(f"{where}: must be a JSON object, is {show(fields)}")
    return fields


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(fields, indent=2) + "\n").encode())


# Sizes


def _settle(
    file: Path, source: str, stated: dict[str, Any], state: dict[str, Array], n_head: int | None, own: bool
) -> GPTConfig:
    """The config, from what is stated, what the caller says, and, in files that are not our own, what is seen."""
    if n_head is not None and stated.get("n_head", n_head) != n_head:
        raise LoadError(f"{source}: n_head is {show(stated['n_head'])}, not the {n_head} asked for")
    seen = {} if own else _seen(file, state)
    fields = seen | stated | ({} if n_head is None else {"n_head": n_head})
    if not own:
        if fields["tie_weights"] is True and _HEAD in state:
            if not _same(state[_HEAD], state.get(_WTE)):
                raise LoadError(f"{source}: the output head is tied to {_WTE}, but {file} has another {_HEAD}")
            del state[_HEAD]
        if "n_head" not in fields:
            C = seen["n_embd"]
            if C % _HEAD_SIZE:
                raise LoadError(
                    f"{file}: n_head is stated nowhere and cannot be seen, and n_embd, {C}, is no multiple of "
                    f"{_HEAD_SIZE}, the size of GPT-2's heads: give n_head, or put the {_HPARAMS} beside the file"
                )
            fields["n_head"] = C // _HEAD_SIZE
    try:
        config = GPTConfig(**fields)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{source}: no sizes of a GPT: {_brief(error)}") from None
    if not own and n_head is None:
        for name, published in CONFIGS.items():
            differing = [field for field, value in vars(published).items() if getattr(config, field) != value]
            if differing == ["n_head"]:
                raise LoadError(
                    f"{source}: n_head is {config.n_head}, but {name}, which has these sizes, has {published.n_head}; "
                    f"if it is right, give n_head={config.n_head}"
                )
    return config


def _seen(file: Path, state: Mapping[str, Array]) -> dict[str, Any]:
    """The fields of the config that the tensors show."""
    wte, wpe = state.get(_WTE), state.get(_WPE)
    if wte is None or wpe is None or wte.ndim != 2 or wpe.ndim != 2:
        raise LoadError(f"{file}: not a GPT-2: it has no matrices wte and wpe, but {show(sorted(state))}")
    layers = {block[1] for name in state if (block := re.match(r"transformer\.h\.(\d+)\.", name))}
    return {
        "vocab_size": wte.shape[0],
        "block_size": wpe.shape[0],
        "n_embd": wte.shape[1],
        "n_layer": len(layers),
        "qkv_bias": any(name.endswith("attn.c_attn.bias") for name in state),
        "tie_weights": _HEAD not in state or _same(state[_HEAD], wte),
    }


def _same(one: Array, other: Array | None) -> bool:
    """Floats that are the same bit for bit, so that a NaN is the same as itself."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind != "f":
        return False
    bits = f"u{one.itemsize}"
    return np.array_equal(one.view(bits), other.view(bits))


# Tensors


def _check(file: Path, source: str, config: GPTConfig, state: Mapping[str, Array]) -> None:
    """Every tensor that the config asks for is there, is floats of the right shape, and no others are."""
    if 6 * config.n_layer > len(state) + 12:  # half as many as it asks for, which may be any number: no list
        raise LoadError(f"{file}: {len(state)} tensors are too few for the n_layer of {source}: {show(config.n_layer)}")
    asked = dict(config.shapes())
    wrong = [f"missing {name} {shape}" for name, shape in asked.items() if name not in state]
    for name, array in state.items():
        if name not in asked:
            wrong.append(f"unexpected {show(name)[1:-1]} {array.shape}")
        elif array.shape != asked[name]:
            wrong.append(f"{name} has shape {array.shape}, and not {asked[name]}")
        elif array.dtype.kind != "f":
            wrong.append(f"{name} holds {array.dtype}, and weights are floats")
    if wrong:
        raise LoadError(f"{file}: the tensors do not fit {source}: {_brief('; '.join(wrong), 30_000)}")


def _convert(state: dict[str, Array]) -> None:
    """Make each array contiguous, writable and of one dtype; one by one, so that what it was is freed at once."""
    dtype = np.float64 if all(array.dtype == np.float64 for array in state.values()) else np.float32
    with np.errstate(over="ignore"):  # a float64 too large for the others is infinite, and refused as such
        for name, array in state.items():
            if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.writeable:
                state[name] = np.empty(array.shape, dtype)
                for start in range(0, array.shape[-1], 16):  # of a transposed matrix, what the cache can hold
                    state[name][..., start : start + 16] = array[..., start : start + 16]


def _brief(error: object, width: int = 500) -> str:
    """One line of bounded length: names in a file may hold line breaks, and be many."""
    return textwrap.shorten(str(error), width)
