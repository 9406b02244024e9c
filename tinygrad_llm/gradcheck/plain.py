"""`check_gradient`: the same proof for plain NumPy functions with a hand-written gradient."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, apply
from tinygrad_llm.autograd.observer import input_names
from tinygrad_llm.gradcheck.checkers import gradcheck
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.result import GradcheckResult, describe
from tinygrad_llm.kernels import Array

Gradients = Callable[[Array], Any]  # g → the gradients


def check_gradient(
    f: Callable[..., Any],
    df: Callable[..., Any] | None,
    x: Any,
    method: str = "complex",
    *,
    raise_exception: bool = True,
    **options: Any,
) -> GradcheckResult:
    """Prove the gradient of a plain NumPy function, element by element, in float64.

        check_gradient(np.sin, np.cos, x)                  # a derivative, of one number or element by element
        check_gradient(f, lambda g, x: …, x)               # an array of any shape: g is dL/d(output)
        check_gradient(loss, gradients, (logits, ids))     # several inputs; several gradients, in a tuple
        check_gradient(loss, gradients, {"W": W, "b": b})  # f and df take the dict; df returns one
        check_gradient(forward, backward, x)               # (out, cache) = forward(x); dx = backward(g, cache)
        check_gradient(kernel, None, x)                    # (out, vjp) = kernel(x); (dx,) = vjp(g)

    Args:     f: returns a number, an array, (out, cache) or (out, vjp). df: its gradient; None if f returns a vjp.
              x: the input; a tuple or list for several, a dict for parameters, also nested. Float arrays and Python
              floats are checked; integers, strings and others are passed on.
              method, raise_exception, options: see `gradcheck`.
    Returns:  a GradcheckResult. Its `note` says if f is not analytic, so that real differences decided.
    Raises:   GradcheckError: a wrong gradient, or one of another shape or structure than x; see `gradcheck`.
    """
    name = getattr(f, "__name__", "f")
    several = isinstance(x, tuple | list)
    tree = dict(zip(_names(f, len(x)), x, strict=True)) if several else float(x) if type(x) is int else x
    leaves = [(label, leaf) for label, leaf in _leaves(tree) if _is_float(leaf)]
    floats = [np.array(leaf, dtype=np.float64) for _, leaf in leaves]
    zero: set[str] = set()  # the inputs whose gradient is 0

    def kernel(*arrays: Array) -> tuple[Array, Gradients]:
        rebuilt = _rebuild(tree, iter(arrays))
        args = tuple(rebuilt.values()) if several else (rebuilt,)
        out, gradients = _pair(f(*args), df, args)

        def vjp(g: Array) -> tuple[Array, ...]:
            found = gradients(g)
            pairs = list(_gradients(tree, _one_each(tree, found) if several else found))
            zero.update(label for label, d in pairs if not np.any(d))
            return tuple(d for _, d in pairs)

        return out, vjp

    kernel.__name__ = name
    if floats:  # once by hand, so that an error in the structure is raised as it is
        out, vjp = kernel(*floats)
        vjp(np.ones_like(out))
    names = [label for label, _ in leaves]
    result = gradcheck(lambda *ts: apply(kernel, *ts), floats, method, names=names, raise_exception=False, **options)
    if raise_exception and not result:
        hint = ". It is 0 everywhere: was the array of np.zeros ever filled?" if result.worst.name in zero else ""
        raise GradcheckError(f"{name}: the gradient of {describe(result)}{hint}")
    return result


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind == "f")


def _names(f: Callable[..., Any], count: int) -> list[str]:
    """The names that f gives to its inputs, if it has enough."""
    try:
        names = input_names(f, count)
    except (TypeError, ValueError):
        names = []
    return names if len(names) == count else [f"input {i}" for i in range(count)]


def _parts(x: Any) -> dict[Any, Any] | None:
    """The items of a dict, tuple or list, by key; None for anything else."""
    return dict(enumerate(x)) if isinstance(x, tuple | list) else x if isinstance(x, dict) else None


def _leaves(x: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, number or array) of everything inside x."""
    parts = _parts(x)
    for key, part in (parts or {}).items():
        yield from _leaves(part, f"{name}.{key}" if name else str(key))
    if isinstance(x, Tensor):
        raise GradcheckError(f"{name or 'x'} is a Tensor: check_gradient takes NumPy arrays, and gradcheck Tensors")
    if parts is None:
        yield name or "x", x


def _rebuild(x: Any, arrays: Iterator[Array]) -> Any:
    """x with its floats taken from arrays, in order."""
    if isinstance(x, dict):
        return {key: _rebuild(part, arrays) for key, part in x.items()}
    if isinstance(x, tuple | list):
        return [_rebuild(part, arrays) for part in x]
    return next(arrays)[()] if _is_float(x) else x  # [()] makes a scalar of an array without axes


