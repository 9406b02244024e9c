"""The table of cases: every case is proven, everything public has a case, and no kind of case may be missing."""

import dataclasses
import inspect
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import functional, kernels, models, nn, optim
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.gradcheck import TOLERANCE, Case, GradcheckError, all_cases, run, uncovered
from tinygrad_llm.gradcheck.cases import BROADCAST_PAIRS, LAYOUTS, basic_cases
from tinygrad_llm.gradcheck.ledger import needed
from tinygrad_llm.gradcheck.result import GradcheckResult, comparison
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.kernels.contract import MEANS, Rows, exp_is_safe
from tinygrad_llm.random import Generator

CASES = all_cases()
BASIC = basic_cases()
KERNEL_CASES = [case for case in CASES if case.group == "kernels"]

BINARY = {"add", "subtract", "multiply", "divide", "power", "maximum", "where"}
REDUCTIONS = {"sum", "mean", "max", "var", "logsumexp"}
KINKED = {"relu", "absolute", "maximum", "max"}
LINEAR = {"add", "subtract", "multiply", "negative", "where", "sum", "cumsum", "reshape", "transpose", "broadcast_to",
          "getitem", "concatenate", "stack", "matmul", "linear", "einsum", "embedding"}  # fmt: skip
# Linear, with a division that is exact for some sizes only. Those cases are proven by adjoint.
SOMETIMES_EXACT = {"mean", "dropout"}


def drawn(case, seed=0):
    """(inputs, options) as the kernel of a case gets them."""
    return case.make.arrays(Generator(seed)), case.make.options


def basic(kernel):
    return [case for case in BASIC if case.covers == kernel]


def shapes_of(case):
    return tuple(np.shape(x) for x in drawn(case)[0])


# ---- every case is proven ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covers", dict.fromkeys(case.covers for case in CASES))
def test_every_gradient_is_proven(covers, for_each):
    def check(case):
        (row,) = run([case])
        assert row.passed, row.message
        assert row.elements > 0
        assert row.error <= row.tolerance == TOLERANCE.get(case.method, 1e-12)
        assert (row.group, row.covers, row.name, row.method) == (case.group, case.covers, case.name, case.method)

    for_each([case for case in CASES if case.covers == covers], check)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_every_gradient_is_proven_on_other_inputs(seed):
    assert [(row.name, row.message) for row in run(CASES, seed) if not row.passed] == []


def test_the_table_is_large_and_its_names_are_unique():
    assert len(CASES) >= 600
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_no_two_kernel_cases_are_the_same():
    def signature(case):
        """Shapes and dtypes, integers and masks themselves, whether numbers are large, and options."""
        inputs, options = drawn(case)
        seen = [
            (x.shape, x.dtype.kind, x.tobytes() if x.dtype.kind in "iub" else bool(np.max(np.abs(x), initial=0) > 20))
            for x in map(np.asarray, inputs)
        ]
        return repr((case.covers, case.method, case.make.layout, seen, sorted(options.items())))

    signatures = [signature(case) for case in KERNEL_CASES]
    assert len(set(signatures)) == len(signatures)


def test_the_inputs_depend_on_the_seed_alone(for_each):
    def check(case):
        first, again, other = drawn(case)[0], drawn(case)[0], drawn(case, 1)[0]
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))

    for_each(basic_cases(), check)


# ---- how each kernel is proven -------------------------------------------------------------------------------------


def test_kinked_kernels_are_proven_by_differences_and_all_others_exactly():
    sharp = {
        kernel: {c.method for c in KERNEL_CASES if c.covers == kernel} - {"float32", "adjoint"} for kernel in KERNELS
    }
    assert sharp == {kernel: {"richardson" if kernel in KINKED else "complex"} for kernel in KERNELS}
    assert "central" not in {case.method for case in CASES}


def test_each_kernel_is_proven_in_float32_and_in_every_memory_layout(for_each):
    def check(kernel):
        cases = [case for case in KERNEL_CASES if case.covers == kernel]
        float32 = [shapes_of(case) for case in cases if case.method == "float32"]
        assert sorted(float32) == sorted(shapes_of(case) for case in basic(kernel))
        assert {case.make.layout for case in cases} == set(LAYOUTS)

    for_each(KERNELS, check)


