"""The checker is checked: wrong gradients are planted one at a time, and each must be caught."""

import functools
from collections import Counter

import numpy as np
import pytest

from tinygrad_llm.autograd import apply
from tinygrad_llm.gradcheck import GradcheckError, checkers, gradcheck, mutants, wrong_formulas
from tinygrad_llm.gradcheck.cases import Call, Case, basic_cases, normal
from tinygrad_llm.gradcheck.mutants import Mutant, hunt, planted
from tinygrad_llm.gradcheck.wrong_formulas import WRONG
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.kernels.contract import unbroadcast

TINY = "scaled by 1 + 1e-9"
KINKED = {"relu", "absolute", "maximum", "max"}


@functools.cache
def mutants_of(kernel):
    """Its mutants, found once: that takes seconds for all kernels."""
    return mutants.mutants([kernel])


def all_mutants():
    return [mutant for kernel in KERNELS for mutant in mutants_of(kernel)]


def missed(hunts):
    return [(found.kernel, found.mutant) for found in hunts if not found.caught]


def altered(kernel, change):
    """A mutant whose gradients are `change(right gradients)`."""
    return Mutant(kernel, "a test's", lambda right: planted(right, lambda vjp, g, inputs, options: change(vjp(g))))


# ---- what is planted -------------------------------------------------------------------------------------------------


def test_each_kernel_has_six_mutants_or_more_under_unique_names():
    planted = all_mutants()
    assert set(Counter(mutant.kernel for mutant in planted)) == set(KERNELS)
    assert min(Counter(mutant.kernel for mutant in planted).values()) >= 6
    assert max(Counter((mutant.kernel, mutant.name) for mutant in planted).values()) == 1


def test_every_wrong_formula_is_planted_and_each_kernel_but_one_has_some():
    here = {(mutant.kernel, mutant.name) for mutant in all_mutants()}
    assert {(kernel, name) for kernel, formulas in WRONG.items() for name in formulas} <= here
    assert set(KERNELS) - set(WRONG) == {"negative"}  # y = −x: only the sign can be wrong


def test_each_float_input_of_a_kernel_has_a_mutant(kernel_call, for_each):
    first = {case.covers: case for case in reversed(basic_cases())}

    def check(kernel):
        numbers = [i for i, x in enumerate(kernel_call(first[kernel])[1]) if x.dtype.kind == "f"]
        if len(numbers) > 1:
            assert all(any(m.name.endswith(f", input {i}") for m in mutants_of(kernel)) for i in numbers)

    for_each(KERNELS, check)


def test_a_mutant_keeps_the_forward_and_the_signature_of_its_kernel(kernel_call, for_each):
    first = {case.covers: kernel_call(case, seed=7) for case in reversed(basic_cases())}

    def check(mutant):
        right, inputs, options = first[mutant.kernel]
        wrong = mutant.plant(right)
        assert wrong.__name__ == mutant.kernel
        assert wrong.__kwdefaults__ == right.__kwdefaults__
        np.testing.assert_array_equal(wrong(*inputs, **options)[0], right(*inputs, **options)[0], strict=True)

    for_each(all_mutants(), check)


def test_only_the_kernels_named_are_planted():
    assert {m.kernel for m in mutants.mutants(["tanh", "exp"])} == {"tanh", "exp"}
    with pytest.raises(ValueError, match=r"no kernel is named tahn: choose from .*tanh"):
        mutants.mutants(["tahn"])


# ---- what is caught --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_mutant_is_caught(kernel):
    """By a wrong number; only the change of shape is caught without one. So no wrong formula fails for another reason.

    A hunt begins with the same scaffold around the right gradient, which must pass.
    """
    hunts = list(hunt(mutants_of(kernel)))
    assert len(hunts) == len(mutants_of(kernel))
    assert missed(hunts) == []
    for found in hunts:
        assert found.by.startswith(kernel)
        assert found.method == ("richardson" if kernel in KINKED else "complex")
        assert found.tolerance == checkers.TOLERANCE[found.method]
        if found.mutant.startswith("an axis too many"):
            assert "has shape" in found.message
        else:
            assert found.error > found.tolerance, found.message
            assert "at index" in found.message
            # Real differences confirm all but the smallest error.
            assert "is wrong" in found.message or found.mutant.startswith("scaled by 1 + 1e-9"), found.message


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 3))
def test_every_mutant_is_caught_on_other_inputs(seed):
    assert missed(hunt(all_mutants(), seed=seed)) == []


