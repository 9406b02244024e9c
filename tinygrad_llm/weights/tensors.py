"""Checks that the tensors of a file are the parameters of a model, and their conversion to one dtype."""

import textwrap
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.files import LoadError, show
from tinygrad_llm.weights.find import CONFIG

HEAD, WTE, WPE = "lm_head.weight", "transformer.wte.weight", "transformer.wpe.weight"


class Config(Protocol):
    """The sizes of a model: a dataclass such as `GPTConfig`, which also lists the parameters without making a model."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    published: ClassVar[Mapping[str, Any]]  # the sizes of models that others published, by name

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]: ...


def check_tensors(file: Path, source: str, config: Config, state: Mapping[str, Array]) -> None:
    """Check that every tensor of the config is there, holds floats of the right shape, and that there are no others.

    Args:     file, source: the weights, and what states the sizes, for the message. state: arrays by our names.
    Raises:   LoadError: lists all that do not fit.
    """
    most = 2 * len(state) + 40  # a damaged config may ask for any number of tensors: they are not listed
    asked = dict(islice(config.shapes(), most + 1))
    if len(asked) > most:
        raise LoadError(f"{file}: {len(state)} tensors are too few for {source}, which asks for more than {most}")
    wrong = [f"missing {name} {shape}" for name, shape in asked.items() if name not in state]
    for name, array in state.items():
        if name not in asked:
            wrong.append(f"unexpected {show(name)[1:-1]} {array.shape}")
        elif array.shape != asked[name]:
            wrong.append(f"{name} has shape {array.shape}, and not {asked[name]}")
        elif array.dtype.kind != "f":
            wrong.append(f"{name} holds {array.dtype}, and weights are floats")
    if source.endswith(CONFIG) and [name for name in asked if name not in state] == [HEAD]:
        wrong.append("a base model? Save it with its head, as GPT2LMHeadModel does")
    if wrong:
        raise LoadError(f"{file}: the tensors do not fit {source}: {brief('; '.join(wrong), 30_000)}")


def not_finite(state: Mapping[str, Array]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    return [name for name, array in state.items() if not np.isfinite(array).all()]


def drop_tied_head(state: dict[str, Array]) -> None:
    """Remove an output head that is a copy of wte."""
    if HEAD in state and same_bits(state[HEAD], state.get(WTE)):
        del state[HEAD]


def same_bits(one: Array, other: Array | None) -> bool:
    """Return whether two float arrays are equal bit for bit, so that NaN equals itself."""
    if other is None or one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind != "f":
        return False
    bits = f"u{one.itemsize}"
    return np.array_equal(one.view(bits), other.view(bits))


def unify(state: dict[str, Array]) -> None:
    """Make every array contiguous, writable, and of one dtype: float64 if all are, else float32.

    It works array by array and in place, so each original is freed at once.
    """
    dtype = np.float64 if all(array.dtype == np.float64 for array in state.values()) else np.float32
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
        for name, array in state.items():
            if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.writeable:
                state[name] = np.empty(array.shape, dtype)
                for start in range(0, array.shape[-1], 16):  # as many columns of a transposed matrix as the cache holds
                    state[name][..., start : start + 16] = array[..., start : start + 16]


def brief(error: object, width: int = 500) -> str:
    """Return one line of bounded length: names in a file may contain line breaks, and be many."""
    return textwrap.shorten(str(error), width)