def test_each_layout_has_its_flags():
    x = np.arange(12.0).reshape(3, 4)
    flags = {}
    for layout, (store, show) in LAYOUTS.items():
        shown = show(Tensor(store(x))).data
        np.testing.assert_array_equal(shown, x)
        flags[layout] = (shown.flags.c_contiguous, shown.flags.f_contiguous, min(shown.strides) < 0)
    assert flags == {
        "C order": (True, False, False),
        "F order": (False, True, False),
        "negative strides": (False, False, True),
        "every other element": (False, False, False),
    }


def test_the_adjoint_cases_are_all_that_the_adjoint_identity_can_prove():
    accepted = set()
    for case in basic_cases():
        try:
            with np.errstate(all="ignore"):  # small integers lie outside the domain of log and sqrt
                found = all(dataclasses.replace(case, method="adjoint").check(seed) for seed in range(3))
        except GradcheckError:
            continue
        if found:
            accepted.add((case.covers, shapes_of(case), repr(case.make.options)))
    there = {(c.covers, shapes_of(c), repr(c.make.options)) for c in KERNEL_CASES if c.method == "adjoint"}
    assert there <= accepted
    # With p = 1 dropout is 0, which proves nothing about exactness.
    assert {case for case in accepted - there if "'p': 1.0" not in case[2]} == set()
    assert {covers for covers, *_ in there} == LINEAR | SOMETIMES_EXACT


def test_each_layer_is_proven_exactly_and_in_float32():
    cases = [case for case in CASES if case.group == "layers and models"]
    exact = [(c.covers, c.label) for c in cases if c.method == "complex"]
    single = [(c.covers, c.label.removesuffix("by float32").strip()) for c in cases if c.method == "float32"]
    assert exact == single
    assert len(exact) + len(single) == len(cases)


# ---- no kind of case may be missing ----------------------------------------------------------------------------------


def test_the_broadcast_pairs_stretch_axes_in_every_way():
    def kind(axes):
        return tuple("missing" if n is None else "1" if n == 1 else "n" for n in axes)

    kinds = {
        frozenset(kind(axes) for axes in itertools.zip_longest(a[::-1], b[::-1], fillvalue=None))
        for a, b in BROADCAST_PAIRS
    }
    n, one, missing = "n", "1", "missing"
    assert frozenset().union(*kinds) == {(n, n), (one, n), (n, one), (missing, n), (missing, one)}
    assert {frozenset({(n, n)}), frozenset({(n, n), (one, n), (n, one)})} <= kinds  # none; both inputs stretched
    assert max(len(b) - len(a) for a, b in BROADCAST_PAIRS) > 1  # several axes missing


def test_each_binary_kernel_has_each_broadcast_pair(for_each):
    def check(kernel):
        assert {shapes_of(case)[-2:] for case in basic(kernel)} >= set(BROADCAST_PAIRS)

    for_each(BINARY, check)


def test_each_reduction_has_each_form_of_axis(for_each):
    def check(kernel):
        forms = set()
        for case in basic(kernel):
            (x,), options = drawn(case)
            axis, keepdims = options.get("axis"), options.get("keepdims", False)
            kind = "none" if axis is None else "tuple" if isinstance(axis, tuple) else "negative" if axis < 0 else "int"
            first, last = axis == 0, axis in (-1, x.ndim - 1)
            forms.add((kind, "keepdims" if keepdims else "", "first" if first else "last" if last else ""))
        assert forms >= {("none", "", ""), ("int", "", "first"), ("int", "", ""), ("negative", "keepdims", "last")}
        assert any(kind == "tuple" for kind, *_ in forms)

    for_each(REDUCTIONS, check)


def test_each_kernel_along_one_axis_has_the_first_and_the_last(for_each):
    def check(kernel):
        default = inspect.signature(KERNELS[kernel]).parameters["axis"].default
        assert {case.make.options.get("axis", default) for case in basic(kernel)} >= {0, -1}

    for_each(["softmax", "log_softmax", "concatenate", "stack"], check)


def test_each_kernel_has_cases_with_and_without_each_array_that_may_be_missing(for_each):
    def check(name):
        parameters = inspect.signature(KERNELS[name]).parameters.values()
        arrays = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        optional = [i for i, p in enumerate(arrays) if p.default is None]
        counts = {len(drawn(case)[0]) for case in basic(name)}
        assert counts >= {*optional, len(arrays)} if arrays else max(counts) > 1

    for_each(KERNELS, check)


