"""`gradcheck`: compare a gradient with derivatives that were computed without backpropagation.

The output y is first reduced to one number by a random vector v, L = Σ v·y. With v = 1, whole classes of errors would
cancel: the gradient of Σ softmax(x) is 0, and so is that of many a wrong softmax. Then every ∂L/∂x_j is computed by a
method of `methods.py`:

complex      ∂L/∂x_j = Im L(x + i·h·e_j) / h with h = 1e-20. Since L(x + ih) = L + ih·L' − h²·L''/2 − …, the imaginary
             part is h·L', with a relative error of h² = 1e-40. Nothing is subtracted, so no digits cancel, and the
             result is exact to rounding. fn must be analytic: powers, exponentials, products and the like; not |x| or
             max(x, y). Where it contradicts the gradient, real differences decide which of the two is wrong: if it is
             the complex step, fn is not analytic, and Richardson's result is returned, with a `note` that says why.
richardson   central differences at h, h/2, h/4, h/8, extrapolated to h = 0. Each column of the table cancels one more
             even power of h. For functions with kinks, if no kink is within h.
central      (L(x + h) − L(x − h)) / 2h, as in most checkers. The error is the larger of h² and 1e-16/h: ten correct
             digits at the best h, and usually fewer.
directions   the complex step along random vectors u of ±1: ⟨∂L/∂x, u⟩ = Im L(x + i·h·u) / h. It takes eight evaluations
             for an input of any size, so it suits whole models. Two opposite errors cancel in ⟨∂L/∂x, u⟩ for half of
             all u, hence in all eight with a probability of 1/256.
adjoint      for fn that is linear in each input: ⟨v, J e_j⟩ = ⟨Jᵀv, e_j⟩ with ==. Inputs and v are small integers other
             than 0, on which float64 is exact. The difference of a linear function at step 1 is its derivative.
float32      the gradient in float32 against the same gradient in float64. It proves that the dtype is kept and that
             rounding is small, and nothing about the formula.

Sources: Squire and Trapp 1998, SIAM Review 40(1) (complex step); Richardson 1911, Phil. Trans. A 210.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Observer, Tensor, detect_anomaly, grad, observing
from tinygrad_llm.autograd.node import Node
from tinygrad_llm.gradcheck import methods
from tinygrad_llm.gradcheck.analytic import lossy_operation
from tinygrad_llm.gradcheck.methods import FLOOR, GradcheckError, NotAnalytic, Scalar, unit
from tinygrad_llm.gradcheck.result import ADVICE, TOLERANCE, Comparison, GradcheckResult, comparison, describe
from tinygrad_llm.gradcheck.smoothness import measure_noise, refuse_kink, refuse_lost_part
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator


def gradcheck(
    fn: Callable[..., Tensor] | Module,
    inputs: Sequence[Any],
    method: str = "complex",
    *,
    loss: Callable[[Tensor], Tensor] | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    cotangent: Any = None,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Prove the gradient of fn, element by element, in float64.

    Args:     fn: takes the inputs as Tensors and returns one Tensor of any shape; it must be deterministic. If fn is a
              Module, its parameters are checked, too, in the mode (`train` or `eval`) that it is in.
              inputs: float arrays, and Tensors that require a gradient, are checked; others are passed to fn as they
              are. Such a Tensor may also be one that fn uses without taking it as an argument, such as a model's
              parameter: its data is float64 during the check, and is put back afterwards.
              method: "complex", "richardson", "central", "directions", "adjoint" or "float32"; see the module.
              loss: applied to the output of fn. tolerance: the largest error allowed; see TOLERANCE. step: the h of
              the method. names: of the inputs, for messages. seed: of the random vector v. cotangent: v itself.
    Returns:  a GradcheckResult.
    Raises:   GradcheckError: a wrong gradient (unless raise_exception is False), or nothing that can be checked: no
              float input, no element, no dependence, NaN, randomness, a kink within the step, differences that do
              not settle, a vjp that returns a wrong number of gradients, or a wrong shape or dtype.
              ValueError: an unknown method; names, tolerance, step or cotangent that do not fit; an input that was
              computed from others.
    """
    if method not in TOLERANCE:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(TOLERANCE)}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be a number ≥ 0, got {tolerance}")
    if step is not None and not 0 < step < np.inf:
        raise ValueError(f"step must be a number > 0, got {step}")
    tensors = as_tensors(inputs)
    checked = _checked(fn, tensors, names)

    def call() -> Tensor:
        try:
            y = fn(*tensors)
            y = y if loss is None else loss(y)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            if hint := _glue(error, tensors):
                raise GradcheckError(f"{type(error).__name__}: {error}. {hint}") from error
            raise
        if not isinstance(y, Tensor):
            raise GradcheckError(f"fn must return one Tensor, got {type(y).__name__}. {PLAIN}")
        return y

    tolerance = TOLERANCE[method] if tolerance is None else tolerance
    kept = [t.data for _, t in checked]
    try:
        for name, t in checked:
            if t.dtype.kind == "c":
                raise GradcheckError(f"{name} is complex, a complex input: check its real and imaginary parts instead")
            t.data = np.array(t.data, dtype=np.float64)  # a copy
            if not np.isfinite(t.data).all():
                raise GradcheckError(f"{name}, an input, holds NaN or infinity: a gradient there proves nothing")
        result = _Check(call, checked, method, seed, tolerance, step, cotangent).compare()
    finally:
        for (_, t), data in zip(checked, kept, strict=True):
            t.data = data
    if raise_exception and not result:
        name = type(fn).__name__ if isinstance(fn, Module) else getattr(fn, "__name__", "fn")
        raise GradcheckError(f"{name}: the gradient of {describe(result)}")
    return result


