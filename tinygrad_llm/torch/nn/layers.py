"""The layers of `torch.nn`: ours, with first weights from the global stream."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from tinygrad_llm import nn
from tinygrad_llm.torch.dtypes import check_device, float32, numpy_of
from tinygrad_llm.torch.missing import refuse
from tinygrad_llm.torch.nn import functional as F
from tinygrad_llm.torch.nn import init
from tinygrad_llm.torch.nn.module import Module
from tinygrad_llm.torch.streams import stream
from tinygrad_llm.torch.tensor import Parameter, Tensor, array_of, constant


def _parameter(p: nn.Parameter | None) -> Parameter | None:
    """PyTorch's words for one of our Parameters, whose memory it takes over."""
    return None if p is None else Parameter(constant(p.data))


class Linear(Module):
    """See `tinygrad_llm.nn.Linear`."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        check_device(device)
        self.in_features, self.out_features = int(in_features), int(out_features)
        made = nn.Linear(
            self.in_features, self.out_features, bool(bias), rng=stream(), dtype=numpy_of(dtype or float32)
        )
        self.weight = _parameter(made.weight)
        self.bias = _parameter(made.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """See `tinygrad_llm.nn.Embedding`."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_device(device)
        self.num_embeddings, self.embedding_dim = int(num_embeddings), int(embedding_dim)
        made = nn.Embedding(self.num_embeddings, self.embedding_dim, rng=stream(), dtype=numpy_of(dtype or float32))
        self.weight = _parameter(made.weight)
        self.padding_idx = padding_idx
        if padding_idx is not None:
            made.weight.data[padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True) -> Self:
        """A layer with given rows, which are not trained unless freeze=False."""
        made = cls(0, embeddings.shape[1])
        made.num_embeddings = len(embeddings)
        made.weight = Parameter(embeddings, requires_grad=not freeze)
        return made

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class LayerNorm(Module):
    """See `tinygrad_llm.functional.layer_norm`."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        from tinygrad_llm.torch.functions import ones, zeros

        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        shape, options = self.normalized_shape, {"device": device, "dtype": dtype}
        self.weight = Parameter(ones(shape, **options)) if elementwise_affine else None
        self.bias = Parameter(zeros(shape, **options)) if elementwise_affine and bias else None

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine, bias = self.elementwise_affine, self.bias is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, bias={bias}"


class RMSNorm(Module):
    """See `tinygrad_llm.functional.rms_norm`."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        from tinygrad_llm.torch.functions import ones

        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        made = ones(self.normalized_shape, device=device, dtype=dtype)
        self.weight = Parameter(made) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class Dropout(Module):
    """See `tinygrad_llm.functional.dropout`; the mask comes from the global stream."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        refuse("nn.Dropout", inplace=inplace)
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Identity(Module):
    """x itself, whatever the arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Flatten(Module):
    """See `Tensor.flatten`; the first axis, of examples, stays."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class NonDynamicallyQuantizableLinear(Linear):
    """PyTorch's name of the last Linear of an attention."""


class MultiheadAttention(Module):
    """Attention with several heads on (B, T, C), or (T, B, C) without batch_first; Q, K and V are of one width.

    `tinygrad_llm.nn.MultiHeadAttention` is this package's own.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        refuse("nn.MultiheadAttention", add_bias_kv=add_bias_kv, add_zero_attn=add_zero_attn, kdim=kdim, vdim=vdim)
        check_device(device)
        if embed_dim % num_heads:
            raise AssertionError("embed_dim must be divisible by num_heads")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.dropout, self.batch_first = dropout, batch_first
        kind = numpy_of(dtype or float32)
        self.in_proj_weight = Parameter(constant(np.zeros((3 * embed_dim, embed_dim), kind)))
        self.in_proj_bias = Parameter(constant(np.zeros(3 * embed_dim, kind))) if bias else None
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, dtype=dtype)
        init.xavier_uniform_(self.in_proj_weight)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and the attention weights: their mean over the heads, or those of each."""
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        swap = query.ndim == 3 and not self.batch_first
        given = [x.transpose(0, 1) if swap else x for x in (query, key, value)]
        given = [x[None] if query.ndim == 2 else x for x in given]
        n, bias = self.embed_dim, self.in_proj_bias
        weights = self.in_proj_weight.split(n)
        biases = (None, None, None) if bias is None else bias.split(n)
        q, k, v = (self._heads(F.linear(x, w, b)) for x, w, b in zip(given, weights, biases, strict=True))
        scores = q @ k.mT / math.sqrt(self.head_dim)
        if attn_mask is not None and attn_mask.ndim == 3:  # one mask for each example and head
            wanted = (scores.shape[0] * self.num_heads, *scores.shape[2:])
            if attn_mask.shape != wanted:
                raise RuntimeError(
                    f"The shape of the 3D attn_mask is {tuple(attn_mask.shape)}, but should be {wanted}."
                )
            attn_mask = attn_mask.reshape(scores.shape)
        if key_padding_mask is not None:  # (B, S), or (S,) without a batch
            key_padding_mask = key_padding_mask.reshape(-1, 1, 1, key_padding_mask.shape[-1])
        for mask in (attn_mask, key_padding_mask):
            if mask is not None:
                scores = scores.masked_fill(mask, -math.inf) if mask.ours.dtype == bool else scores + mask
        attention = F.dropout(scores.softmax(-1), self.dropout, self.training)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        y = self.out_proj(mixed).transpose(0, 1)  # (T, B, C)
        y = y[:, 0] if query.ndim == 2 else y.transpose(0, 1) if self.batch_first else y
        if not need_weights:
            return y, None
        shown = attention.mean(1) if average_attn_weights else attention
        return y, shown[0] if query.ndim == 2 else shown

    def _heads(self, x: Tensor) -> Any:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