def test_each_option_of_each_kernel_has_a_value_other_than_its_default(for_each):
    def check(name):
        for option in inspect.signature(KERNELS[name]).parameters.values():
            if option.kind is option.KEYWORD_ONLY and option.name not in MEANS:
                values = [case.make.options[option.name] for case in basic(name) if option.name in case.make.options]
                assert not all(
                    value is option.default or (np.isscalar(value) and value == option.default) for value in values
                ), option.name

    for_each(KERNELS, check)


def parts(index):
    return index if isinstance(index, tuple) else (index,)


def arrays_in(index, kind):
    return [p for p in parts(index) if isinstance(p, np.ndarray) and p.dtype.kind == kind]


def repeats(index):
    places = np.stack([np.ravel(p) for p in arrays_in(index, "i")] or [[]], 1)
    return len(np.unique(places, axis=0)) < len(places)


def terms(subscripts):
    return subscripts.replace(".", "").split("->")[0].split(",")


def id_ignored(targets, ignore_index=-100, **_):
    return ignore_index >= 0 and (targets == ignore_index).any()


def in_blocks(recompute, dropped, longer=False):
    """Attention over several blocks of queries, the last of them shorter than the others."""

    def kind(q, *others, block=64, p=0, **options):
        Tq = q.shape[-2]
        more_keys = bool(others) and others[0].ndim == q.ndim and others[0].shape[-2] > Tq
        wanted = (recompute, dropped, longer)
        return Tq > block and Tq % block > 0 and (bool(options.get("recompute")), p > 0, more_keys) == wanted

    return kind


BLOCKS = {f"blocks, recompute {r}, dropout {d}": in_blocks(r, d) for r, d in itertools.product((False, True), repeat=2)}

# The kinds of input that a gradient treats differently, as predicates of (*inputs, **options). A missing kind that the
# mutants, or the test of executed lines, would notice is not listed.
KINDS = {
    "dropout": {"p 1": lambda x, keep, p: p == 1, "exact scale": lambda x, keep, p: p == 0.5},
    "embedding": {"a single id": lambda w, ids, **o: ids.ndim == 0},
    "where": {"a condition that broadcasts": lambda c, a, b: c.shape != np.broadcast_shapes(a.shape, b.shape)},
    "transpose": {"no axes": lambda x, **o: not o},
    "cross_entropy": {
        "sum": lambda x, t, **o: o.get("reduction") == "sum",
        "an id ignored": lambda x, t, **o: id_ignored(t, **o),
    },
    "linear_cross_entropy": {
        "an id ignored": lambda x, w, t, **o: id_ignored(t, **o),
        "smoothed": lambda x, w, t, **o: 0 < o.get("label_smoothing", 0) < 1,
        "smoothed away": lambda x, w, t, **o: o.get("label_smoothing", 0) == 1,
    },
    "matmul": {
        **{
            str(pair): lambda a, b, pair=pair: (a.ndim, b.ndim) == pair
            for pair in [(1, 2), (2, 1), (3, 1), (1, 3), (3, 2), (2, 3)]
        },
        "a batch axis stretched": lambda a, b: a.ndim > 3 and 1 in a.shape[:-2],
    },
    "einsum": {
        "implicit": lambda *xs, subscripts: "->" not in subscripts and len(xs) > 1,
        "a diagonal": lambda *xs, subscripts: subscripts == "ii->i",
        "a diagonal summed next to another axis": lambda x, *xs, subscripts: (
            not xs and len(set(terms(subscripts)[0])) < x.ndim and subscripts.endswith("->j")
        ),
        "summed away": lambda x, *xs, subscripts: subscripts.endswith("->") and not xs,
        "an outer product": lambda *xs, subscripts: len(xs) > 1 and not set.intersection(*map(set, terms(subscripts))),
        "ellipsis": lambda *xs, subscripts: "..." in subscripts and len(xs) > 1,
        "an axis stretched": lambda *xs, subscripts: "." not in subscripts and any(1 in x.shape for x in xs),
    },
    "getitem": {
        "backwards": lambda x, index: any(isinstance(p, slice) and (p.step or 1) < 0 for p in parts(index)),
        "int": lambda x, index: any(isinstance(p, int) for p in parts(index)),
        "None": lambda x, index: any(p is None for p in parts(index)),
        "...": lambda x, index: any(p is Ellipsis for p in parts(index)),
        "negative": lambda x, index: any((a < 0).any() for a in arrays_in(index, "i")),
        "one twice": lambda x, index: len(arrays_in(index, "i")) == 1 and repeats(index),
        "a pair twice": lambda x, index: len(arrays_in(index, "i")) == 2 and repeats(index),
        "mask": lambda x, index: bool(arrays_in(index, "b")),
    },
    "attention": {
        "leading axes that broadcast": lambda q, k, v, *_, **o: q.shape[:-2] != k.shape[:-2] != v.shape[:-2],
        "values of another size": lambda q, k, v, *_, **o: v.shape[-1] != q.shape[-1],
        "dropout without a mask": lambda *x, **o: len(x) == 5 and x[3].ndim == 0,
        "boolean mask": lambda *x, **o: len(x) == 4 and x[3].dtype == bool,
        "a mask that broadcasts over heads": lambda *x, **o: len(x) == 4 and x[3].ndim == 4 and x[3].shape[1] == 1,
        "a query without keys": lambda *x, **o: len(x) == 4 and x[3].ndim == 2 and not x[3].any(axis=1).all(),
        "an added mask that broadcasts": lambda *x, **o: len(x) == 4 and x[3].dtype != bool and x[3].ndim == 1,
    },
    "causal_attention": {
        "heads": lambda q, *_, **o: q.ndim == 4,
        "more keys than queries": lambda q, k, *_, **o: q.shape[-2] < k.shape[-2],
        **BLOCKS,
        "blocks, more keys than queries": in_blocks(False, False, longer=True),
        "blocks, more keys than queries, recompute": in_blocks(True, False, longer=True),
    },
    "causal_self_attention": BLOCKS,
}