def test_a_scaffold_without_a_change_passes():
    (found,) = hunt([altered("linear_cross_entropy", lambda grads: grads)])
    assert (found.caught, found.by, found.message) == (False, "", "")
    assert found.error <= found.tolerance


RIGHT = {
    **{name: wrong_formulas.copies(KERNELS[name], unbroadcast) for name in ("add", "divide", "power", "where")},
    "matmul": wrong_formulas.batches(unbroadcast),
    "gelu": wrong_formulas.gelu(),
    "linear": wrong_formulas.linear(""),
    "layer_norm": wrong_formulas.layer_norm(""),
    "dropout": wrong_formulas.dropout(wrong_formulas.rescale),
    "cross_entropy": wrong_formulas.cross_entropy(""),
    "linear_cross_entropy": wrong_formulas.linear_cross_entropy(""),
    "attention": wrong_formulas.attention(""),
    "causal_attention": wrong_formulas.causal_attention(""),
    "causal_self_attention": wrong_formulas.self_attention(lambda d, n_head: d),
    "softmax": wrong_formulas.normalized(lambda g, y, axis: y * (g - wrong_formulas.total(g * y, axis))),
    "logsumexp": wrong_formulas.reduced(lambda x, axis, n: wrong_formulas.softmax(x, axis)),
    "mean": wrong_formulas.reduced(lambda x, axis, n: 1 / n),
    "embedding": wrong_formulas.embedding(lambda d, g, ids: d),
    "getitem": wrong_formulas.taken(lambda d: d),
}


def test_a_wrong_formula_without_its_mistake_is_right(for_each):
    """So a mutant is caught for its mistake, and for nothing else in its formula."""

    def check(case):
        assert isinstance(case.make, Call)
        mutant = mutants._mistaken("no mistake", case.covers, RIGHT[case.covers])
        assert not mutants._differ(case.make.kernel, mutant.plant(case.make.kernel), case.make)

    cases = [case for case in basic_cases() if case.covers in RIGHT]
    assert {case.covers for case in cases} == set(RIGHT)
    for_each(cases, check)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grads: (*grads, grads[0]), "returned 2 gradients for 1 inputs"),
        (lambda grads: (), "returned 0 gradients for 1 inputs"),
        (lambda grads: (grads[0].astype(np.float32),), "is float32, not float64"),
        (lambda grads: (grads[0][:, :1],), "has shape .*, but the input has"),
        (lambda grads: (grads[0] * np.nan,), "analytic nan"),
        (lambda grads: (grads[0] + 1e-6,), "is wrong at index"),
    ],
)
def test_gradients_of_a_wrong_number_dtype_or_shape_are_caught(change, message):
    (found,) = hunt([altered("tanh", change)])
    assert found.caught
    with pytest.raises(GradcheckError, match=message):
        raise GradcheckError(found.message)


def test_float32_catches_a_promotion_that_the_other_methods_miss():
    always_double = altered("tanh", lambda grads: (grads[0].astype(np.float64),))
    assert missed(hunt([always_double])) == [("tanh", "a test's")]
    assert missed(hunt([always_double], "float32")) == []


def cube(x):
    return x**3, lambda g: (3 * g * x * x,)


def test_mutants_of_a_new_kernel_are_planted_and_caught(monkeypatch):
    monkeypatch.setitem(KERNELS, "cube", cube)
    monkeypatch.setattr(mutants, "basic_cases", lambda: [Case("kernels", "cube", "", Call(cube, (normal(2, 3),), {}))])
    new = mutants.mutants(["cube"])
    assert len(new) >= 6
    assert [found.caught for found in hunt(new)] == [True] * len(new)


