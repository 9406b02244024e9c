"""The table of cases: everything whose gradient is proven, with inputs to prove it on. This file holds the kernels.

`model_cases.py` holds functions, layers, models and optimizers. `tinygrad-llm gradcheck` and pytest both run the table.
A kernel, function, layer or optimizer without a case is an error (`ledger.uncovered`), so none can be added unproven.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply
from tinygrad_llm.gradcheck.checkers import gradcheck
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.result import GradcheckResult
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator

Problem = tuple[Callable[..., Tensor], list[Any], list[str]]  # fn, inputs, their names
Draw = Callable[[Generator], Array]

# Memory layouts of the inputs: a function that stores an array, and a view of it that restores the array's values. The
# kernel gets the view.
LAYOUTS: dict[str, tuple[Callable[[Array], Array], Callable[[Tensor], Tensor]]] = {
    "C order": (lambda x: x, lambda t: t),
    "F order": (lambda x: x.T.copy(), lambda t: t.T),
    "negative strides": (lambda x: np.flip(x).copy(), lambda t: t[(slice(None, None, -1),) * t.ndim]),
    "every other element": (
        lambda x: np.repeat(x, 2, axis=-1) if x.ndim else x,
        lambda t: t[..., ::2] if t.ndim else t,
    ),
}


@dataclass(frozen=True)
class Call:
    """A kernel on drawn inputs, with options. `mutants` replaces the kernel by a wrong one."""

    kernel: K.Kernel
    draws: tuple[Draw, ...]
    options: dict[str, Any]
    layout: str = "C order"

    def arrays(self, rng: Generator) -> list[Array]:
        return [draw(rng) for draw in self.draws]

    def __call__(self, rng: Generator) -> Problem:
        store, show = LAYOUTS[self.layout]

        def fn(*inputs: Any) -> Tensor:
            seen = [show(x) if isinstance(x, Tensor) else show(Tensor(x)).data for x in inputs]
            y = apply(self.kernel, *seen, **self.options)
            return y if self.layout == "C order" else y.T  # y.T passes a transposed gradient to the kernel

        fn.__name__ = self.kernel.__name__
        return fn, [store(x) for x in self.arrays(rng)], [f"input {i}" for i in range(len(self.draws))]


@dataclass(frozen=True)
class Case:
    """One gradient to prove: `make` draws the inputs, and returns them with the function."""

    group: str  # kernels, functions, layers and models, optimizers
    covers: str  # the kernel, function, layer or optimizer
    label: str
    make: Callable[[Generator], Any]  # a Problem, unless `check` says otherwise
    method: str = "complex"

    @property
    def name(self) -> str:
        return f"{self.covers} {self.label}".strip()

    def check(self, seed: int = 0) -> GradcheckResult:
        """Draw the inputs and `prove` the gradient."""
        fn, inputs, names = self.make(Generator(seed))
        return self.prove(fn, inputs, names, seed=seed + 1)

    def prove(
        self, fn: Callable[..., Any], inputs: Sequence[Any], names: Sequence[str], **options: Any
    ) -> GradcheckResult:
        """Check the gradient of fn by the method of this case, which must be the one that decides.

        Args:     fn, inputs, names, options: as for `gradcheck`.
        Returns:  the result, which is false if the gradient is wrong.
        Raises:   GradcheckError: the gradient cannot be checked; or fn is not analytic, and the method needs that.
        """
        result = gradcheck(fn, inputs, self.method, names=names, raise_exception=False, **options)
        if result.note:
            raise GradcheckError(result.note)
        return result

    def by(self, method: str) -> "Case":
        """The same case by another method."""
        return dataclasses.replace(self, label=f"{self.label} by {method}".strip(), method=method)


# ---- inputs ----------------------------------------------------------------------------------------------------


def normal(*shape: int) -> Draw:
    return lambda rng: rng.randn(shape, np.float64)


def positive(*shape: int) -> Draw:
    return lambda rng: rng.uniform(0.5, 2.0, shape, np.float64)


def apart(*shape: int) -> Draw:
    """Numbers at least 0.6 apart and 0.3 away from 0: no kink lies within ten steps (0.2) of the differences."""

    def draw(rng: Generator) -> Array:
        n = int(np.prod(shape))
        x: Array = ((rng.randperm(n) - n // 2 + 0.5) * 0.8 + rng.uniform(-0.1, 0.1, (n,), np.float64)).reshape(shape)
        return x

    return draw


def ids(high: int, *shape: int) -> Draw:
    return lambda rng: rng.randint(0, high, shape)


def fixed(array: Any) -> Draw:
    return lambda rng: np.asarray(array)


def mask(*shape: int) -> Draw:
    return lambda rng: rng.rand(shape) < 0.6


def raised(draw: Draw, *channels: tuple[int, float]) -> Draw:
    """Draw, then add a number to each of these channels: the products of two such rows are large and nearly equal."""

    def drawn(rng: Generator) -> Array:
        x = draw(rng)
        for channel, by in channels:
            x[..., channel] += by
        return x

    return drawn


# ---- kernels ---------------------------------------------------------------------------------------------------


def _kernel(kernel: K.Kernel, label: str, *draws: Draw, method: str = "complex", **options: Any) -> Case:
    return Case("kernels", kernel.__name__, label, Call(kernel, draws, options), method)


# Every way in which two shapes broadcast: an axis of length 1 on either side or on both, missing axes, no axes.
BROADCAST_PAIRS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3), (2, 3)),
    ((), (1,)),
    ((), (2,)),
    ((2,), (1,)),
    ((2,), (2, 1)),
    ((2,), (1, 2)),
    ((2,), (3, 2)),
    ((2,), (1, 3, 2)),
    ((3, 2), (1, 3, 2)),
    ((3, 2), (3, 1, 2)),
    ((), (2, 3, 2)),
    ((1, 3, 2), (3, 1, 2)),
]


def _binary(kernel: K.Kernel, draw: Callable[..., Draw]) -> list[Case]:
    return [_kernel(kernel, f"{a} {b}", draw(*a), draw(*b)) for a, b in BROADCAST_PAIRS]


def _shifted(draw: Draw) -> Draw:
    """Numbers that are 0.4 away from those of `draw`, so that no two of them are equal."""
    return lambda rng: draw(rng) + 0.4


def basic_cases() -> list[Case]:
    """Each kernel on each kind of input it takes: every (kernel, options, inputs) once, by its sharpest method.

    The first case of a kernel is the one with all its inputs.
    """
    plain = [K.negative, K.exp, K.tanh, K.erf, K.softplus, K.sigmoid, K.gelu]
    kinked = [K.relu, K.absolute]
    reduced: list[tuple[str, dict[str, Any]]] = [
        ("all", {}),
        ("axis 0", {"axis": 0}),
        ("axis −1, keepdims", {"axis": -1, "keepdims": True}),
        ("axes (0, 2)", {"axis": (0, 2)}),
        ("axis 1 of three", {"axis": 1}),
    ]
    return [
        *(case for kernel in (K.add, K.subtract, K.multiply) for case in _binary(kernel, normal)),
        *(case for kernel in (K.divide, K.power) for case in _binary(kernel, positive)),
        _kernel(K.power, "integer exponents", normal(2, 3), fixed(np.array([2, 3, 0]))),
        *(_kernel(kernel, "", normal(3, 4)) for kernel in plain),
        *(_kernel(kernel, "", positive(3, 4)) for kernel in (K.log, K.sqrt)),
        *(_kernel(kernel, "", apart(3, 4), method="richardson") for kernel in kinked),
        *(_kernel(K.maximum, f"{a} {b}", apart(*a), _shifted(apart(*b)), method="richardson")
          for a, b in BROADCAST_PAIRS),
        _kernel(K.maximum, "lower", apart(3, 4), _shifted(apart(4)), method="richardson", lower=True),
        *(_kernel(K.where, f"{a} {b}", mask(*np.broadcast_shapes(a, b)), normal(*a), normal(*b))
          for a, b in BROADCAST_PAIRS),
        _kernel(K.where, "mask (4,)", mask(4), normal(3, 4), normal()),
        *(_kernel(kernel, label, normal(2, 3, 4), **o) for kernel in (K.sum, K.mean, K.logsumexp, K.var, K.norm)
          for label, o in reduced),
        _kernel(K.var, "ddof 1", normal(5), ddof=1),
        *(_kernel(K.max, label, apart(2, 3, 4), method="richardson", **o) for label, o in reduced),
        _kernel(K.max, "lowest", apart(3, 4), method="richardson", axis=0, lowest=True),
        *(_kernel(K.cumsum, f"axis {axis}", normal(3, 4), axis=axis) for axis in (-1, 0)),
        *(_kernel(kernel, f"axis {axis}", normal(3, 4), axis=axis) for kernel in (K.softmax, K.log_softmax)
          for axis in (-1, 0)),
        _kernel(K.reshape, "", normal(3, 4), shape=(2, 6)),
        _kernel(K.transpose, "reversed", normal(2, 3, 4)),
        _kernel(K.transpose, "axes (1, −1, 0)", normal(2, 3, 4), axes=(1, -1, 0)),
        _kernel(K.broadcast_to, "", normal(3, 1), shape=(2, 3, 4)),
        _kernel(K.getitem, "slices", normal(5, 4), index=(slice(None, None, -2), 1)),
        _kernel(K.getitem, "None and …", normal(3, 4), index=(None, Ellipsis, slice(1, 3))),
        _kernel(K.getitem, "repeated integers", normal(5, 3), index=np.array([[0, 4, 4], [2, 0, -1]])),
        _kernel(K.getitem, "pairs", normal(5, 3), index=(np.array([0, 1, 1]), np.array([2, 0, 0]))),
        _kernel(K.getitem, "mask", normal(3, 2), index=np.array([True, False, True])),
        _kernel(K.concatenate, "axis 0", normal(2, 3), normal(1, 3), normal(3, 3)),
        _kernel(K.concatenate, "axis −1", normal(2, 3), normal(2, 1), axis=-1),
        _kernel(K.stack, "axis 0", normal(2, 3), normal(2, 3)),
        _kernel(K.stack, "axis −1", normal(2, 3), normal(2, 3), axis=-1),
        *(_kernel(K.matmul, f"{a} {b}", normal(*a), normal(*b)) for a, b in _MATMUL),
        *(_kernel(K.einsum, subscripts, *(normal(*s) for s in shapes), subscripts=subscripts)
          for subscripts, shapes in _EINSUM),
        _kernel(K.linear, "", normal(2, 3, 4), normal(5, 4), normal(5)),
        _kernel(K.linear, "no bias", normal(4), normal(5, 4)),
        _kernel(K.embedding, "repeated ids", normal(5, 3), ids(5, 4, 2)),
        _kernel(K.embedding, "one id", normal(5, 3), fixed(np.array(2))),
        _kernel(K.embedding, "sparse", normal(5, 3), ids(5, 4, 2), sparse=True),
        _kernel(K.rotary, "", normal(2, 3, 4), fixed(np.arange(3))),
        _kernel(K.rotary, "positions of each row", normal(2, 3, 2, 6), fixed([[[5], [6], [12]], [[9], [0], [1]]])),
        _kernel(K.rotary, "base 7, one position", normal(6), fixed(np.array(70000)), base=7.0),
        _kernel(K.layer_norm, "", normal(2, 3, 5), normal(5), normal(5)),
        _kernel(K.layer_norm, "no bias", normal(4, 5), normal(5)),
        _kernel(K.layer_norm, "bare, large eps", normal(4, 5), eps=0.3),
        _kernel(K.dropout, "p 0.4", normal(3, 4), mask(3, 4), p=0.4),
        _kernel(K.dropout, "p 0.5", normal(3, 4), mask(3, 4), p=0.5),
        _kernel(K.dropout, "p 1", normal(3, 4), fixed(np.zeros((3, 4), bool)), p=1.0),
        _kernel(K.attention, "additive mask, dropout", *_QKV, normal(2, 1, 3, 5), mask(2, 2, 3, 5), p=0.3),
        _kernel(K.attention, "no mask", *_QKV),
        _kernel(K.attention, "no mask, dropout", *_QKV, fixed(True), mask(2, 2, 3, 5), p=0.3),
        _kernel(K.attention, "boolean mask", *_QKV, mask(3, 5)),
        _kernel(K.attention, "padded keys", *_QKV, fixed([[[[True, True, True, False, False]]], [[[True] * 5]]])),
        _kernel(K.attention, "a query without keys", *_QKV, fixed([[True] * 5, [False] * 5, [False] * 3 + [True] * 2])),
        _kernel(K.attention, "additive mask (5,)", *_QKV, normal(5)),
        _kernel(K.attention, "leading axes that broadcast", normal(2, 1, 3, 4), normal(3, 5, 4), normal(1, 5, 2)),
        _kernel(K.attention, "large scores", raised(normal(2, 5, 3), (2, 3.0)), raised(normal(2, 5, 3), (2, 25.0)),
                normal(2, 5, 3)),
        _kernel(K.causal_attention, "", normal(2, 2, 4, 3), normal(2, 2, 4, 3), normal(2, 2, 4, 3)),
        _kernel(K.causal_attention, "2 queries, 5 keys", normal(2, 2, 3), normal(2, 5, 3), normal(2, 5, 3)),
        _kernel(K.causal_attention, "dropout", *(normal(2, 4, 3),) * 3, mask(2, 4, 4), p=0.3),
        _kernel(K.causal_attention, "head by head", *(normal(2, 2, 4, 3),) * 3, part=1),
        _kernel(K.causal_attention, "dropout, two rows at a time", *(normal(3, 4, 3),) * 3, mask(3, 4, 4), p=0.3,
                part=32),
        *(_kernel(K.causal_attention, label, *(normal(2, 5, 3),) * 3, **o) for label, o in _BLOCKS),
        *(_kernel(K.causal_attention, f"3 queries, 6 keys, {label}", normal(2, 3, 3), *(normal(2, 6, 3),) * 2, **o)
          for label, o in _BLOCKS),
        *(_kernel(K.causal_attention, f"dropout, {label}", *(normal(2, 5, 3),) * 3, mask(2, 5, 5), p=0.3, **o)
          for label, o in _BLOCKS),
        *(_kernel(K.causal_attention, f"large scores, {label}", raised(normal(2, 5, 3), (2, 3.0)),
                  raised(normal(2, 5, 3), (2, 25.0)), normal(2, 5, 3), **o) for label, o in _BLOCKS),
        _kernel(K.causal_self_attention, "", normal(2, 4, 18), n_head=3),
        _kernel(K.causal_self_attention, "dropout", normal(2, 4, 12), mask(2, 2, 4, 4), n_head=2, p=0.3),
        _kernel(K.causal_self_attention, "dropout, head by head", normal(2, 4, 12), mask(2, 2, 4, 4), n_head=2, p=0.3,
                part=1),
        *(_kernel(K.causal_self_attention, label, normal(2, 5, 12), n_head=2, **o) for label, o in _BLOCKS),
        *(_kernel(K.causal_self_attention, f"dropout, {label}", normal(2, 5, 12), mask(2, 2, 5, 5), n_head=2, p=0.3,
                  **o) for label, o in _BLOCKS),
        *(_kernel(K.causal_self_attention, f"large scores, {label}", raised(normal(2, 5, 9), (2, 3.0), (5, 25.0)),
                  n_head=1, **o) for label, o in _BLOCKS),
        *(_kernel(K.cross_entropy, reduction, normal(5, 7), ids(7, 5), reduction=reduction)
          for reduction in ("mean", "sum", "none")),
        _kernel(K.cross_entropy, "ignore_index", normal(4, 5), fixed(np.array([3, -100, 0, -100]))),
        _kernel(K.cross_entropy, "ignore_index 2", normal(4, 5), fixed(np.array([3, 2, 0, 2])), ignore_index=2),
        *(_kernel(K.cross_entropy, f"{reduction}, label_smoothing {s}", normal(4, 5),
                  fixed(np.array([3, -100, 0, -100])), reduction=reduction, label_smoothing=s)
          for reduction, s in (("mean", 0.1), ("sum", 1.0), ("none", 0.3))),
        _kernel(K.linear_cross_entropy, "", normal(5, 4), normal(7, 4), ids(7, 5)),
        *(_kernel(K.linear_cross_entropy, label, normal(5, 4), normal(7, 4), fixed(np.array([3, -100, 0, 6, -100])),
                  **o) for label, o in _HEADS),
        _kernel(K.linear_cross_entropy, "ignore_index 2, all options", normal(4, 3), normal(5, 3),
                fixed(np.array([3, 2, 0, 2])), ignore_index=2, label_smoothing=0.3, count=3, chunk=8,
                tile=2),
        _kernel(K.linear_cross_entropy, "logits 1000 above the target's, tile 3", raised(normal(5, 4), (3, 40.0)),
                lambda rng: normal(7, 4)(rng) + [[25.0 * (i == 5)] * 4 for i in range(7)],
                fixed(np.array([3, 0, -100, 6, 5])), tile=3),
        _kernel(K.linear_cross_entropy, "large logits", *_LARGE, ids(7, 5)),
        _kernel(K.linear_cross_entropy, "large logits, label_smoothing 0.2, chunk 14", *_LARGE, ids(7, 5),
                label_smoothing=0.2, chunk=14),
    ]  # fmt: skip


# Three queries, five keys, and values of another size.
_QKV = normal(2, 2, 3, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 2)

# Five queries in blocks of two: the last block holds one.
_BLOCKS: list[tuple[str, dict[str, Any]]] = [
    ("block 2", {"block": 2}),
    ("block 2, recompute", {"block": 2, "recompute": True}),
]

_LARGE = raised(normal(5, 4), (3, 2.0)), raised(normal(7, 4), (3, 25.0))

# A chunk of 14 holds two rows of seven logits: five rows come in chunks of one, two and two.
_HEADS: list[tuple[str, dict[str, Any]]] = [
    ("ignore_index", {}),
    ("chunk 14", {"chunk": 14}),
    ("count 9", {"count": 9}),
    ("label_smoothing 0.1", {"label_smoothing": 0.1}),
    ("label_smoothing 1.0", {"label_smoothing": 1.0}),
]


_MATMUL: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
]

_EINSUM: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("bij,bkj", [(2, 3, 4), (2, 5, 4)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iij->j", [(3, 3, 2)]),
    ("ij->", [(2, 3)]),
    ("i,j,k->kij", [(2,), (3,), (4,)]),
    ("...ij,...jk->...ik", [(2, 1, 2, 3), (4, 3, 2)]),
    ("i...->...", [(3, 2, 2)]),
    ("ij,ij,j->i", [(2, 3), (1, 3), (3,)]),
]

_LINEAR = ["add", "subtract", "multiply", "negative", "where", "sum", "cumsum", "reshape", "transpose", "broadcast_to",
           "getitem", "concatenate", "stack", "matmul", "linear", "einsum", "embedding"]  # fmt: skip


def exact(case: Case) -> bool:
    """Whether the adjoint identity must hold with ==: the kernel is linear in each input, and exact on integers."""
    if case.covers == "mean":
        return case.label in ("axis 0", "axis −1, keepdims", "axes (0, 2)")  # over 2, 4 and 8: dividing is exact
    return case.covers in _LINEAR or case.name == "dropout p 0.5"


def kernel_cases() -> list[Case]:
    """Each basic case by its sharpest method, by the adjoint identity and in float32; the first in every layout."""
    cases = basic_cases()
    first = {case.covers: case for case in reversed(cases)}
    everything = [
        *cases,
        *(case.by("adjoint") for case in cases if exact(case)),
        *(case.by("float32") for case in cases),
        *(_laid_out(case, layout) for case in first.values() for layout in LAYOUTS if layout != "C order"),
    ]
    return sorted(everything, key=lambda case: list(K.KERNELS).index(case.covers))


def _laid_out(case: Case, layout: str) -> Case:
    assert isinstance(case.make, Call)
    make = dataclasses.replace(case.make, layout=layout)
    return dataclasses.replace(case, label=f"{case.label} {layout}".strip(), make=make)