def test_each_kernel_has_each_kind_of_input_that_its_gradient_treats_differently():
    missing = []
    for kernel, kinds in KINDS.items():
        seen = [drawn(case) for case in basic(kernel)]
        missing += [
            (kernel, name)
            for name, kind in kinds.items()
            if not any(kind(*map(np.asarray, inputs), **options) for inputs, options in seen)
        ]
    assert missing == []


def scores(case, seed):
    """The argument of an attention's exponential: q kᵀ / √D."""
    (x, *others), options = drawn(case, seed)
    if case.covers == "causal_self_attention":
        q, k, _ = x.reshape(*x.shape[:2], 3, options["n_head"], -1).transpose(2, 0, 3, 1, 4)
    else:
        q, k = x, others[0]
    return q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])


@pytest.mark.parametrize("kernel", ["attention", "causal_attention", "causal_self_attention"])
def test_exponentials_are_proven_with_and_without_a_shift(kernel):
    for seed in range(3):
        assert {("large" in case.label, exp_is_safe(scores(case, seed))) for case in basic(kernel)} == {
            (False, True),
            (True, False),
        }


def test_each_variant_of_a_function_or_layer_has_a_case():
    labels = {}
    for case in CASES:
        labels.setdefault(case.covers, set()).add(case.label)
    wanted = {
        "F.cross_entropy": {"mean", "sum", "none", "ignore_index"},
        "F.scaled_dot_product_attention": {"", "causal", "dropout", "causal, dropout"},
        "Linear": {"", "no bias"},
        "CausalAttention": {"", "dropout, bias"},
        "MultiHeadAttention": {"", "dropout, no bias"},
        "MLP": {"", "dropout"},
        "Block": {"", "dropout"},
        "clip_grad_norm_": {"above and below"},
    }
    assert {name: kinds - labels[name] for name, kinds in wanted.items() if kinds - labels[name]} == {}


def test_a_whole_gpt_is_proven_tied_and_untied_with_and_without_dropout_and_recompute():
    seen = set()
    for case in CASES:
        if case.covers == "GPT" and case.method == "complex" and case.label.startswith("loss"):
            fn, _, names = case.make(Generator(0))
            free = inspect.getclosurevars(fn).nonlocals
            config, targets = free["model"].config, free["targets"]
            assert ("lm_head.weight" in names) is not config.tie_weights
            assert 0 < np.count_nonzero(targets == -100) < targets.size
            seen |= {
                ("tied" if config.tie_weights else "untied", config.dropout > 0),
                ("qkv bias", config.qkv_bias),
                ("recompute", free["model"].recompute, config.dropout > 0),
                ("two layers", config.n_layer == 2, free["model"].recompute),
            }
    wanted = {(tie, dropout) for tie in ("tied", "untied") for dropout in (False, True)}
    wanted |= {("qkv bias", True), ("qkv bias", False), ("recompute", True, True), ("recompute", False, True)}
    wanted |= {("two layers", True, False), ("two layers", True, True)}
    assert seen >= wanted
    assert any(c.covers == "GPT" and c.label == "logits" and c.method == "complex" for c in CASES)


