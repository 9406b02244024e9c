"""What GPT-2's weights are called, and how they lie, in the files of OpenAI, of Hugging Face, and here.

            ours                                OpenAI's (TensorFlow)       Hugging Face's (PyTorch)
    name    transformer.h.0.attn.c_attn.weight  model/h0/attn/c_attn/w      ours; `transformer.` may be missing
    linear  (out, in)                           [1, in, out]                (in, out)
    head    lm_head.weight, unless it is wte    is wte                      lm_head.weight, even if it is wte

OpenAI wrote the linear layers as convolutions of width 1, and Hugging Face kept their (in, out) as a `Conv1D`. Theirs
and our names are the same, so that only shapes tell the two apart, and those of attn.c_proj, (C, C), do not. The layout
is therefore recognised once for a whole file, from the linear layers that are not square; never tensor by tensor.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.files import LoadError, show

STYLES = {"ours": "our names", "openai": "OpenAI's names", "huggingface": "Hugging Face's names"}

_OUTSIDE = {
    "transformer.wte.weight": "model/wte",
    "transformer.wpe.weight": "model/wpe",
    "transformer.ln_f.weight": "model/ln_f/g",
    "transformer.ln_f.bias": "model/ln_f/b",
}
_IN_BLOCK = {
    "ln_1.weight": "ln_1/g",
    "ln_1.bias": "ln_1/b",
    "attn.c_attn.weight": "attn/c_attn/w",
    "attn.c_attn.bias": "attn/c_attn/b",
    "attn.c_proj.weight": "attn/c_proj/w",
    "attn.c_proj.bias": "attn/c_proj/b",
    "ln_2.weight": "ln_2/g",
    "ln_2.bias": "ln_2/b",
    "mlp.c_fc.weight": "mlp/c_fc/w",
    "mlp.c_fc.bias": "mlp/c_fc/b",
    "mlp.c_proj.weight": "mlp/c_proj/w",
    "mlp.c_proj.bias": "mlp/c_proj/b",
}
_FROM_OUTSIDE = {theirs: ours for ours, theirs in _OUTSIDE.items()}
_FROM_BLOCK = {theirs: ours for ours, theirs in _IN_BLOCK.items()}

_BLOCK = re.compile(r"transformer\.h\.(\d+)\.(.+)")
_OPENAI_BLOCK = re.compile(r"model/h(\d+)/(.+)")
_LINEAR = re.compile(r"(?:transformer\.)?h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
_MASK = re.compile(r"(?:transformer\.)?h\.\d+\.attn\.(?:masked_)?bias")  # constants that old files keep as tensors


def recognise(arrays: Mapping[str, Array], stated_by: str = "") -> str:
    """Whose names and layout these are: "ours", "openai" or "huggingface".

    Every linear layer that is not square has a vote, so that one transposed tensor is an error and not a layout.

    Args:     stated_by: what says that the layout is Hugging Face's, if anything does.
    Raises:   LoadError: the layers lie otherwise than it says.
    """
    if any(name.startswith("model/") for name in arrays):
        return "openai"
    votes = 0
    for name, array in arrays.items():
        linear = _LINEAR.fullmatch(name)
        if linear and linear[1] != "attn.c_proj" and array.ndim == 2:
            widens = linear[1] != "mlp.c_proj"  # C → 3C or 4C; the last one goes from 4C to C
            votes += 1 if (array.shape[1] > array.shape[0]) == widens else -1
    if stated_by and votes < 0:
        raise LoadError(
            f"{stated_by} says that the linear layers lie as Hugging Face's, (in, out), but they lie (out, in)"
        )
    return "huggingface" if votes > 0 or stated_by else "ours"


def to_ours(arrays: Mapping[str, Array], style: str) -> dict[str, Array]:
    """Arrays of a style by our names and in our layout: views, nothing is copied.

    Mask buffers are left out. A name that is none of GPT-2's, or a shape that is none of a linear layer's, stays what
    it is, for the one who knows the sizes to complain about.
    """
    if style == "ours":
        return dict(arrays)
    if style == "openai":
        renamed = _renamed(arrays, _from_openai)
        wide = [name for name, a in renamed.items() if _LINEAR.fullmatch(name) and a.ndim == 3 and len(a) == 1]
        return _transposed(renamed | {name: renamed[name][0] for name in wide})
    prefix = "" if any(name.startswith("transformer.") for name in arrays) else "transformer."
    kept = {name: array for name, array in arrays.items() if not _MASK.fullmatch(name)}
    return _transposed(_renamed(kept, lambda name: name if name == "lm_head.weight" else prefix + name))


def from_ours(state: Mapping[str, Array], style: str) -> dict[str, Array]:
    """The opposite of `to_ours`. Queries, keys and values without a bias get one of zeros, as GPT-2 always has one.

    Raises:   ValueError: an output head of its own, for which OpenAI has no name.
    """
    if style == "ours":
        return dict(state)
    theirs = _transposed(state)
    for name, array in state.items():
        bias = name.removesuffix("weight") + "bias"
        if name.endswith("attn.c_attn.weight") and bias not in state:
            theirs[bias] = np.zeros(len(array), array.dtype)
    if style == "huggingface":
        return theirs
    if "lm_head.weight" in theirs:
        raise ValueError("OpenAI's form has no lm_head.weight, an output head that is not wte: choose another form")
    return {_to_openai(name): array[None] if _LINEAR.fullmatch(name) else array for name, array in theirs.items()}


def _renamed(arrays: Mapping[str, Array], rename: Callable[[str], str]) -> dict[str, Array]:
    theirs: dict[str, str] = {}
    for name in arrays:
        other = theirs.setdefault(rename(name), name)
        if other != name:
            raise LoadError(f"two names for one tensor: {show(other)} and {show(name)}")
    return {ours: arrays[name] for ours, name in theirs.items()}


def _transposed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """(out, in) ↔ (in, out) of the linear layers."""
    return {name: a.T if _LINEAR.fullmatch(name) and a.ndim == 2 else a for name, a in arrays.items()}


def _from_openai(name: str) -> str:
    block = _OPENAI_BLOCK.fullmatch(name)
    if block and block[2] in _FROM_BLOCK:
        return f"transformer.h.{block[1]}.{_FROM_BLOCK[block[2]]}"
    return _FROM_OUTSIDE.get(name, name)


def _to_openai(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    return f"model/h{block[1]}/{_IN_BLOCK[block[2]]}" if block else _OUTSIDE[name]