# ---- activations ---------------------------------------------------------------------------------------------------


class GELU(Module):
    """See `tinygrad_llm.functional.gelu`; PyTorch's default is the erf form."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class ReLU(Module):
    """See `tinygrad_llm.functional.relu`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """See `nn.functional.leaky_relu`."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """See `nn.functional.elu`."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(Module):
    """See `tinygrad_llm.functional.softplus`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input)


class SiLU(Module):
    """See `tinygrad_llm.functional.silu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input)


class Sigmoid(Module):
    """See `tinygrad_llm.functional.sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """See `tinygrad_llm.functional.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softmax(Module):
    """See `tinygrad_llm.functional.softmax`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """See `tinygrad_llm.functional.log_softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)


# ---- losses --------------------------------------------------------------------------------------------------------


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """See `tinygrad_llm.functional.cross_entropy`."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """See `tinygrad_llm.functional.nll_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """See `tinygrad_llm.functional.mse_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """See `nn.functional.l1_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """See `nn.functional.smooth_l1_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """See `nn.functional.huber_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction)


class BCELoss(_Loss):
    """See `nn.functional.binary_cross_entropy`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """See `tinygrad_llm.functional.binary_cross_entropy_with_logits`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(input, target, reduction=self.reduction)


# ---- several in one ------------------------------------------------------------------------------------------------


class ModuleList(Module):
    """Modules in a list, whose names are their numbers."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def append(self, module: Module) -> Self:
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        self._replace([*list(self)[:index], module, *list(self)[index:]])

    def _replace(self, modules: list[Module]) -> None:
        for name in [name for name, _ in self.named_children()]:
            delattr(self, name)
        self.extend(modules)

    def __len__(self) -> int:
        return sum(isinstance(x, Module) for x in vars(self).values())

    def __iter__(self) -> Iterator[Module]:
        return iter([x for x in vars(self).values() if isinstance(x, Module)])

    def __getitem__(self, index: Any) -> Any:
        part = list(self)[index]
        if not isinstance(index, slice):
            return part
        return self._part(dict(list(self.named_children())[index]))

    def _part(self, modules: dict[str, Module]) -> "ModuleList":
        return ModuleList(modules.values())

    def __setitem__(self, index: int, module: Module) -> None:
        name = [name for name, x in vars(self).items() if isinstance(x, Module)][index]
        setattr(self, name, module)

    def __delitem__(self, index: Any) -> None:
        rest = list(self)
        del rest[index]
        self._replace(rest)

    def _printed_children(self) -> list[str]:
        """Equal Modules one after another in one entry: (0-11): 12 x Block(…)."""
        runs: list[tuple[int, int, str]] = []
        for i, text in enumerate(map(repr, self)):
            if runs and runs[-1][2] == text:
                runs[-1] = runs[-1][0], i, text
            else:
                runs.append((i, i, text))
        return [f"({a}): {t}" if a == b else f"({a}-{b}): {b - a + 1} x {t}" for a, b, t in runs]


class Sequential(ModuleList):
    """Modules one after another: each gets the output of the one before."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)

    def _part(self, modules: dict[str, Module]) -> "ModuleList":
        return Sequential(modules)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def _printed_children(self) -> list[str]:
        return Module._printed_children(self)


class ModuleDict(Module):
    """Modules by name."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __getitem__(self, name: str) -> Module:
        return dict(self.named_children())[name]

    def __len__(self) -> int:
        return len(dict(self.named_children()))

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.named_children()))

    def __contains__(self, name: object) -> bool:
        return name in dict(self.named_children())

    def keys(self) -> Any:
        return dict(self.named_children()).keys()

    def values(self) -> Any:
        return dict(self.named_children()).values()

    def items(self) -> Any:
        return dict(self.named_children()).items()


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class ParameterList(Module):
    """Parameters in a list, whose names are their numbers."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__()
        for value in values:
            self.append(value)

    def append(self, value: Any) -> Self:
        p = value if isinstance(value, Parameter) else Parameter(constant(array_of(value)))
        setattr(self, str(len(self)), p)
        return self

    def extra_repr(self) -> str:
        return "\n".join(f"({i}): Parameter containing: [{p.dtype} of size {_by(p.shape)}]" for i, p in enumerate(self))

    def __repr__(self) -> str:
        return "ParameterList(" + "\n".join(f"  {line}" for line in self.extra_repr().split("\n")) + ")"

    def __len__(self) -> int:
        return len(list(self.parameters(recurse=False)))

    def __iter__(self) -> Iterator[Parameter]:
        return self.parameters(recurse=False)

    def __getitem__(self, index: int) -> Parameter:
        return list(self)[index]
