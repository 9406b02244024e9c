"""`check_gradient`: 54 gradients of students, every form of function and input, and messages for what does not fit."""

import math
import re

import numpy as np
import pytest
from student_gradients import STUDENTS

from tinygrad_llm.autograd import Tensor, apply
from tinygrad_llm.gradcheck import GradcheckError, check_gradient, gradcheck

X = np.random.default_rng(0).standard_normal((2, 3))
Y = np.random.default_rng(1).standard_normal((2, 3))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_27_correct_gradients_of_students_pass_and_27_wrong_ones_do_not(seed):
    assert len(STUDENTS) == len({s.name for s in STUDENTS}) == 27
    accused, passed = [], []
    for s in STUDENTS:
        right = check_gradient(s.f, s.right, s.x, seed=seed, raise_exception=False)
        wrong = check_gradient(s.f, s.wrong, s.x, seed=seed, raise_exception=False)
        accused += [] if right else [f"{s.name}: {right}"]
        passed += [f"{s.name}: {s.mistake}"] if wrong or not wrong.confirmed else []
    assert (accused, passed) == ([], [])


# Data of these means and deviations loses digits to rounding, or has another scale than the steps of differences.
ILL_CONDITIONED = [
    (1000, 1e-3),
    (0, 1e6),
    (1e8, 1),
    pytest.param(0, 1e-6, marks=pytest.mark.slow),
    pytest.param(1e6, 1e-4, marks=pytest.mark.slow),
    pytest.param(1, 1e-6, marks=pytest.mark.slow),
]
NORMALIZE = {"batch norm", "layer norm", "(x − mean) / x.std", "RMS norm", "x / ‖x‖", "cosine distance"}


def moved(x, mean, std):
    """The first array in x, with another mean and standard deviation; the rest as it is."""
    if isinstance(x, dict):
        return {key: moved(part, mean, std) if key == "x" else part for key, part in x.items()}
    return (moved(x[0], mean, std), *x[1:]) if isinstance(x, tuple) else mean + std * x


@pytest.mark.parametrize(("mean", "std"), ILL_CONDITIONED)
def test_no_correct_gradient_is_accused_on_ill_conditioned_data_and_the_message_says_what_to_do(mean, std):
    accused, passed, silent, told = [], [], [], 0
    for s in (s for s in STUDENTS if s.name in NORMALIZE):
        x = moved(s.x, mean, std)
        if s.name == "cosine distance":
            x = tuple(mean + std * part for part in s.x)
        for df in (s.right, s.wrong):
            try:
                result = check_gradient(s.f, df, x)
                told += df is s.right
                passed += [s.name] if df is s.wrong and result and not equal_there(s, x) else []
            except GradcheckError as error:
                accused += [str(error)] if df is s.right and "is wrong" in str(error) else []
                silent += (
                    [] if "is wrong" in str(error) or "Check the formula at other inputs" in str(error) else [error]
                )
    assert (accused, passed, silent) == ([], [], [])
    assert told == 6 or mean != 0  # scale alone loses no digits


def equal_there(s, x):
    """Whether the mistake is too small to be seen at x: eps next to a variance of 1e12."""
    return s.name == "layer norm" and np.std(x["x"]) > 1e5


def quartic(p):
    return np.sum(p["a"] ** 2) * p["inner"][0] + p["n"]


