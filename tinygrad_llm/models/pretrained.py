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
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.formats import (
    read_arrays,
    save_npz,
    save_safetensors,
    write_tensorbundle,
)
from tinygrad_llm.kernels import Array
from tinygrad_llm.models.config import CONFIGS, GPTConfig, from_hparams, from_huggingface, to_hparams, to_huggingface
from tinygrad_llm.models.gpt2_names import STYLES, from_ours, recognise, to_ours
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, parse_json, show
from tinygrad_llm.tokenizer import AnyTokenizer, CharTokenizer, Tokenizer, load_tokenizer
from tinygrad_llm.tokenizer.files import read_object

WEIGHTS = "model.safetensors"  # the file in a checkpoint folder
FORMS = ("safetensors", "huggingface", "openai", "npz")

_INDEX, _NPZ = "model.ckpt.index", "model.npz"
_HPARAMS, _CONFIG, _TOKENIZER = "hparams.json", "config.json", "tokenizer.json"
_PAIRS = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))  # GPT-2's tokenizer, OpenAI's names first
_OWN, _PYTORCH = "tinygrad_llm.GPT", "pt"  # what the metadata of weights calls their format
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
    own = read.metadata.get("format") == _OWN
    try:
        style = "ours" if own else recognise(read.arrays, _says_huggingface(file, read.metadata))
        state = to_ours(read.arrays, style)
    except LoadError as error:
        raise LoadError(f"{file}: {_brief(error)}") from None
    found = f"{read.format}, {STYLES[style]}"
    if own:
        source = f"{file}: field 'config'"
        stated = _parse(source, read.metadata.get("config", "").encode("utf-8", "replace"))
    else:
        source, stated = _stated_beside(file, style)
    del read  # or the arrays that are converted below would be kept too

    config = _settle(file, source, stated, state, n_head, own)
    check_tensors(file, source, config, state)
    _convert(state)
    broken = [] if allow_non_finite else not_finite(state)
    if broken:
        raise LoadError(f"{file}: NaN or infinity in {_brief(', '.join(broken))}")
    return Pretrained(config, state, found)


