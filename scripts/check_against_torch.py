"""Compare our operations with PyTorch's, on the samples of PyTorch's own operator database.

    pip install torch==2.13.0 expecttest
    python scripts/check_against_torch.py             # all operations that both sides have
    python scripts/check_against_torch.py softmax var

Each sample of `op_db` runs on both sides in float64 and float32. Compared are shapes, dtypes, values, and the gradients
of Σ v·y for a random v. The table at the end lists the disagreements that are meant, with their reason, and the
arguments that we do not offer. Any other disagreement is printed, and the exit status is 1.
"""

import argparse
import collections
import inspect
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db

from tinygrad_llm import Tensor, functional, grad

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}  # times the largest value of the array, or 1

# PyTorch's name of what we write as an operator. Other names are looked up in `functional`, and among Tensor's methods.
OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "true_divide": operator.truediv,
    "neg": operator.neg,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "mm": operator.matmul,
    "mv": operator.matmul,
    "bmm": operator.matmul,
    "dot": operator.matmul,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "T": lambda t: t.T,
    "mT": lambda t: t.mT,
}

# Where the samples have the arguments in another order than the function.
REORDERED: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "einsum": lambda fn: lambda tensors, equation: fn(equation, *tensors),
    "where": lambda fn: lambda input, condition, other: fn(condition, input, other),
    "nn.functional.embedding": lambda fn: lambda weight, ids: fn(ids, weight),
}

RANDOM = ("dropout", "rrelu")

# (operation, part of the disagreement, reason): what differs from PyTorch on purpose.
DOCUMENTED: list[tuple[str, str, str]] = [
    ("F.linear_cross_entropy", "must be (N, C), (V, C) and (N,)", "x is (N, C), weight (V, C), targets (N,)"),
    ("F.cat", "is out of range for shape (0,)", "PyTorch drops an empty 1-d tensor, a remnant of Torch 7"),
    ("Tensor.norm", "norm: got p=", "p is 1, 2, fro or inf"),
]
NOT_OFFERED = "not offered: "


def ours(name: str) -> dict[str, Callable[..., Any]]:
    """Our operations of PyTorch's name: an operator, a function, a method."""
    found: dict[str, Callable[..., Any]] = {}
    if name in OPERATORS:
        found[name] = OPERATORS[name]
    short = name.removeprefix("nn.functional.")
    if short in functional.__all__:
        found[f"F.{short}"] = getattr(functional, short)
    if short == name and name not in found and callable(getattr(Tensor, name, None)):
        found[f"Tensor.{name}"] = getattr(Tensor, name)
    return {key: REORDERED.get(name, lambda fn: fn)(fn) for key, fn in found.items()}


def flat(x: Any) -> Iterator[Any]:
    """Everything inside tuples and lists."""
    if isinstance(x, tuple | list):
        for item in x:
            yield from flat(item)
    else:
        yield x


def converted(x: Any, leaves: list[tuple[Any, Tensor]]) -> Any:
    """A torch value as ours. Each pair of Tensors that require a gradient is added to `leaves`."""
    if isinstance(x, torch.Tensor):
        t = Tensor(x.detach().resolve_neg().numpy().copy(order="K"), requires_grad=x.requires_grad)
        if x.requires_grad:
            leaves.append((x, t))
        return t
    if isinstance(x, torch.dtype):
        return np.dtype(str(x).removeprefix("torch."))
    if isinstance(x, tuple | list):
        return type(x)(converted(item, leaves) for item in x) if type(x) in (tuple, list) else tuple(x)
    if isinstance(x, dict):
        return {key: converted(value, leaves) for key, value in x.items()}
    return x


def difference(a: Any, b: np.ndarray, tolerance: float) -> str:
    """How our array b differs from torch's a; empty if it does not."""
    a = a.detach().resolve_neg().numpy()
    if a.shape != b.shape:
        return f"shape {b.shape}, torch {a.shape}"
    if a.dtype != b.dtype:
        return f"dtype {b.dtype}, torch {a.dtype}"
    if a.dtype.kind != "f":
        return "" if np.array_equal(a, b) else f"{b.ravel()[:4]}, torch {a.ravel()[:4]}"
    scale = max(1.0, float(np.max(np.abs(a), where=np.isfinite(a), initial=0)))
    wrong = ~np.isclose(b, a, rtol=0, atol=tolerance * scale, equal_nan=True)
    return f"{b[wrong][:3]}, torch {a[wrong][:3]}" if wrong.any() else ""