ACCEPTED = {
    "ufuncs": (np.sin, np.cos, X),
    "a number": (lambda x: x**3, lambda x: 3 * x**2, 0.5),
    "an integer, for a number": (lambda x: x**3, lambda x: 3 * x**2, 2),
    "math, which takes no complex number": (math.exp, math.exp, 0.5),
    "a Python float as output": (lambda x: float(np.sum(x * x)), lambda x: 2 * x, X),
    "element by element": (lambda x: x * x * x, lambda x: 3 * x * x, X),
    "g first": (lambda x: x.T @ x, lambda g, x: x @ (g + g.T), X),
    "g and options": (lambda x, k=2: x**k, lambda g, x, k=2: g * k * x ** (k - 1), X),
    "a tuple of one": (lambda x: x**2, lambda g, x: (2 * g * x,), X),
    "(out, vjp)": (lambda x: (x**2, lambda g: (2 * g * x,)), None, X),
    "(out, vjp) of two inputs": (lambda a, b: (a * b, lambda g: (g * b, g * a)), None, [X, Y]),
    "(out, cache)": (lambda x: (x**2, {"x": x}), lambda g, cache: 2 * g * cache["x"], X),
    "two inputs": (lambda a, b: np.sum(a * b), lambda a, b: (b, a), (X, Y)),
    "two numbers": (lambda a, b: a * b, lambda a, b: (b, a), (2.0, 3.0)),
    "an integer input": (lambda a, n: np.sum(a**n), lambda a, n: n * a ** (n - 1), (X, 3)),
    "an integer input with None": (lambda a, n: np.sum(a**n), lambda a, n: (n * a ** (n - 1), None), (X, np.array(3))),
    "ids and words": (lambda a, i, how: a[i].sum(), lambda a, i, how: np.eye(2)[i][:, None] + 0 * a, (X, 1, "sum")),
    "a dict": (lambda p: p["a"] @ p["b"], lambda g, p: {"a": np.outer(g, p["b"]), "b": p["a"].T @ g},
               {"a": X, "b": Y[0]}),
    "a dict with a vjp": (lambda p: (p["a"] * 2, lambda g: {"a": 2 * g}), None, {"a": X}),
    "a dict beside an input": (lambda p, x: np.sum(p["w"] * x), lambda p, x: ({"w": x}, p["w"]), ({"w": X}, Y)),
    "a nested dict": (quartic, lambda p: {"a": 2 * p["a"] * p["inner"][0], "inner": [np.sum(p["a"] ** 2)]},
                      {"a": X, "inner": [0.5], "n": 3}),
    "an input in float32": (np.sin, np.cos, X.astype(np.float32)),
}  # fmt: skip


def test_every_form_of_function_and_input_is_accepted_and_a_wrong_factor_is_found(for_each):
    def check(name):
        f, df, x = ACCEPTED[name]
        assert check_gradient(f, df, x)
        with pytest.raises(GradcheckError, match=r"the gradient of .* is wrong"):
            check_gradient(lambda *args: twice(f(*args)), df, x)

    def twice(y):
        return (2 * y[0], y[1]) if isinstance(y, tuple) else 2 * y

    for_each(ACCEPTED, check)


def test_inputs_are_named_and_counted():
    f, df, x = ACCEPTED["a nested dict"]
    assert [(c.name, c.elements) for c in check_gradient(f, df, x).comparisons] == [("a", 6), ("inner.0", 1)]
    f, df, x = ACCEPTED["a dict beside an input"]
    assert [c.name for c in check_gradient(f, df, x).comparisons] == ["p.w", "x"]
    assert [c.name for c in check_gradient(np.sin, np.cos, X).comparisons] == ["x"]
    for x, wrong, message in (
        ({"a": X}, 1.0, r"the gradient of x is a float\w*, not a dict"),
        ({"a": [X]}, {"a": 1.0}, r"the gradient of a is a float\w*, not a list"),
        ({"a": X}, {"a": X, "b": X, "c": X}, "df returned a gradient of b, c, which is not an input"),
    ):
        with pytest.raises(GradcheckError, match=message):
            check_gradient(lambda x: 0.0, lambda x, wrong=wrong: wrong, x)


def test_the_arguments_of_gradcheck_are_passed_on():
    assert check_gradient(np.abs, np.sign, X + 3, "richardson").method == "richardson"
    assert check_gradient(np.sin, np.cos, X, "directions", tolerance=1e-3).tolerance == 1e-3
    assert not check_gradient(np.sin, np.sin, X, raise_exception=False)


@pytest.mark.parametrize("tolerance", [0.05, 1e-11])
def test_the_tolerance_of_the_caller_holds_where_real_differences_decide(tolerance):
    """But not below what differences can tell."""
    result = check_gradient(np.abs, lambda x: 1.01 * np.sign(x), X + 3, tolerance=tolerance, raise_exception=False)
    assert (result.method, bool(result)) == ("richardson", tolerance > 0.01)
    assert result.tolerance == max(tolerance, 1e-9)
    assert check_gradient(np.abs, np.sign, X + 3, tolerance=tolerance)