# ---- what weaker methods miss ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_differences_miss_errors_below_their_tolerance():
    some = [mutant for kernel in ("gelu", "softmax", "max") for mutant in mutants_of(kernel)]
    tiny = [(m.kernel, m.name) for m in some if m.name.startswith(TINY)]
    assert len(tiny) == 2  # max has a kink, so its own tolerance is 1e-9
    assert set(tiny) == set(missed(hunt(some, "richardson")))
    by_central = missed(hunt(some, "central"))
    assert set(tiny) < set(by_central)
    assert {name.partition(",")[0] for _, name in by_central} == {
        "scaled by 1 + 1e-6",
        TINY,
        "largest element scaled by 1 + 1e-6",
        "rounded to float32",
    }


def test_adjoint_misses_rounding():
    assert missed(hunt(mutants_of("reshape"), "adjoint")) == [("reshape", "rounded to float32")]


def test_float32_notices_only_a_wrong_shape():
    hunts = list(hunt(mutants_of("gelu"), "float32"))
    assert [found.mutant for found in hunts if found.caught] == ["an axis too many"]


def test_a_method_is_used_only_for_kernels_that_allow_it():
    assert list(hunt(mutants_of("relu"), "complex")) == []
    assert list(hunt(mutants_of("gelu"), "adjoint")) == []
    with pytest.raises(ValueError, match="unknown method 'complexx'"):
        hunt([], "complexx")


def test_cases_that_the_right_kernel_fails_catch_nothing(monkeypatch):
    def half_right(x):
        return x**3, lambda g: (g * x * x,)

    case = Case("kernels", "tanh", "", Call(half_right, (normal(2, 3),), {}))
    monkeypatch.setattr(mutants, "basic_cases", lambda: [case])
    assert list(hunt([altered("tanh", lambda grads: grads)])) == []


# ---- what a broken checker misses -----------------------------------------------------------------------------------


@pytest.fixture
def no_second_look(monkeypatch):
    """Without the difference along one real direction, which would catch the worst of what a broken checker misses."""
    monkeypatch.setattr(checkers, "refuse_lost_part", lambda L, grads: None)


def test_a_checker_with_too_wide_a_tolerance_misses_mutants(monkeypatch, no_second_look):
    monkeypatch.setitem(checkers.TOLERANCE, "complex", 1.0)
    through = missed(hunt(mutants_of("layer_norm")))
    assert len(through) > 6
    assert ("layer_norm", "eps forgotten") in through


def test_a_checker_that_compares_the_gradient_with_itself_misses_all_wrong_numbers(monkeypatch, no_second_look):
    monkeypatch.setattr(checkers._Check, "_one", lambda self, name, t, g, by, step: checkers.comparison(name, g, g))
    hunts = list(hunt(mutants_of("layer_norm")))
    assert [found.mutant.partition(",")[0] for found in hunts if found.caught] == ["an axis too many"]


def test_cases_without_a_bias_miss_its_mutants(monkeypatch):
    without = [case for case in basic_cases() if case.name == "layer_norm no bias"]
    monkeypatch.setattr(mutants, "basic_cases", lambda: without)
    assert ("layer_norm", "dbias averaged") in missed(hunt(mutants_of("layer_norm")))


# ---- an input that is used twice -------------------------------------------------------------------------------------


def matrix_product(mistake=None):
    def kernel(x):
        def vjp(g):
            return (2 * (g @ x) if mistake == "symmetric" else g.T @ x if mistake == "one term" else (g + g.T) @ x,)

        return x @ x.T, vjp

    return kernel


def with_bias(mistake=None):
    def kernel(x):
        return x + x[0], lambda g: (g + np.eye(len(x))[:, :1] * (g[0] if mistake == "un-broadcast" else g.sum(0)),)

    return kernel


X = np.random.default_rng(5).standard_normal((3, 5))


@pytest.mark.parametrize(
    "wrong",
    [matrix_product("one term"), matrix_product("symmetric"), with_bias("un-broadcast")],
    ids=["x xᵀ with one term", "x xᵀ taken for symmetric g", "bias without its sum"],
)
def test_a_mistake_in_one_of_two_uses_of_an_input_is_caught(wrong):
    for seed in range(5):
        with pytest.raises(GradcheckError, match="the gradient of input 0 is wrong"):
            gradcheck(lambda x: apply(wrong, x), [X], seed=seed)


@pytest.mark.parametrize("right", [matrix_product(), with_bias()])
def test_the_right_formula_passes(right):
    assert gradcheck(lambda x: apply(right, x), [X])