@pytest.mark.parametrize("method", ["complex", "richardson"])
def test_methods_of_tensor_that_use_several_kernels_are_proven(method):
    called = set()

    def enter(frame, event, _):
        if isinstance(frame.f_locals.get("self"), Tensor):
            called.add(frame.f_code.co_name)

    before = sys.gettrace()
    for case in CASES:
        if case.covers.startswith("Tensor.") and case.method == method:
            fn, inputs, _ = case.make(Generator(0))
            tensors = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
            sys.settrace(enter)
            try:
                fn(*tensors)
            finally:
                sys.settrace(before)
    composed = {"var", "masked_fill", "expand", "unsqueeze", "flatten", "squeeze", "__radd__", "__sub__", "__rpow__"}
    assert called >= (composed | {"__truediv__", "__mul__"} if method == "complex" else {"max"})


# ---- no line of a kernel may be left out ---------------------------------------------------------------------------


def lines_of(code):
    """The lines of a function and of the functions inside it, without the `def` itself."""
    own = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
    return own.union(*(lines_of(c) for c in code.co_consts if inspect.iscode(c)))


def raising_lines(text):
    """The lines of a source that raise an error, or compute its message."""
    raising = set()
    for i, line in enumerate(text):
        if line.lstrip().startswith("raise "):
            indent = len(line) - len(line.lstrip())
            end = next((j for j in range(i + 1, len(text)) if text[j].strip() and
                        len(text[j]) - len(text[j].lstrip()) < indent), len(text))  # fmt: skip
            above = i
            while text[above - 1].startswith(" " * indent) and text[above - 1].strip():
                above -= 1
            raising |= set(range(above + 1, end + 1))
    return raising


@pytest.fixture
def executed():
    """(file, line) of the kernels that the table runs, in forward and backward."""
    folder = str(Path(kernels.__file__).parent)
    seen = set()

    def local(frame, event, _):
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def enter(frame, event, _):
        return local if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    for name, module in list(sys.modules.items()):
        if name.startswith(kernels.__name__ + "."):
            for thing in vars(module).values():
                getattr(thing, "cache_clear", lambda: None)()  # so that the results of other tests are computed again
    sys.settrace(enter)
    try:
        # These cannot be cases: no input with a gradient; no queries at all; float32 with float64; float16.
        kernels.sinusoidal(np.arange(2), 4)
        kernels.add(np.ones(2, np.float32), np.ones(2))
        kernels.causal_attention(np.zeros((0, 2)), np.zeros((3, 2)), np.zeros((3, 2)))[1](np.zeros((0, 2)))
        kernels.embedding(np.ones((2, 1), np.float16), np.array([1]), sparse=True)[1](np.ones((1, 1), np.float16))
        for case in basic_cases():
            inputs, options = drawn(case)
            y, vjp = case.make.kernel(*inputs, **options)
            for d in vjp(np.ones_like(y)):
                if isinstance(d, Rows):
                    d.add_to(np.zeros(d.shape))
            if "needs" in (case.make.kernel.__kwdefaults__ or {}):
                case.make.kernel(*inputs, **options, needs=(False,) * len(inputs))
    finally:
        sys.settrace(before)
    return seen