def write_pretrained(folder: str | Path, config: GPTConfig, state: Mapping[str, Array], form: str = FORMS[0]) -> None:
    """Write a model into a folder, made if need be, in one of the forms above. Each file is replaced only when whole.

    Raises:   ValueError: a weight is NaN or infinite, the form cannot hold this model, or the folder holds weights of
              another form, so that nobody could tell which are meant; nothing is written then.
              OSError: a file cannot be written.

    The sizes are written before the weights: without them, nobody could tell the number of heads.
    """
    folder = Path(folder)
    broken = not_finite(state)
    if broken:
        raise ValueError(f"not saved to {folder}: NaN or infinity in {', '.join(broken)}")
    arrays = from_ours(state, form if form in STYLES else "ours")
    target = {"openai": _INDEX, "npz": _NPZ}.get(form, WEIGHTS)
    others = [name for name in (WEIGHTS, _INDEX, _NPZ) if name != target and os.path.lexists(folder / name)]
    if others:
        raise ValueError(f"{folder}: holds {' and '.join(others)} already: remove that, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if form == "safetensors":
        save_safetensors(folder / WEIGHTS, arrays, {"format": _OWN, "config": json.dumps(dataclasses.asdict(config))})
    elif form == "huggingface":
        _write_json(folder / _CONFIG, to_huggingface(config, arrays[_WTE].dtype.name))
        save_safetensors(folder / WEIGHTS, arrays, {"format": _PYTORCH})  # without which transformers refuses it
    else:
        _write_json(folder / _HPARAMS, to_hparams(config))
        if form == "openai":
            write_tensorbundle(folder / "model.ckpt", arrays)
            with atomic_write(folder / "checkpoint") as file:  # where TensorFlow looks for the latest
                file.write(b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n')
        else:
            save_npz(folder / _NPZ, arrays)


def tokenizer_for(path: str | Path, config: GPTConfig) -> AnyTokenizer:
    """The tokenizer beside a model's weights; where no file holds one, that of GPT-2 for 50,257 tokens.

    Raises:   LoadError: there is none, or it has not as many tokens as the model. TokenizerError: it is damaged.
    """
    tokenizer = find_tokenizer(path)
    if tokenizer is None:
        if config.vocab_size == CONFIGS["gpt2"].vocab_size:
            return Tokenizer.gpt2()
        if (_folder(_find(Path(path))) / _TOKENIZER).exists():
            raise LoadError(f"{path}: {_TOKENIZER} is Hugging Face's: put merges.txt and vocab.json beside it")
        raise LoadError(f"{path}: {_TOKENIZER} is missing, which belongs beside the weights: copy it there")
    if tokenizer.n_vocab != config.vocab_size:
        raise LoadError(
            f"{path}: the tokenizer has {tokenizer.n_vocab} tokens and the model {config.vocab_size}: "
            "they do not belong together"
        )
    return tokenizer


def find_tokenizer(path: str | Path) -> AnyTokenizer | None:
    """The tokenizer beside a model's weights: our tokenizer.json, or GPT-2's pair of files; None if there is neither.

    Hugging Face has a tokenizer.json too, which is not read, as the pair beside it says the same.

    Raises:   LoadError: no model there. TokenizerError: a damaged file.
    """
    folder = _folder(_find(Path(path)))
    own = folder / _TOKENIZER
    if os.path.lexists(own) and not _is_huggingfaces(own):
        return load_tokenizer(own)
    return load_tokenizer(folder) if any((folder / merges).exists() for merges, _ in _PAIRS) else None


def write_tokenizer(folder: str | Path, tokenizer: AnyTokenizer, form: str = FORMS[0]) -> None:
    """Write a tokenizer beside a model of a form: GPT-2's pair where others look for it, and else our tokenizer.json.

    Raises:   TokenizerError: a file cannot be written, or two tokens would be the same in it.
    """
    folder = Path(folder)
    if form not in ("openai", "huggingface") or isinstance(tokenizer, CharTokenizer):  # which only we can read
        tokenizer.save(folder / _TOKENIZER)
        return
    tokenizer.save_gpt2(folder)
    if form == "huggingface":
        for openais, theirs in zip(*_PAIRS, strict=True):
            os.replace(folder / openais, folder / theirs)


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
    folder = _folder(file)
    for name in sorted(readers, reverse=style != "huggingface"):  # if both are there, first the one of this style
        path = folder / name
        fields = _read_json(path)
        if fields is None:
            continue
        try:
            return str(path), readers[name](fields)
        except (TypeError, ValueError) as error:
            raise LoadError(f"{path}: {_brief(error)}") from None
    return f"the sizes seen in {file}", {}


def _is_huggingfaces(tokenizer: Path) -> bool:
    fields = read_object(tokenizer)
    return isinstance(fields, dict) and "model" in fields and "format" not in fields


def _says_huggingface(file: Path, metadata: Mapping[str, str]) -> str:
    """What says that the weights are Hugging Face's: the metadata, the config.json, or "" if neither does."""
    if metadata.get("format") == _PYTORCH:
        return "its metadata"
    path = _folder(file) / _CONFIG
    return str(path) if (_read_json(path) or {}).get("model_type") == "gpt2" else ""


def _folder(file: Path) -> Path:
    return file if file.is_dir() else file.parent


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none."""
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise LoadError(f"{path}: not a file, but a folder, a pipe or a link to nothing: move it away")
    with open(path, "rb") as stream:
        text = stream.read(_MAX_JSON + 1)
    if len(text) > _MAX_JSON:
        raise LoadError(f"{path}: longer than {_MAX_JSON} bytes, so not the sizes of a model")
    return _parse(str(path), text)


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
        if fields["tie_weights"] is True:
            drop_tied_head(state)
            if _HEAD in state:
                raise LoadError(f"{source}: the output head is tied to {_WTE}, but {file} has another {_HEAD}")
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


def drop_tied_head(state: dict[str, Array]) -> None:
    """Remove an output head that is wte once more."""
    if _HEAD in state and _same(state[_HEAD], state.get(_WTE)):
        del state[_HEAD]


def _same(one: Array, other: Array | None) -> bool:
    """Floats that are the same bit for bit, so that a NaN is the same as itself."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind != "f":
        return False
    bits = f"u{one.itemsize}"
    return np.array_equal(one.view(bits), other.view(bits))


# Tensors


def check_tensors(file: Path, source: str, config: GPTConfig, state: Mapping[str, Array]) -> None:
    """Every tensor that the config asks for is there, is floats of the right shape, and no others are.

    Args:     file, source: the weights and what states the sizes, for the message. state: by our names.
    Raises:   LoadError: lists all that do not fit.
    """
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
    if source.endswith(_CONFIG) and [name for name in asked if name not in state] == [_HEAD]:
        wrong.append("a base model? Save it with its head, as GPT2LMHeadModel does")
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