def _pair(result: Any, df: Callable[..., Any] | None, args: tuple[Any, ...]) -> tuple[Array, Gradients]:
    """The output as an array, and a function from g to the gradients."""
    out, rest = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if isinstance(out, Tensor):
        raise GradcheckError("f returned a Tensor: for functions of Tensors, use gradcheck(f, [x])")
    if not isinstance(out, np.ndarray | np.generic | int | float | complex) or np.asarray(out).dtype.kind not in "fciu":
        raise GradcheckError(f"f must return a number, an array, (out, cache) or (out, vjp), got {type(out).__name__}")
    y = np.asarray(out)
    if df is None:
        if not callable(rest):
            what = "a bare " + type(result).__name__ if rest is None else f"(out, {type(rest).__name__})"
            raise GradcheckError(f"f returned {what}: return (out, vjp), or give its gradient as df")
        return y, lambda g: _tuple(rest(g))
    if callable(rest):
        raise GradcheckError("f returned (out, vjp): give None for df")
    if rest is not None:
        return y, lambda g: df(g, rest)
    if not _takes(df, len(args)):
        return y, lambda g: df(g, *args)
    return y, lambda g: _times(g, df(*args))


def _takes(df: Callable[..., Any], count: int) -> bool:
    """Whether df can be called with `count` arguments; a ufunc takes as many as f."""
    if isinstance(df, np.ufunc):
        return df.nin == count
    try:
        inspect.signature(df).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


def _tuple(gradients: Any) -> Any:
    if not isinstance(gradients, tuple | list | dict):
        raise GradcheckError(f"the vjp returned a bare {type(gradients).__name__}, not a tuple: write return (dx,)")
    return gradients[0] if isinstance(gradients, tuple) and len(gradients) == 1 else gradients


def _times(g: Array, d: Any) -> Any:
    """g · d for the derivative of a number, or of each element."""
    if isinstance(d, dict):
        return {key: _times(g, part) for key, part in d.items()}
    if isinstance(d, tuple | list):
        return [_times(g, part) for part in d]
    if np.asarray(d).dtype.kind not in "fiu" or (g.ndim and np.shape(d) == ()):
        return d  # an error of its own
    if g.ndim and np.shape(d) != g.shape:
        raise GradcheckError(
            f"f returns an array of shape {g.shape}, and df one of {np.shape(d)}: let df take the gradient of the "
            "output first, as in df(g, x)"
        )
    return g * np.asarray(d)


def _one_each(inputs: Any, found: Any) -> dict[str, Any]:
    """One gradient per input, by name; inputs that have none may be left out."""
    found = tuple(found) if isinstance(found, tuple | list) else (found,)
    needed = [name for name, part in inputs.items() if any(_is_float(leaf) for _, leaf in _leaves(part))]
    names = needed if len(found) == len(needed) else list(inputs)
    if len(found) != len(names):
        raise GradcheckError(
            f"df returned {len(found)} gradients for {len(inputs)} inputs: return a tuple, one for each. An input that "
            "is held constant is not given: lambda x: f(x, target)"
        )
    return dict(zip(names, found, strict=True))


def _gradients(x: Any, d: Any, name: str = "") -> Iterator[tuple[str, Array]]:
    """(name, gradient) of each float in x; an error if d has another structure or shape."""
    parts, found = _parts(x), _parts(d)
    if parts is not None and any(_is_float(leaf) for _, leaf in _leaves(x)):
        if found is None:
            raise GradcheckError(f"the gradient of {name or 'x'} is a {type(d).__name__}, not a {type(x).__name__}")
        if unknown := [str(key) for key in found if key not in parts]:
            raise GradcheckError(f"df returned a gradient of {', '.join(unknown)}, which is not an input")
        for key, part in parts.items():
            yield from _gradients(part, found.get(key), f"{name}.{key}" if name else str(key))
    elif _is_float(x):
        yield name or "x", _gradient(x, d, name or "x")


def _gradient(x: Any, d: Any, name: str) -> Array:
    """d as a float64 array of the shape of x."""
    if d is None:
        raise GradcheckError(f"df returned no gradient of {name}")
    if isinstance(d, tuple | list) and len(d) == 1 and np.shape(d) != np.shape(x):  # (dx,)
        (d,) = d
    gradient, shape = np.asarray(d), np.shape(x)
    if gradient.dtype.kind not in "fiu":
        raise GradcheckError(f"the gradient of {name} must be a float array, got {gradient.dtype}")
    if gradient.shape != shape:
        hint = ""
        if gradient.T.shape == shape:
            hint = ": is it transposed?"
        elif gradient.ndim > len(shape) or all(n in (1, m) for n, m in zip(shape, gradient.shape, strict=False)):
            hint = ": sum it over the axes along which the input was broadcast" if gradient.ndim else ""
        what = f"has shape {gradient.shape}" if gradient.ndim else "is one number"
        raise GradcheckError(f"the gradient of {name} {what}, but {name} has shape {shape}{hint}")
    return gradient.astype(np.float64)
