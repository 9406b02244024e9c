"""The table of cases: every kernel and every layer, with inputs to check it on.

`tinygrad-llm gradcheck` and pytest both run this table. A kernel or layer without a case here is an error
(`ledger.uncovered`), so nothing can be added without proof.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm import kernels as K
from tinygrad_llm import models, nn
from tinygrad_llm.autograd import Tensor, apply
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator

Problem = tuple[Callable[..., Tensor], list[Any], list[str]]  # fn, inputs, their names


@dataclass(frozen=True)
class Case:
    """One thing to prove: `make` draws the inputs and gives the function."""

    covers: str  # the kernel or layer
    label: str
    make: Callable[[Generator], Problem]
    method: str = "complex"

    @property
    def name(self) -> str:
        return f"{self.covers} {self.label}".strip()


# ---- inputs ----------------------------------------------------------------------------------------------------


Draw = Callable[[Generator], Array]


def normal(*shape: int) -> Draw:
    return lambda rng: rng.randn(shape, np.float64)


def positive(*shape: int) -> Draw:
    return lambda rng: rng.uniform(0.5, 2.0, shape, np.float64)


def apart(*shape: int) -> Draw:
    """Numbers at least 0.6 from each other and 0.3 from 0: no kink lies within ten steps (0.2) of the differences."""

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


# ---- kernels ---------------------------------------------------------------------------------------------------


def _kernel(kernel: K.Kernel, label: str, *draws: Draw, method: str = "complex", **options: Any) -> Case:
    def make(rng: Generator) -> Problem:
        def fn(*inputs: Any) -> Tensor:
            return apply(kernel, *inputs, **options)

        fn.__name__ = kernel.__name__
        return fn, [draw(rng) for draw in draws], [f"input {i}" for i in range(len(draws))]

    return Case(kernel.__name__, label, make, method)


def _binary(kernel: K.Kernel, draw: Callable[..., Draw], method: str = "complex") -> list[Case]:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((2, 3), (2, 3)),
        ((3, 2), (1, 3, 2)),
        ((3, 2), (3, 1, 2)),
        ((1, 3, 2), (3, 1, 2)),
        ((), (2,)),
        ((2, 1), (2,)),
    ]
    return [_kernel(kernel, f"{a} {b}", draw(*a), draw(*b), method=method) for a, b in shapes]


def _kernel_cases() -> list[Case]:
    plain = [K.negative, K.exp, K.tanh, K.sigmoid, K.gelu]
    kinked = [K.relu, K.absolute]
    reduced: list[tuple[str, dict[str, Any]]] = [
        ("all", {}),
        ("axis 0", {"axis": 0}),
        ("axis −1, keepdims", {"axis": -1, "keepdims": True}),
        ("axes (0, 2)", {"axis": (0, 2)}),
    ]
    return [
        *(case for kernel in (K.add, K.subtract, K.multiply) for case in _binary(kernel, normal)),
        *(case for kernel in (K.divide, K.power) for case in _binary(kernel, positive)),
        _kernel(K.power, "integer exponents", normal(2, 3), fixed(np.array([2, 3, 0]))),
        *(_kernel(kernel, "", normal(3, 4)) for kernel in plain),
        *(_kernel(kernel, "", positive(3, 4)) for kernel in (K.log, K.sqrt)),
        *(_kernel(kernel, "", apart(3, 4), method="richardson") for kernel in kinked),
        _kernel(K.maximum, "", apart(3, 4), lambda rng: apart(3, 4)(rng) + 0.4, method="richardson"),
        _kernel(K.maximum, "broadcast", apart(3, 4), fixed(0.1), method="richardson"),
        _kernel(K.where, "", mask(3, 4), normal(3, 4), normal(4)),
        *(_kernel(kernel, label, normal(2, 3, 4), **o) for kernel in (K.sum, K.mean) for label, o in reduced),
        *(_kernel(kernel, label, normal(2, 3, 4), **o) for kernel in (K.logsumexp, K.var) for label, o in reduced),
        _kernel(K.var, "ddof 1", normal(5), ddof=1),
        *(_kernel(K.max, label, apart(2, 3, 4), method="richardson", **o) for label, o in reduced),
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
        _kernel(K.layer_norm, "", normal(2, 3, 5), normal(5), normal(5)),
        _kernel(K.layer_norm, "no bias", normal(4, 5), normal(5)),
        _kernel(K.layer_norm, "bare, large eps", normal(4, 5), eps=0.3),
        _kernel(K.dropout, "p 0.4", normal(3, 4), mask(3, 4), p=0.4),
        _kernel(K.dropout, "p 1", normal(3, 4), fixed(np.zeros((3, 4), bool)), p=1.0),
        _kernel(K.causal_attention, "", normal(2, 2, 4, 3), normal(2, 2, 4, 3), normal(2, 2, 4, 3)),
        _kernel(K.causal_attention, "2 queries, 5 keys", normal(2, 2, 3), normal(2, 5, 3), normal(2, 5, 3)),
        _kernel(K.causal_attention, "dropout", *(normal(2, 4, 3),) * 3, mask(2, 4, 4), p=0.3),
        _kernel(K.causal_self_attention, "", normal(2, 4, 18), n_head=3),
        _kernel(K.causal_self_attention, "dropout", normal(2, 4, 12), mask(2, 2, 4, 4), n_head=2, p=0.3),
        *(_kernel(K.cross_entropy, reduction, normal(5, 7), ids(7, 5), reduction=reduction)
          for reduction in ("mean", "sum", "none")),
        _kernel(K.cross_entropy, "ignore_index", normal(4, 5), fixed(np.array([3, -100, 0, -100]))),
        _kernel(K.cross_entropy, "ignore_index 2", normal(4, 5), fixed(np.array([3, 2, 0, 2])), ignore_index=2),
    ]  # fmt: skip


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


# ---- layers and models -----------------------------------------------------------------------------------------


def _layer(make: Callable[[Generator], Module], label: str, *draws: Draw) -> Case:
    """A Module on drawn inputs: its float inputs and all its parameters are checked."""
    module_type = type(make(Generator(0)))

    def problem(rng: Generator) -> Problem:
        module = make(rng)
        inputs = [draw(rng) for draw in draws]
        named = dict(module.named_parameters())
        state = rng.get_state()

        def fn(*arguments: Any) -> Tensor:
            rng.set_state(state)  # the same dropout masks at every call
            out: Tensor = module(*arguments[: len(inputs)])
            return out

        fn.__name__ = module_type.__name__
        return fn, [*inputs, *named.values()], [*(f"input {i}" for i in range(len(inputs))), *named]

    return Case(module_type.__name__, label, problem)


def _gpt_loss(label: str, **options: Any) -> Case:
    """The loss of a whole GPT of two layers, in every parameter."""

    def problem(rng: Generator) -> Problem:
        return gpt_problem(_config(**options), rng)

    return Case("GPT", f"loss, {label}", problem)


def gpt_problem(config: models.GPTConfig, rng: Generator) -> Problem:
    """The loss of a GPT on random ids (the last target does not count), as a function of all its parameters.

    The weights are drawn large, N(0, 0.3²), so that no gradient is small enough to hide an error in.
    """
    model = models.GPT(config, rng)
    for p in model.parameters():
        p.data = p.data + rng.normal(0.0, 0.3, p.shape)
    block = rng.randint(0, config.vocab_size, (2, config.block_size + 1))
    inputs, targets = block[:, :-1], block[:, 1:].copy()
    targets[-1, -1] = -100
    named = dict(model.named_parameters())
    state = rng.get_state()

    def gpt_loss(*_: Any) -> Tensor:
        rng.set_state(state)
        return model.loss(inputs, targets)

    return gpt_loss, list(named.values()), list(named)


def _config(**options: Any) -> models.GPTConfig:
    sizes: dict[str, Any] = {"vocab_size": 7, "block_size": 4, "n_layer": 2, "n_head": 2, "n_embd": 4}
    return models.GPTConfig(**(sizes | options))


def _layer_cases() -> list[Case]:
    return [
        _layer(lambda rng: nn.Linear(3, 4, rng=rng), "", normal(2, 3)),
        _layer(lambda rng: nn.Linear(3, 4, bias=False, rng=rng), "no bias", normal(2, 3)),
        _layer(lambda rng: nn.Embedding(5, 3, rng=rng), "", ids(5, 2, 4)),
        _layer(lambda rng: nn.LayerNorm(5), "", normal(3, 5)),
        _layer(lambda rng: nn.Dropout(0.4, rng=rng), "", normal(3, 5)),
        _layer(lambda rng: nn.GELU(), "", normal(3, 5)),
        _layer(lambda rng: nn.SelfAttention(3, 2, rng=rng), "", normal(2, 4, 3)),
        _layer(lambda rng: nn.CausalAttention(3, 2, rng=rng), "", normal(2, 4, 3)),
        _layer(lambda rng: nn.CausalAttention(3, 2, 0.3, True, rng=rng), "dropout, bias", normal(2, 4, 3)),
        _layer(lambda rng: nn.MultiHeadWrapper(4, 2, 2, rng=rng), "", normal(2, 3, 4)),
        _layer(lambda rng: nn.MultiHeadAttention(4, 2, rng=rng), "", normal(2, 3, 4)),
        _layer(lambda rng: nn.MultiHeadAttention(4, 2, 0.3, False, rng=rng), "dropout, no bias", normal(2, 3, 4)),
        _layer(lambda rng: models.MLP(_config(), rng), "", normal(2, 3, 4)),
        _layer(lambda rng: models.Block(_config(), rng), "", normal(2, 3, 4)),
        _layer(lambda rng: models.Block(_config(dropout=0.2), rng), "dropout", normal(2, 3, 4)),
        _layer(lambda rng: models.Transformer(_config(n_layer=1), rng), "", ids(7, 2, 3)),
        _layer(lambda rng: models.GPT(_config(n_layer=1), rng), "logits", ids(7, 2, 3)),
        _gpt_loss("tied"),
        _gpt_loss("untied, no qkv bias", tie_weights=False, qkv_bias=False),
        _gpt_loss("dropout", dropout=0.2, n_layer=1),
    ]


def all_cases() -> list[Case]:
    """The whole table: kernels first, then layers and models."""
    return [*_kernel_cases(), *_layer_cases()]