def compare(op: Any, fn: Callable[..., Any], sample: Any, dtype: torch.dtype, seed: int) -> str:
    """The first disagreement of one sample; empty if there is none. It names arguments that we do not offer."""
    leaves: list[tuple[Any, Tensor]] = []
    args, kwargs = converted((sample.input, *sample.args), leaves), converted(sample.kwargs, leaves)
    try:
        inspect.signature(fn).bind(*args, **kwargs)
    except TypeError as error:
        named = re.search(r"argument '(\w+)'", str(error))
        return NOT_OFFERED + (named[1] if named else "more arguments")
    except ValueError:  # an operator of Python
        if kwargs:
            return NOT_OFFERED + ", ".join(kwargs)
    try:
        theirs = [y for y in flat(op(sample.input, *sample.args, **sample.kwargs)) if isinstance(y, torch.Tensor)]
    except Exception as error:
        return f"torch raises {type(error).__name__}: {error}"
    try:
        mine = [y for y in flat(fn(*args, **kwargs)) if isinstance(y, Tensor)]
        if len(mine) != len(theirs):
            return f"{len(mine)} outputs, torch {len(theirs)}"
        for y, z in zip(theirs, mine, strict=True):
            if wrong := difference(y, z.data, TOLERANCE[dtype]):
                return f"value: {wrong}"
        return gradients(theirs, mine, leaves, dtype, seed)
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def gradients(theirs: list[Any], mine: list[Tensor], leaves: list[Any], dtype: torch.dtype, seed: int) -> str:
    """The first disagreement of the gradients of Σ v·y."""
    pairs = [(y, z) for y, z in zip(theirs, mine, strict=True) if y.requires_grad]
    if lost := [z for _, z in pairs if not z.requires_grad]:
        return f"gradient: {len(lost)} outputs require none"
    if not pairs or not leaves:
        return ""
    rng = np.random.default_rng(seed)
    vs = [rng.standard_normal(z.shape).astype(z.dtype) for _, z in pairs]
    right = torch.autograd.grad(
        [y for y, _ in pairs], [x for x, _ in leaves], [torch.from_numpy(np.asarray(v)) for v in vs], allow_unused=True
    )
    if len(pairs) == 1:
        found = grad(pairs[0][1], [t for _, t in leaves], vs[0])
    else:
        found = grad(sum((z * Tensor(v)).sum() for (_, z), v in zip(pairs, vs, strict=True)), [t for _, t in leaves])
    for i, (a, b, (x, _)) in enumerate(zip(right, found, leaves, strict=True)):
        if wrong := difference(torch.zeros_like(x) if a is None else a, b, TOLERANCE[dtype]):
            return f"gradient of input {i}: {wrong}"
    return ""


def operations(names: list[str]) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """PyTorch's operations, with our name and function of each; of these names only, if there are any."""
    for op in op_db:
        for name, fn in ours(op.name).items():
            if (not names or {op.name, name} & set(names)) and not any(word in name for word in RANDOM):
                yield op, name, fn


def run(names: list[str]) -> tuple[dict[str, collections.Counter[str]], list[str]]:
    """Counts by operation (agree, what is not offered, documented reasons), and the other disagreements."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # both sides warn of the roots of negative numbers, torch also of old names
        for op, name, fn in operations(names):
            for dtype in TOLERANCE:
                if dtype not in op.dtypes:
                    continue
                torch.manual_seed(0)
                for i, sample in enumerate(op.sample_inputs("cpu", dtype, requires_grad=op.supports_autograd)):
                    if sample.kwargs.get("dropout_p"):
                        continue
                    found = compare(op, fn, sample, dtype, i)
                    reasons = [reason for n, part, reason in DOCUMENTED if n == name and part in found]
                    if not found:
                        counts[name]["agree"] += 1
                    elif reasons or found.startswith(NOT_OFFERED):
                        counts[name][f"documented: {reasons[0]}" if reasons else found] += 1
                    else:
                        counts[name]["DISAGREE"] += 1
                        shown = f"{sample.input!s:.80} {sample.args!s:.80} {sample.kwargs!s:.80}".replace("\n", " ")
                        failures.append(f"{name} {op.variant_test_name} {str(dtype)[6:]} #{i}: {found}\n    {shown}")
    return counts, failures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="operations, in PyTorch's words or ours (default: all)")
    args = parser.parse_args(argv)
    counts, failures = run(args.names)
    for failure in failures:
        print(failure)
    print(f"\n{'operation':<36}{'agree':>7}{'disagree':>10}  differs as documented, or is not offered")
    for name, count in sorted(counts.items()):
        meant = "; ".join(f"{n} × {reason}" for reason, n in count.items() if ": " in reason)
        print(f"{name:<36}{count['agree']:>7}{count['DISAGREE']:>10}  {meant}")
    total: collections.Counter[str] = sum(counts.values(), collections.Counter())
    refused, documented = (sum(n for k, n in total.items() if k.startswith(s)) for s in (NOT_OFFERED, "documented: "))
    print(
        f"\n{total.total()} samples of {len(counts)} operations: {total['agree']} agree, {refused} have arguments that "
        f"we do not offer, {documented} differ as documented, {total['DISAGREE']} disagree"
    )
    return 1 if failures or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