PLAIN = "fn takes and returns Tensors; for a plain NumPy function, use check_gradient(f, df, x)"


def _glue(error: Exception, tensors: Sequence[Any]) -> str:
    """How to mend an error that a plain NumPy function or an incomplete kernel causes; empty for other errors."""
    if any(isinstance(t, Tensor) and np.iscomplexobj(t.data) for t in tensors):
        return ""  # fn fails on complex numbers only
    if isinstance(error, RuntimeError):  # of a NumPy function, which computes no gradient, or of something else
        return PLAIN if ".detach().numpy()" in str(error) else ""
    if "Tensor" in str(error):
        return PLAIN
    if any(
        words in str(error)
        for words in ("unpack", "must return (out, vjp)", "has no attribute 'dtype'", "not callable")
    ):
        return "A kernel returns a pair, (out, vjp): out is an array, and vjp(g) returns a tuple of arrays"
    return ""


def as_tensors(inputs: Iterable[Any]) -> list[Any]:
    """Tensors as they are, float arrays as float64 Tensors that require a gradient, the rest as arrays."""
    if isinstance(inputs, np.ndarray | Tensor):
        raise ValueError("inputs must be a list, even for one input: write [x]")
    arrays = [x if isinstance(x, Tensor) else np.asarray(x) for x in inputs]
    if any(isinstance(x, np.ndarray) and x.dtype.kind == "c" for x in arrays):
        raise GradcheckError("a complex input: check its real and imaginary parts instead")
    return [
        Tensor(x.astype(np.float64), requires_grad=True) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
        for x in arrays
    ]


def _checked(fn: Any, tensors: list[Any], names: Sequence[str] | None) -> list[tuple[str, Tensor]]:
    """(name, Tensor) of every input and parameter that is checked, each Tensor once."""
    names = [f"input {i}" for i in range(len(tensors))] if names is None else names
    if len(names) != len(tensors):
        raise ValueError(f"{len(names)} names for {len(tensors)} inputs: give one each")
    named = list(zip(names, tensors, strict=True))
    if isinstance(fn, Module):
        named += fn.named_parameters()
    checked: list[tuple[str, Tensor]] = []
    for name, t in named:
        if isinstance(t, Tensor) and t.requires_grad and not any(t is other for _, other in checked):
            checked.append((name, t))
    if not checked:
        raise GradcheckError(
            "nothing to check: no input is a float array, or a Tensor that requires a gradient "
            "(integers have none: convert them to float)"
        )
    if not any(t.numel() for _, t in checked):
        raise GradcheckError("nothing to check: the inputs have no elements")
    for name, t in checked:
        if not t.is_leaf:
            raise ValueError(f"{name} was computed from others: give those, or detach it")
    return checked


_DIFFERENTIATE: dict[str, Callable[[Scalar, str, Tensor, float | None], tuple[Array, float]]] = {
    "complex": methods.complex_step,
    "richardson": methods.richardson,
    "central": methods.central,
    "adjoint": methods.adjoint,
}
_STEPS = (0.02, 1e-3, 1e-4, 1e-5)


def _steps(x: Array) -> list[float]:
    """The steps of Richardson's differences at x, where they decide about another method; parts of x's spread last."""
    return [step * size for size in dict.fromkeys((1.0, unit(x))) for step in _STEPS]


class _Promotions(Observer):
    """Raise GradcheckError where a vjp turns a float32 gradient into a float64 one."""

    def on_vjp(self, node: Node, parents: Sequence[Node | None], gradient: Array, gradients: Any) -> None:
        for i, (parent, d) in enumerate(zip(parents, gradients, strict=True)):
            if parent is not None and d is not None and gradient.dtype == np.float32 and d.dtype == np.float64:
                raise GradcheckError(f"{node.name}: the gradient of input {i} is float64 where the input is float32")