def test_every_line_of_every_kernel_is_executed_except_those_that_raise(executed):
    missed = []
    for path in sorted(Path(kernels.__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        text = source.splitlines()
        module = compile(source, str(path), "exec")
        functions = [c for c in module.co_consts if inspect.iscode(c) and c.co_name not in ("kernel", "analytic")]
        wanted = set().union(*(lines_of(c) for c in functions)) - raising_lines(text)
        wanted -= {line for file, line in executed if Path(file) == path}
        lines = [(n, text[n - 1].strip()) for n in sorted(wanted)]
        missed += [f"{path.name}:{n} {line}" for n, line in lines if not line.startswith(("def ", '"""', "@"))]
    assert missed == []


# ---- everything public is in the table -----------------------------------------------------------------------------


def test_everything_needed_is_covered_and_everything_public_is_needed():
    assert uncovered() == uncovered(CASES) == []
    wanted = needed()
    assert uncovered([]) == wanted
    assert len(set(wanted)) == len(wanted)
    assert set(wanted) >= set(KERNELS) | {f"F.{name}" for name in functional.__all__}
    assert set(wanted) >= {"Linear", "LayerNorm", "Embedding", "Dropout", "MultiHeadAttention", "Block", "GPT"}
    assert set(wanted) >= {"SGD", "Adam", "AdamW", "clip_grad_norm_"}


def test_a_name_without_a_case_is_reported(for_each):
    def check(left_out):
        assert uncovered(case for case in CASES if case.covers != left_out) == [left_out]

    for_each(needed(), check)


@pytest.mark.parametrize("package", [nn, models])
def test_a_new_layer_without_a_case_is_reported(package, monkeypatch):
    class Unproven(nn.Module):
        pass

    monkeypatch.setattr(package, "Unproven", Unproven, raising=False)
    monkeypatch.setattr(package, "__all__", [*package.__all__, "Unproven"])
    assert uncovered(CASES) == ["Unproven"]


def test_a_new_optimizer_function_or_kernel_without_a_case_is_reported(monkeypatch):
    class Unproven:
        def step(self):
            pass

    monkeypatch.setattr(optim, "Unproven", Unproven, raising=False)
    monkeypatch.setattr(optim, "__all__", [*optim.__all__, "Unproven"])
    monkeypatch.setattr(functional, "__all__", [*functional.__all__, "mish"])
    monkeypatch.setitem(KERNELS, "sinh", lambda x: (x, lambda g: (g,)))
    assert uncovered(CASES) == ["sinh", "F.mish", "Unproven"]


# ---- the ledger ----------------------------------------------------------------------------------------------------


def planted(kernel, method="complex"):
    case = next(case for case in KERNEL_CASES if case.covers == "tanh" and case.method == method)
    return dataclasses.replace(case, make=dataclasses.replace(case.make, kernel=kernel))


def test_rows_are_in_the_order_of_the_cases():
    cases = CASES[:: len(CASES) // 12]
    assert [row.name for row in run(cases)] == [case.name for case in cases]


def test_a_wrong_gradient_gives_a_row_with_a_message():
    (row,) = run([planted(lambda x: (np.tanh(x), lambda g: (g,)))])
    assert not row.passed
    assert "input 0 is wrong at index" in row.message
    assert row.error > row.tolerance
    assert row.elements == 12


@pytest.mark.parametrize("method", ["complex", "float32"])
def test_a_gradient_of_nan_gives_a_row_with_a_message(method):
    (row,) = run([planted(lambda x: (np.tanh(x), lambda g: (g * np.nan,)), method)])
    assert not row.passed
    assert np.isnan(row.error)
    assert "analytic nan" in row.message


def broken(x):
    raise IndexError("no such thing")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda x: (x * np.nan, lambda g: (g,)), "the output holds NaN"),
        (lambda x: (x * 2, lambda g: (2 * g[None],)), "the vjp is wrong"),
        (lambda x: (x * 2, lambda g: (2 * g, g)), "returned 2 gradients for 1 inputs"),
        (lambda x: (np.abs(x), lambda g: (g * np.sign(x),)), r"np.absolute loses the imaginary part"),
        (broken, "IndexError: no such thing"),
    ],
)
def test_a_case_that_cannot_be_checked_gives_a_row_with_a_message_and_the_others_still_run(kernel, message):
    rows = list(run([planted(kernel), *CASES[:2]]))
    assert [row.passed for row in rows] == [False, True, True]
    assert message in rows[0].message
    assert rows[0].elements == 0
    assert np.isnan(rows[0].error)


def test_a_row_has_the_worst_error_of_all_inputs_and_counts_every_element():
    x = np.ones((2, 3))

    @dataclasses.dataclass(frozen=True)
    class Two(Case):
        def check(self, seed=0):
            return GradcheckResult(
                "formula", 1e-3, [comparison("a", x, x), comparison("b", x, x + 0.5), comparison("c", x, x)]
            )

    (row,) = run([Two("optimizers", "AdamW", "two", lambda rng: (lambda: None, [], []), "formula")])
    assert not row.passed
    assert row.elements == 18
    assert row.error == pytest.approx(0.5 / 1.01)
    assert row.message.startswith("b is wrong at index (0, 0): analytic 1, numeric (formula) 1.5")


def test_a_case_checks_the_kernel_it_holds():
    calls = []

    def spy(x):
        calls.append(x.dtype)
        return KERNELS["tanh"](x)

    assert planted(spy).check()
    assert {d.kind for d in calls} == {"f", "c"}


def test_clipping_is_compared_above_the_norm_and_below_it():
    (case,) = [case for case in CASES if case.covers == "clip_grad_norm_"]
    names = {c.name.partition(", ")[2] for c in case.check().comparisons}
    assert len(names) == 2
