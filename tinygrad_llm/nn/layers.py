"""The layers of a GPT.

Every layer that draws random numbers takes `rng`, a `Generator`. With `std=None`, weights start as in PyTorch, drawn
from the same stream in the same order. With a number, they start as in GPT-2: N(0, std²), and biases at 0.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn.module import Module, Parameter
from tinygrad_llm.random import Generator, check_generator


class Linear(Module):
    """x Wᵀ + b.

    Args:     in_features, out_features: sizes of the last axis before and after. bias: whether to add b.
              weight: a parameter to share (tie), instead of a new one.
              parts: with std=None, draw the first weights of this many layers of equal size, one layer after another,
              whose outputs stand side by side: queries, keys and values, for example. dtype: float32 or float64.
    Shapes:   weight (out, in), bias (out,); x (..., in) → (..., out).
    Source:   initialization: U(−1/√in, 1/√in) for both, as torch.nn.Linear.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Generator,
        std: float | None = None,
        weight: Parameter | None = None,
        parts: int = 1,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_generator(rng)
        bound = 1 / math.sqrt(in_features) if in_features > 0 else 0.0  # without inputs, the bias starts at 0
        parts = parts if bias and std is None else 1  # without biases in between, all weights are one draw
        weights, biases = [], []
        for _ in range(parts):
            shape = out_features // parts, in_features
            if weight is None:
                first = rng.uniform(-bound, bound, shape, dtype) if std is None else rng.normal(0.0, std, shape, dtype)
                weights.append(first)
            if bias:
                n = shape[0]
                biases.append(rng.uniform(-bound, bound, n, dtype) if std is None else np.zeros(n, dtype))
        self.weight = Parameter(_joined(weights)) if weight is None else weight
        self.bias: Parameter | None = Parameter(_joined(biases)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Embedding(Module):
    """A row of `weight` for each id.

    Shapes:   weight (num_embeddings, embedding_dim); ids (...) → (..., embedding_dim).
    Source:   initialization: N(0, 1) (or N(0, std²)), as torch.nn.Embedding.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        rng: Generator,
        std: float = 1.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.weight = Parameter(check_generator(rng).normal(0.0, std, (num_embeddings, embedding_dim), dtype))

    def forward(self, ids: Tensor | Array) -> Tensor:
        return F.embedding(ids, self.weight)


class LayerNorm(Module):
    """Normalize each row to mean 0 and variance 1, then scale and shift it: see `functional.layer_norm`.

    Shapes:   weight and bias (size,), starting at 1 and 0; x (..., size) → the same.
    """

    def __init__(self, size: int, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(size, np.float32))
        self.bias = Parameter(np.zeros(size, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


_others: ContextVar[Mapping[Generator, Generator] | None] = ContextVar("others", default=None)


@contextmanager
def drawing_from(others: Mapping[Generator, Generator]) -> Iterator[None]:
    """Inside the block and in this thread, a Dropout whose generator is a key of `others` draws from the value instead.

    So threads that share a model each have a stream of their own.
    """
    token = _others.set(others)
    try:
        yield
    finally:
        _others.reset(token)


class Dropout(Module):
    """While training, drop each element with probability p: see `functional.dropout`."""

    def __init__(self, p: float = 0.5, *, rng: Generator) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: got p={p}, which must lie in [0, 1]")
        self.p = p
        self.rng = rng

    @property
    def rng(self) -> Generator:
        """The generator that draws the masks: its own, or inside `drawing_from` another."""
        return (_others.get() or {}).get(self._rng, self._rng)

    @rng.setter
    def rng(self, rng: Generator) -> None:
        self._rng = check_generator(rng)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, self.rng)


class GELU(Module):
    """GPT-2's activation, or with approximate="none" the erf form: see `functional.gelu`."""

    def __init__(self, approximate: str = "tanh") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, self.approximate)


class ReLU(Module):
    """max(x, 0): see `functional.relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class RMSNorm(Module):
    """Divide each row by the root of its mean square, then scale it: see `functional.rms_norm`.

    Shapes:   weight (size,), starting at 1; x (..., size) → the same.
    """

    def __init__(self, size: int, eps: float | None = None) -> None:
        self.weight = Parameter(np.ones(size, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class ModuleList(Module):
    """Modules in a list, whose names are their numbers, as torch.nn.ModuleList."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} holds Modules, got {type(module).__name__}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[Module]:
        return (x for name, x in vars(self).items() if name.isdecimal())

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]


class Sequential(ModuleList):
    """Modules one after another: each gets the output of the one before, as torch.nn.Sequential."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x