MISFITS = {
    "a bare return": (lambda x: x * 2, None, X, r"f returned a bare ndarray: return \(out, vjp\)"),
    "out and no function": (lambda x: (x, 3), None, X, r"returned \(out, int\)"),
    "nothing": (lambda x: None, np.cos, X, "got NoneType"),
    "a list": (lambda x: [1.0], np.cos, X, "got list"),
    "a Tensor": (lambda x: Tensor(x), np.cos, X, "f returned a Tensor: .* use gradcheck"),
    "a Tensor for x": (np.sin, np.cos, Tensor(X), "x is a Tensor: .* gradcheck"),
    "no tuple": (lambda x: (x * 2, lambda g: 2 * g), None, X, r"bare ndarray, not a tuple: write return \(dx,\)"),
    "both": (lambda x: (x * 2, lambda g: (2 * g,)), np.cos, X, "give None for df"),
    "a Python float": (lambda x: np.sum(x * x), lambda x: 2.0, X, r"of x is one number, but x has shape \(2, 3\)"),
    "a float of each element": (lambda x: x * 2, lambda x: 2.0, X, r"of x is one number, but x has shape \(2, 3\)"),
    "transposed": (lambda x: np.sum(x * x), lambda x: 2 * x.T, X, r"shape \(3, 2\), but .*\(2, 3\): is it transposed"),
    "not summed": (lambda b: np.sum(X + b), lambda b: np.ones((2, 3)), X[0], r"shape \(2, 3\), but b|sum it over"),
    "no g": (lambda x: x @ x.T, lambda x: 2 * x, X, r"array of shape \(2, 2\), and df one of \(2, 3\): .*df\(g, x\)"),
    "one for two": (lambda a, b: np.sum(a * b), lambda a, b: b, (X, Y), "1 gradients for 2 inputs: return a tuple"),
    "None": (lambda a, b: np.sum(a * b), lambda a, b: (b, None), (X, Y), "no gradient of b"),
    "a missing key": (lambda p: p["a"].sum(), lambda p: {}, {"a": X}, "no gradient of a"),
    "an unknown key": (lambda p: p["a"].sum(), lambda p: {"a": 1 + 0 * X, "c": 1}, {"a": X}, "is not an input"),
    "no dict": (lambda p: p["a"].sum(), lambda p: 1 + 0 * X, {"a": X}, "is a ndarray, not a dict"),
    "words": (lambda x: np.sum(x), lambda x: "ones", X, "must be a float array"),
    "zeros": (lambda x: np.sum(x * x), np.zeros_like, X, "is wrong at .*0 everywhere: was the array of np.zeros"),
    "integers": (lambda i: i.sum(), lambda i: 1, np.array([1, 2]), "nothing to check"),
}


def test_functions_and_gradients_that_do_not_fit_have_their_own_messages(for_each):
    def check(name):
        f, df, x, message = MISFITS[name]
        with pytest.raises(GradcheckError) as caught:
            check_gradient(f, df, x)
        assert re.search(message, str(caught.value)), str(caught.value)

    for_each(MISFITS, check)


def test_gradcheck_advises_on_a_plain_numpy_function_and_an_incomplete_kernel(for_each):
    cases = [
        (lambda x: x.dot(Y.T), "'Tensor' object has no attribute 'dot'. .*use check_gradient"),
        (lambda x: x.data * 2, "got ndarray. .*use check_gradient"),
        (np.sin, "np.sin has no gradient, .*use check_gradient"),
        (lambda x: np.linalg.norm(x) ** 2, "np.norm has no gradient, .*use check_gradient"),
        (lambda x: apply(lambda x: x * 2, x), "A kernel returns a pair"),
        (lambda x: apply(lambda x: x.sum(), x), "A kernel returns a pair"),
        (lambda x: apply(lambda x: (float(x.sum()), lambda g: (g,)), x), "A kernel returns a pair"),
    ]

    def check(case):
        with pytest.raises(GradcheckError) as caught:
            gradcheck(case[0], [X])
        assert re.search(case[1], str(caught.value)), str(caught.value)

    for_each(cases, check)