class _Check:
    """One check: L, its gradients by backpropagation, and their comparison with the derivatives of a method."""

    def __init__(
        self,
        call: Callable[[], Tensor],
        checked: list[tuple[str, Tensor]],
        method: str,
        seed: int,
        tolerance: float,
        step: float | None,
        cotangent: Any,
    ) -> None:
        self.method, self.tolerance, self.step, self.cotangent = method, tolerance, step, cotangent
        self.L = Scalar(call, [name for name, _ in checked], [t for _, t in checked], Generator(seed))
        if method == "adjoint":
            for t in self.L.tensors:
                t.data = self.L.integers(t.shape)

    def compare(self) -> GradcheckResult:
        L = self.L
        grads = self._gradients()
        if L.value() != L.base:
            raise GradcheckError(
                "fn gave two results for the same input: fix its random numbers (reseed in fn), and let it change "
                "nothing that it reads"
            )
        if self.method == "float32":
            return GradcheckResult(self.method, self.tolerance, self._single(grads))
        if self.method != "adjoint":
            L.noise = measure_noise(L, grads)
            refuse_kink(L, grads)
        if self.method in ("complex", "directions"):
            return self._analytic(grads)
        return GradcheckResult(self.method, self.tolerance, self._each(grads, self.method, self.step))

    def _analytic(self, grads: list[Array]) -> GradcheckResult:
        """Compare with the complex step; where it fails, or is alone against a gradient, differences decide."""
        L = self.L
        try:
            result = GradcheckResult(self.method, self.tolerance, self._each(grads, "complex", self.step))
            if result:
                refuse_lost_part(L, grads)
                return result
            i = result.comparisons.index(result.worst)
            confirmed = self._confirm(result.worst, L.tensors[i], grads[i])
            if not confirmed:
                refuse_lost_part(L, grads)
            return replace(result, confirmed=confirmed)
        except NotAnalytic as reason:
            note = f"fn is not analytic, so real differences decide: {lossy_operation(L) or reason}"
        self.tolerance = max(self.tolerance, TOLERANCE["richardson"])
        try:
            found = [self._by_differences(*three) for three in zip(L.names, L.tensors, grads, strict=True)]
        except GradcheckError as error:
            raise GradcheckError(f"{error}. {ADVICE} ({note})") from None
        method = "richardson" if self.method == "complex" else "richardson along directions"
        return GradcheckResult(method, self.tolerance, found, note)

    def _confirm(self, found: Comparison, t: Tensor, g: Array) -> bool:
        """Whether real differences agree with the complex step that a gradient is wrong; False if they cannot decide.

        Raises:   NotAnalytic: they agree with the gradient, or with neither.
        """
        if not np.isfinite(found.analytic):
            return True
        us, x = self.L.signs(t), t.data
        if self.method == "complex":  # one element is enough
            us = [np.zeros(t.shape)]
            us[0][found.index] = 1.0
        sharp = False  # whether differences were ever sharp enough to tell
        M, s = methods.along(self.L, t, us)
        analytic = np.array([np.sum(g * u) for u in us])
        try:
            with np.errstate(all="ignore"):
                numeric, _ = methods.complex_step(M, found.name, s, self.step)
                i = int(np.argmax(np.abs(analytic - numeric)))  # the first NaN, if there is any
                gap = abs(analytic[i] - numeric[i])
                for step in _steps(x):
                    s.data, spread = np.zeros(len(us)), np.inf
                    with suppress(GradcheckError):
                        real, spread = methods.richardson(M, found.name, s, step)
                    if spread == np.inf or (real[i] == 0 and step < min(_STEPS)):
                        continue  # the step is too wide, or perhaps too small to move L
                    if spread < 0.1 * gap or np.isnan(gap):
                        sharp = True
                        if abs(real[i] - numeric[i]) <= 0.2 * gap:
                            return True
                        if abs(real[i] - analytic[i]) <= 0.2 * gap:
                            break
        finally:
            t.data = x
        if sharp:
            raise NotAnalytic(f"differences contradict the complex step of {found.name}")
        return False

    def _each(self, grads: list[Array], by: str, step: float | None) -> list[Comparison]:
        return [self._one(*three, by, step) for three in zip(self.L.names, self.L.tensors, grads, strict=True)]

    def _by_differences(self, name: str, t: Tensor, g: Array) -> Comparison:
        """Compare one gradient at ever smaller steps, until it passes, or two steps agree that it is wrong."""
        failures: list[Comparison] = []
        unsettled = GradcheckError(f"the differences of {name} have not settled: fn is too steep, or rounds too much")
        for step in _steps(t.data):
            try:
                found = self._one(name, t, g, "richardson", step)
            except GradcheckError as error:  # a kink or the end of the domain may be near
                unsettled = error
                continue
            if found.error <= self.tolerance or not np.isfinite(found.error):
                return found
            if found.numeric == 0 and step < min(_STEPS):
                continue  # the step is perhaps too small to move L
            if any(abs(f.error / found.error - 1) < 0.1 for f in failures):
                return found
            failures.append(found)
        raise unsettled

    @detect_anomaly(check_nan=False)  # a wrong shape or dtype, or a changed value, may give the right numbers by luck
    def _gradients(self) -> list[Array]:
        """Evaluate y, choose v, and compute the gradients of L = Σ v·y; an error if there is nothing to prove."""
        L = self.L
        y = L.call()
        if not y.numel():
            raise GradcheckError(f"nothing to check: the output, of shape {y.shape}, has no elements")
        if self.cotangent is not None:
            L.v = np.array(self.cotangent, dtype=np.float64)
            if L.v.shape != y.shape:
                raise ValueError(f"cotangent has shape {L.v.shape}, but the output has {y.shape}")
        else:
            L.v = L.integers(y.shape) if self.method == "adjoint" else L.rng.randn(y.shape, np.float64)
        if not y.requires_grad:
            raise GradcheckError(
                f"the output ({y.dtype}) does not depend on any input that is checked in a way that can be "
                "differentiated, or was computed in no_grad"
            )
        if not np.isfinite(y.data).all():
            raise GradcheckError("the output holds NaN or infinity")
        L.base = np.sum(L.v * y.data)
        L.v.flags.writeable = False  # so that a vjp that writes into its g raises
        grads = self._backward(y)
        for name, t, g in zip(L.names, L.tensors, grads, strict=True):
            if (g.shape, g.dtype) != (t.shape, t.dtype):
                raise GradcheckError(f"the gradient of {name} is {g.dtype} {g.shape}, not {t.dtype} {t.shape}")
        return grads

    def _backward(self, y: Tensor) -> list[Array]:
        try:
            return grad(y, self.L.tensors, self.L.v)
        except Exception as error:
            hint = _glue(error, self.L.tensors)
            raise GradcheckError(
                f"the backward pass failed: {error or type(error).__name__}" + (f". {hint}" if hint else "")
            ) from error

    def _one(self, name: str, t: Tensor, g: Array, by: str, step: float | None) -> Comparison:
        """Compare the gradient g of one input, or its products with random directions, with a method's."""
        L, moved, x, scale = self.L, t, t.data, None
        try:
            if self.method == "directions":
                us, scale = L.signs(t), float(np.linalg.norm(g))
                g = np.array([np.sum(g * u) for u in us])
                L, moved = methods.along(L, t, us)
            with np.errstate(all="ignore"):  # overflow gives NaN, which gets an error message of its own
                numeric, spread = _DIFFERENTIATE[by](L, name, moved, step)
        finally:
            t.data = x
        found = comparison(name, g, numeric, scale)
        if found.error > self.tolerance and abs(found.analytic - found.numeric) <= spread:
            how = f"are uncertain by {spread:.1g}" if np.isfinite(spread) else "grow as the step shrinks"
            raise GradcheckError(
                f"the differences of {name} at index {found.index} have not settled: they {how}"
                + ('. Give another step=, or use method="complex"' if by == self.method else "")
            )
        return found

    def _single(self, double: list[Array]) -> list[Comparison]:
        """Compare the gradients in float32 with those in float64."""
        L = self.L
        xs = [t.data for t in L.tensors]
        try:
            for t, x in zip(L.tensors, xs, strict=True):
                t.data = x.astype(np.float32)
            y = L.call()
            if y.dtype != np.float32:
                raise GradcheckError(f"the output is {y.dtype} where the inputs are float32: something promotes it")
            with observing(_Promotions()):  # the walk itself converts a gradient to the dtype of its value
                single = self._backward(y)
        finally:
            for t, x in zip(L.tensors, xs, strict=True):
                t.data = x
        comparisons = []
        largest = max(float(np.linalg.norm(b)) for b in double)  # a gradient of 0 is rounded like those around it
        for name, a, b in zip(L.names, single, double, strict=True):
            scale = max(float(np.linalg.norm(b)), 0.1 * largest) + FLOOR
            error = float(np.linalg.norm(a - b)) / scale
            comparisons.append(replace(comparison(name, a.astype(np.float64), b), error=error))
        return comparisons
