"""LoRA: a frozen linear layer, and a small trained one beside it; and the same for the rows of an embedding.

    y = x Wᵀ + b + (alpha / rank) · x Aᵀ Bᵀ        y = W[ids] + (alpha / rank) · B[ids] A

W (out, in) stays as it is. A (rank, in) and B (out, rank) are trained: rank · (in + out) numbers instead of in · out.
B starts at zero, so a model computes the same with new adapters as without them, bit for bit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn.layers import Dropout, Embedding, Linear
from tinygrad_llm.nn.module import Module, Parameter
from tinygrad_llm.random import Generator

_PARTS = {"c_attn": 3}  # queries, keys and values: three projections in one layer


class LoRA(NamedTuple):
    """The sizes of an adapter: see `LoRALinear`."""

    rank: int
    alpha: float
    dropout: float = 0.0
    parts: int = 1


class LoRALinear(Module):
    """A frozen `Linear` with a trained adapter of low rank.

    Args:     base_layer: the layer to adapt; its parameters are frozen. rank: columns of B. alpha: the adapter's
              output is scaled by alpha / rank. dropout: of the adapter's input.
              parts: number of adapters that share the layer, each for an equal part of its outputs. `c_attn` of a GPT
              computes queries, keys and values, and with parts=3 each of them has its own A and B.
    Shapes:   x (..., in) → (..., out). lora_A.weight (parts · rank, in); lora_B[i].weight (out / parts, rank).
    Raises:   ValueError: rank below 1; parts that do not divide the outputs.
    Source:   Hu et al. 2021, arXiv:2106.09685. A starts as in `Linear`, B at zero, as in `peft`.
    """

    adapts: type[Linear | Embedding] = Linear

    def __init__(
        self,
        base_layer: Linear | Embedding,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        parts: int = 1,
        *,
        rng: Generator,
    ) -> None:
        out, into = base_layer.weight.shape
        if type(rank) is not int or rank < 1:
            raise ValueError(f"LoRA: rank must be an integer ≥ 1, got {rank!r}")
        if not 0 < alpha < float("inf"):
            raise ValueError(f"LoRA: alpha must be finite and above 0, got {alpha!r}")
        if out % parts:
            raise ValueError(f"LoRA: {parts} parts do not divide {out} outputs")
        self.base_layer = base_layer
        dtype = base_layer.weight.dtype
        zeros = (np.zeros((out // parts, rank), dtype) for _ in range(parts))
        self.lora_A = Linear(into, parts * rank, bias=False, rng=rng).to(dtype)
        self.lora_B = [Linear(rank, len(B), bias=False, rng=rng, weight=Parameter(B)) for B in zeros]
        self.lora_dropout = Dropout(dropout, rng=rng)
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        # While merged: the arrays that the sum was made from, and the sum. The weight itself stays as it is, so a state
        # that is saved then does not hold the adapter twice.
        self._merged: tuple[list[Array], Array] | None = None
        for p in base_layer.parameters():
            p.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return F.linear(x, Tensor(self.merged_weight()), self.base_layer.bias)  # type: ignore[union-attr]
        y: Tensor = self.base_layer(x)
        low = self.lora_A(self.lora_dropout(x)).chunk(len(self.lora_B), -1)  # (..., rank) for each part
        pieces = [up(part) for up, part in zip(self.lora_B, low, strict=True)]
        return y + (pieces[0] if len(pieces) == 1 else F.cat(pieces, -1)) * self.scaling

    @property
    def merged(self) -> bool:
        """Whether the layer computes with the sum of weight and adapter now."""
        return self._merged is not None

    def delta(self) -> Array:
        """The change of the weight that the adapter makes: (alpha / rank) · B A, (out, in)."""
        return _delta(self.lora_A.weight.data, [up.weight.data for up in self.lora_B], self.scaling)

    def merged_weight(self) -> Array:
        """The sum of weight and adapter, (out, in). While merged, it is made again only if other arrays were loaded.

        Raises:   ValueError: the base layer has a forward of its own.
        """
        if type(self.base_layer).forward is not self.adapts.forward:
            raise ValueError(f"LoRA: {type(self.base_layer).__name__} has a forward of its own: it cannot be merged")
        if self._merged is None:
            return np.asarray(self.base_layer.weight.data + self.delta())
        now = self._arrays()
        if any(array is not other for array, other in zip(self._merged[0], now, strict=True)):
            self._merged = now, now[0] + self.delta()
        return self._merged[1]

    def _arrays(self) -> list[Array]:
        return [self.base_layer.weight.data, self.lora_A.weight.data, *(up.weight.data for up in self.lora_B)]

    def merge(self) -> None:
        """Compute with the sum of weight and adapter: the layer then costs as much as without an adapter.

        Parameters and `state_dict` stay as they are. What is written into their arrays has no effect until `unmerge`.
        Raises:   ValueError: as `merged_weight`.
        """
        if not self.merged:
            self._merged = self._arrays(), self.merged_weight()

    def unmerge(self) -> None:
        """Undo `merge`."""
        self._merged = None


class LoRAEmbedding(LoRALinear):
    """A frozen `Embedding` with a trained adapter of low rank: the row of each id moves in `rank` common directions.

    Args:     as `LoRALinear`; dropout has no effect.
    Shapes:   weight (num_embeddings, embedding_dim) as (out, in): lora_A.weight (rank, embedding_dim), the directions;
              lora_B[0].weight (num_embeddings, rank), how far each row moves in them.
    Source:   `peft` names them the other way round: lora_embedding_B = Aᵀ, and lora_embedding_A = Bᵀ, which is zero.
    """

    adapts = Embedding

    @property
    def weight(self) -> Tensor:
        """All rows, (num_embeddings, embedding_dim), for a model that reads the weight itself."""
        if self.merged:
            return Tensor(self.merged_weight())
        return self.base_layer.weight + self.lora_B[0].weight @ self.lora_A.weight * self.scaling

    def forward(self, ids: Tensor | Array) -> Tensor:
        if self.merged:
            return F.embedding(ids, Tensor(self.merged_weight()))
        y: Tensor = self.base_layer(ids)
        return y + F.embedding(ids, self.lora_B[0].weight) @ self.lora_A.weight * self.scaling


def _delta(A: Array, Bs: Sequence[Array], scaling: float) -> Array:
    """scaling · B A for each part, one below the other."""
    product = np.concatenate([B @ down for B, down in zip(Bs, np.split(A, len(Bs)), strict=True)])
    return np.asarray(product * scaling, product.dtype)


def add_lora(
    model: Module,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    *,
    rng: Generator,
    joint: bool = False,
    embeddings: int = 0,
) -> list[str]:
    """Freeze a model, and put an adapter beside its linear layers, in place.

    Args:     rank, alpha, dropout: see `LoRALinear`. targets: names of layers, whole ("transformer.h.0.attn.c_attn")
              or their ends ("c_attn", "wte"); None: every `Linear`, except a head that is tied to the token embedding.
              joint: one adapter for queries, keys and values together, as `peft` has, instead of one for each.
              embeddings: rank of the adapters of embeddings, scaled as the others are. Unless it is 0, every
              `Embedding` that is not tied to the head has one, even without targets.
    Returns:  the names of the adapted layers.
    Raises:   ValueError: a name fits no Linear and no Embedding; a tied layer, whose merged adapter would change the
              other one too; a model that has adapters.
    """
    if any(True for _ in lora_layers(model)):
        raise ValueError("the model has LoRA adapters already: merge them first (merge_lora)")
    layers = _adaptable(model)
    weights = [id(layer.weight) for _, _, layer in layers.values()]
    tied = {name for name, (_, _, layer) in layers.items() if weights.count(id(layer.weight)) > 1}
    if targets is None:
        chosen = [name for name, (_, _, layer) in layers.items() if embeddings or isinstance(layer, Linear)]
    else:
        chosen = [name for name in layers if any(_fits(name, t) for t in targets)]
    wrong = [t for t in targets or () if not any(_fits(name, t) for name in layers)]
    if wrong or not chosen:
        ends = sorted({name.rpartition(".")[2] for name in layers})
        raise ValueError(f"LoRA: the model has no layer {', '.join(wrong)} to adapt: it has {', '.join(ends)}")
    if targets is not None and tied & set(chosen):
        raise ValueError(
            f"LoRA: {', '.join(sorted(tied & set(chosen)))} shares its weight with another layer, which a merged "
            "adapter would change too: leave it out"
        )
    adapters = {}
    for name in chosen:
        parts = 1 if joint else _PARTS.get(name.rpartition(".")[2], 1)
        own = embeddings if embeddings and isinstance(layers[name][2], Embedding) else rank
        if name not in tied:
            adapters[name] = LoRA(own, alpha * own / rank if own != rank else alpha, dropout, parts)
    adapt(model, adapters, rng=rng)
    return list(adapters)


def adapt(model: Module, adapters: Mapping[str, LoRA], *, rng: Generator) -> None:
    """Freeze a model, and put an adapter beside each of the layers that are named, in place.

    Raises:   ValueError: a name is no Linear and no Embedding of the model; as `LoRALinear`. Nothing is changed then.
    """
    layers = _adaptable(model)
    unknown = [name for name in adapters if name not in layers]
    if unknown:
        raise ValueError(f"LoRA: the model has no layer {', '.join(unknown)} to adapt")
    new: dict[str, LoRALinear] = {}
    for name, one in adapters.items():
        base = layers[name][2]
        new[name] = (LoRALinear if isinstance(base, Linear) else LoRAEmbedding)(base, *one, rng=rng)
    for p in model.parameters():
        p.requires_grad = False
    for name, layer in new.items():
        owner, key, _ = layers[name]
        _put(owner, key, layer)


def lora_layers(model: Module) -> Iterator[tuple[str, LoRALinear]]:
    """(name, layer) of every adapted layer."""
    for name, _, _, module in _children(model, ""):
        if isinstance(module, LoRALinear):
            yield name, module


def merge_lora(model: Module) -> None:
    """Add every adapter to its weight and remove it, in place: a plain model, with the same outputs up to rounding.

    All parameters require a gradient then.
    """
    for _, owner, attribute, module in list(_children(model, "")):
        if isinstance(module, LoRALinear):
            module.base_layer.weight.data = module.merged_weight()
            _put(owner, attribute, module.base_layer)
    for p in model.parameters():
        p.requires_grad = True


def merged_state(state: Mapping[str, Array], scalings: Mapping[str, float]) -> dict[str, Array]:
    """The `state_dict` of a model with adapters, as that of the model after `merge_lora`.

    Args:     scalings: alpha / rank of each adapted layer, by its name.
    Raises:   KeyError, TypeError, ValueError: the arrays of a layer are not there, or do not fit each other.
    """
    merged = dict(state)
    for name, scaling in scalings.items():
        Bs: list[Array] = []
        while (part := f"{name}.lora_B.{len(Bs)}.weight") in merged:
            Bs.append(merged.pop(part))
        delta = _delta(merged.pop(f"{name}.lora_A.weight"), Bs, scaling)
        weight = merged.pop(f"{name}.base_layer.weight")
        if weight.shape != delta.shape:
            raise ValueError(f"{name}: got an adapter for a weight {delta.shape}, and the weight is {weight.shape}")
        merged[f"{name}.weight"] = weight + delta
        if f"{name}.base_layer.bias" in merged:
            merged[f"{name}.bias"] = merged.pop(f"{name}.base_layer.bias")
    return merged


def _adaptable(model: Module) -> dict[str, tuple[object, str, Linear | Embedding]]:
    """name → (owner, attribute, layer) of every layer that may get an adapter."""
    found = _children(model, "")
    return {name: (owner, key, layer) for name, owner, key, layer in found if isinstance(layer, Linear | Embedding)}


def _children(owner: object, path: str) -> Iterator[tuple[str, object, str, Module]]:
    """(name, owner, attribute, Module) of every Module inside; the owner is a Module, a list or a dict."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(owner, Module | dict):
        items = vars(owner).items() if isinstance(owner, Module) else owner.items()
    elif isinstance(owner, list | tuple):
        items = enumerate(owner)
    for key, item in items:
        name = f"{path}.{key}" if path else str(key)
        if isinstance(item, Module):
            yield name, owner, str(key), item
        if not isinstance(item, LoRALinear):
            yield from _children(item, name)


def _put(owner: object, attribute: str, module: Module) -> None:
    if isinstance(owner, Module):
        setattr(owner, attribute, module)
    elif isinstance(owner, list):
        owner[int(attribute)] = module
    elif isinstance(owner, dict):
        owner[attribute] = module
    else:
        raise ValueError(f"LoRA: a layer in a tuple cannot be replaced: use a list (nn.ModuleList), layer {attribute}")


def _fits(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)
