"""The table of cases: everything in it is proven, everything there is stands in it, and no case can be left out."""

import dataclasses
import inspect
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import functional, kernels, models, nn, optim
from tinygrad_llm.autograd import Tensor, apply
from tinygrad_llm.gradcheck import TOLERANCE, Case, GradcheckError, all_cases, run, uncovered
from tinygrad_llm.gradcheck.cases import LAYOUTS, Call
from tinygrad_llm.gradcheck.checkers import GradcheckResult, comparison
from tinygrad_llm.gradcheck.ledger import needed
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.kernels.contract import Rows, exp_is_safe
from tinygrad_llm.random import Generator

CASES = all_cases()
KERNEL_CASES = [case for case in CASES if case.group == "kernels"]

BINARY = {"add", "subtract", "multiply", "divide", "power", "maximum", "where"}
REDUCTIONS = {"sum", "mean", "max", "var", "logsumexp"}
KINKED = {"relu", "absolute", "maximum", "max"}
LINEAR = {"add", "subtract", "multiply", "negative", "where", "sum", "reshape", "transpose", "broadcast_to", "getitem",
          "concatenate", "stack", "matmul", "linear", "einsum", "embedding"}  # fmt: skip
# Linear too, but for a division that only some sizes make exact: those cases are proven by adjoint that can be.
SOMETIMES_EXACT = {"mean", "dropout"}


def drawn(case, seed=0):
    """(inputs, options) as the kernel of a case gets them."""
    return case.make.arrays(Generator(seed)), case.make.options


def basic(kernel):
    """The cases of a kernel by its sharpest method, in C order: the ones that say which inputs there are."""
    sharp = "richardson" if kernel in KINKED else "complex"
    return [c for c in KERNEL_CASES if c.covers == kernel and c.method == sharp and c.make.layout == "C order"]


def shapes_of(case):
    return tuple(np.shape(x) for x in drawn(case)[0])


def signature(case):
    """What a case of a kernel exercises: shapes and dtypes, integers and masks themselves, large numbers, options."""
    inputs, options = drawn(case)
    seen = [
        (x.shape, x.dtype.kind, x.tobytes() if x.dtype.kind in "iub" else bool(np.max(np.abs(x), initial=0) > 20))
        for x in map(np.asarray, inputs)
    ]
    return repr((case.covers, case.method, case.make.layout, seen, sorted(options.items())))


# ---- everything in the table is proven -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_gradient_is_proven(case):
    (row,) = run([case])
    assert row.passed, row.message
    assert row.elements > 0
    assert row.tolerance == TOLERANCE.get(case.method, 1e-12)
    assert row.error <= row.tolerance
    assert (row.group, row.covers, row.name, row.method) == (case.group, case.covers, case.name, case.method)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_other_inputs_are_proven_too(seed):
    assert [(row.name, row.message) for row in run(CASES, seed) if not row.passed] == []


def test_there_is_a_row_for_each_case_in_its_order():
    cases = CASES[::40]
    assert [row.name for row in run(cases)] == [case.name for case in cases]


def test_the_table_is_large_and_names_are_unique():
    assert len(CASES) >= 600
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_no_two_kernel_cases_are_the_same():
    signatures = [signature(case) for case in KERNEL_CASES]
    assert len(set(signatures)) == len(signatures)


def test_the_inputs_depend_on_the_seed_alone():
    for case in KERNEL_CASES:
        first, again, other = drawn(case)[0], drawn(case)[0], drawn(case, 1)[0]
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


# ---- how each kernel is proven -------------------------------------------------------------------------------------


def test_what_has_a_kink_is_checked_by_differences_and_all_else_exactly():
    sharp = {
        kernel: {c.method for c in KERNEL_CASES if c.covers == kernel} - {"float32", "adjoint"} for kernel in KERNELS
    }
    assert sharp == {kernel: {"richardson" if kernel in KINKED else "complex"} for kernel in KERNELS}
    assert "central" not in {case.method for case in CASES}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_has_each_case_in_float32_too(kernel):
    float32 = [shapes_of(c) for c in KERNEL_CASES if c.covers == kernel and c.method == "float32"]
    assert float32
    assert sorted(float32) == sorted(shapes_of(case) for case in basic(kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_checked_in_every_memory_layout(kernel):
    layouts = [c.make.layout for c in KERNEL_CASES if c.covers == kernel and c.make.layout != "C order"]
    assert sorted(layouts) == sorted(set(LAYOUTS) - {"C order"})
    assert len(LAYOUTS) == 4


def test_a_layout_is_what_it_says():
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


@pytest.mark.parametrize("kernel", sorted(LINEAR))
def test_a_linear_kernel_is_exact_by_the_adjoint_identity(kernel):
    adjoint = [c for c in KERNEL_CASES if c.covers == kernel and c.method == "adjoint"]
    assert sorted(map(shapes_of, adjoint)) == sorted(map(shapes_of, basic(kernel)))
    assert [row.error for row in run(adjoint)] == [0.0] * len(adjoint)


def test_whatever_else_the_adjoint_identity_can_prove_is_proven_by_it():
    """Every basic case that it would accept is in the table by adjoint, and no other."""
    accepted = set()
    for case in itertools.chain.from_iterable(map(basic, KERNELS)):
        try:
            with np.errstate(all="ignore"):  # small integers lie outside where log and sqrt are defined
                found = all(dataclasses.replace(case, method="adjoint").check(seed) for seed in range(3))
        except GradcheckError:
            continue
        if found:
            accepted.add((case.covers, shapes_of(case), repr(case.make.options)))
    there = {(c.covers, shapes_of(c), repr(c.make.options)) for c in KERNEL_CASES if c.method == "adjoint"}
    assert there <= accepted
    # Dropout of everything is 0: there is nothing to be exact about.
    assert {case for case in accepted - there if "'p': 1.0" not in case[2]} == set()
    assert {covers for covers, *_ in there} == LINEAR | SOMETIMES_EXACT


# ---- no case can be left out ---------------------------------------------------------------------------------------

# Point by point, the ways in which two shapes broadcast: none, one or two axes missing, length 1 on either side, on
# both, no elements in common.
PAIRS = [
    ((), (1,)), ((), (2,)), ((2,), (1,)), ((2,), (2, 1)), ((2,), (1, 2)), ((2,), (3, 2)), ((2,), (1, 3, 2)),
    ((3, 2), (1, 3, 2)), ((3, 2), (3, 1, 2)), ((), (2, 3, 2)), ((1, 3, 2), (3, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("kernel", sorted(BINARY))
def test_a_binary_kernel_is_checked_on_each_broadcast_pair(kernel):
    pairs = {shapes_of(case)[-2:] for case in basic(kernel)}
    assert set(PAIRS) <= pairs
    assert any(a == b and len(a) > 1 for a, b in pairs)


@pytest.mark.parametrize("kernel", sorted(REDUCTIONS))
def test_a_reduction_is_checked_over_each_form_of_axis(kernel):
    forms = set()
    for case in basic(kernel):
        (x,), options = drawn(case)
        axis, keepdims = options.get("axis"), options.get("keepdims", False)
        kind = "none" if axis is None else "tuple" if isinstance(axis, tuple) else "negative" if axis < 0 else "int"
        first, last = axis == 0, axis in (-1, x.ndim - 1)
        forms.add((kind, "keepdims" if keepdims else "", "first" if first else "last" if last else ""))
    assert forms >= {("none", "", ""), ("int", "", "first"), ("int", "", ""), ("negative", "keepdims", "last")}
    assert any(kind == "tuple" for kind, *_ in forms)


@pytest.mark.parametrize("kernel", ["softmax", "log_softmax", "concatenate", "stack"])
def test_a_kernel_along_one_axis_is_checked_along_the_first_and_the_last(kernel):
    defaults = inspect.signature(KERNELS[kernel]).parameters["axis"].default
    assert {case.make.options.get("axis", defaults) for case in basic(kernel)} >= {0, -1}


def test_cross_entropy_is_checked_in_each_reduction_and_with_both_ways_to_ignore():
    seen = [drawn(case) for case in basic("cross_entropy")]
    assert {options.get("reduction", "mean") for _, options in seen} == {"mean", "sum", "none"}
    ignored = {
        options.get("ignore_index", -100) for (_, t), options in seen if (t == options.get("ignore_index", -100)).any()
    }
    assert -100 in ignored
    assert any(index >= 0 for index in ignored)  # one that would also be a target


def test_matmul_is_checked_on_vectors_matrices_and_batches_on_both_sides():
    ranks = {tuple(len(s) for s in shapes_of(case)) for case in basic("matmul")}
    assert ranks >= {(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3)}
    stretched = [
        (a, b) for a, b in map(shapes_of, basic("matmul")) if min(len(a), len(b)) > 2 or (len(a) > 3 and 1 in a[:-2])
    ]
    assert stretched  # an axis of length 1 that is broadcast


def test_einsum_is_checked_on_each_kind_of_subscripts():
    subscripts = [case.make.options["subscripts"] for case in basic("einsum")]
    kinds = {
        "spelt out": [s for s in subscripts if "->" in s and "." not in s],
        "implicit": [s for s in subscripts if "->" not in s],
        "a diagonal": [
            s for s in subscripts if any(len(set(t)) < len(t) for t in s.split("->")[0].replace(".", "").split(","))
        ],
        "a diagonal that stays": [s for s in subscripts if s == "ii->i"],
        "a trace": [s for s in subscripts if s == "ii"],
        "summed away": [s for s in subscripts if s.endswith("->") and "," not in s],
        "three operands": [s for s in subscripts if s.count(",") == 2],
        "an outer product": [
            s for s in subscripts if len(set(s.split("->")[0])) == len(s.split("->")[0].replace(",", "")) + 1
        ],
        "implicit, of two": [s for s in subscripts if "->" not in s and "," in s],
        "a diagonal summed, another axis kept": [s for s in subscripts if s == "iij->j"],
        "ellipsis": [s for s in subscripts if s.count("...") >= 3],
        "ellipsis of one operand": [s for s in subscripts if "..." in s and "," not in s],
        "an axis stretched": [c for c in basic("einsum") if any(1 in s for s in shapes_of(c)) and "." not in c.label],
    }
    assert [kind for kind, found in kinds.items() if not found] == []


def test_getitem_is_checked_on_each_kind_of_index():
    def kinds(index):
        parts = index if isinstance(index, tuple) else (index,)
        arrays = [p for p in parts if isinstance(p, np.ndarray)]
        places = (
            np.stack([a.ravel() for a in arrays], 1) if arrays and arrays[0].dtype.kind == "i" else np.zeros((0, 1))
        )
        return {
            "slice": any(isinstance(p, slice) for p in parts),
            "backwards": any(isinstance(p, slice) and (p.step or 1) < 0 for p in parts),
            "int": any(isinstance(p, int) for p in parts),
            "None": any(p is None for p in parts),
            "...": any(p is Ellipsis for p in parts),
            "integers": any(a.dtype.kind == "i" for a in arrays),
            "negative": any((a < 0).any() for a in arrays if a.dtype.kind == "i"),
            "two arrays": len(arrays) == 2,
            "one twice": len(np.unique(places, axis=0)) < len(places),
            "a pair twice": len(arrays) == 2 and len(np.unique(places, axis=0)) < len(places),
            "mask": any(a.dtype.kind == "b" for a in arrays),
        }

    seen = [kinds(case.make.options["index"]) for case in basic("getitem")]
    assert [kind for kind in seen[0] if not any(found[kind] for found in seen)] == []


def test_each_kernel_is_checked_with_and_without_each_array_that_may_be_missing():
    for name, kernel in KERNELS.items():
        parameters = inspect.signature(kernel).parameters.values()
        arrays = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        optional = [i for i, p in enumerate(arrays) if p.default is None]
        counts = {len(drawn(case)[0]) for case in basic(name)}
        assert counts >= {*optional, len(arrays)} if arrays else max(counts) > 1, name


def test_each_option_of_each_kernel_takes_a_value_that_is_not_its_default():
    missing = []
    for name, kernel in KERNELS.items():
        for option in inspect.signature(kernel).parameters.values():
            if option.kind is not option.KEYWORD_ONLY or option.name == "needs":  # `needs` is the engine's
                continue
            values = [case.make.options[option.name] for case in basic(name) if option.name in case.make.options]
            if all(value is option.default or (np.isscalar(value) and value == option.default) for value in values):
                missing.append((name, option.name))
    assert missing == []


def test_special_values_that_a_formula_treats_apart():
    exponents = [x for case in basic("power") for x in drawn(case)[0][1:] if np.asarray(x).dtype.kind == "i"]
    assert any((n == 0).any() and (n > 1).any() for n in exponents)
    assert {case.make.options["p"] for case in basic("dropout")} >= {0.5, 1.0}
    assert len({case.make.options["p"] for case in basic("dropout")}) >= 3  # and one that is not exact
    assert any(
        max(np.bincount(ids.ravel())) > 1 for _, ids in (drawn(c)[0] for c in basic("embedding"))
    )  # one id twice
    assert any(ids.ndim == 0 for _, ids in (drawn(c)[0] for c in basic("embedding")))
    assert any(q.shape[-2] < k.shape[-2] for q, k, *_ in (drawn(c)[0] for c in basic("causal_attention")))
    assert any(len(shapes_of(c)[0]) == 1 for c in basic("linear"))
    assert any(len(shapes_of(c)[0]) > 2 for c in basic("linear"))
    assert {len(drawn(c)[0]) for c in basic("concatenate")} >= {2, 3}
    assert any(len({s[0] for s in shapes_of(c)}) > 1 for c in basic("concatenate"))  # pieces of different length
    conditions = [shapes_of(c) for c in basic("where")]
    assert any(c != np.broadcast_shapes(a, b) for c, a, b in conditions)
    assert {len(case.make.options.get("axes") or ()) for case in basic("transpose")} >= {0, 3}
    assert any(min(case.make.options.get("axes") or (0,)) < 0 for case in basic("transpose"))
    assert any(p.ndim == 4 for p, *_ in (drawn(c)[0] for c in basic("causal_attention")))


def scores(case, seed):
    """What an attention exponentiates: q kᵀ / √D."""
    (x, *others), options = drawn(case, seed)
    if case.covers == "causal_self_attention":
        q, k, _ = x.reshape(*x.shape[:2], 3, options["n_head"], -1).transpose(2, 0, 3, 1, 4)
    else:
        q, k = x, others[0]
    return q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])


@pytest.mark.parametrize("kernel", ["causal_attention", "causal_self_attention"])
def test_exponentials_are_checked_with_a_shift_and_without(kernel):
    for seed in range(3):
        assert {("large" in case.label, exp_is_safe(scores(case, seed))) for case in basic(kernel)} == {
            (False, True),
            (True, False),
        }


@pytest.mark.parametrize("kernel", ["causal_attention", "causal_self_attention"])
def test_attention_is_checked_in_several_blocks_kept_and_recomputed_with_dropout_and_without(kernel):
    seen = set()
    for case in basic(kernel):
        (x, *others), options = drawn(case)
        Tq = x.shape[-2]
        if Tq % options.get("block", 64) and Tq > options.get("block", 64):  # the last block is a shorter one
            longer = kernel == "causal_attention" and others[0].shape[-2] > Tq
            seen.add((bool(options.get("recompute")), options.get("p", 0) > 0, longer))
    wanted = {(recompute, dropped, False) for recompute in (False, True) for dropped in (False, True)}
    assert seen >= wanted | ({(False, False, True), (True, False, True)} if kernel == "causal_attention" else set())


def test_a_head_and_its_loss_are_checked_in_chunks_with_ignored_rows_smoothing_and_a_count_of_its_own():
    seen = set()
    for case in basic("linear_cross_entropy"):
        (x, weight, targets), options = drawn(case)
        parts = -(-len(x) * len(weight) // options.get("chunk", 1 << 24))
        seen.add("whole" if parts == 1 else "uneven" if len(x) % parts else "even")
        ignored = options.get("ignore_index", -100)
        seen |= {"ignored"} if ignored in targets else set()
        seen |= {"a target ignored"} if ignored >= 0 else set()
        s, count = options.get("label_smoothing", 0.0), options.get("count")
        seen |= {"smoothed"} if 0 < s < 1 else {"smoothed away"} if s == 1 else set()
        n = np.count_nonzero(targets != ignored)
        seen |= set() if count is None else {"fewer"} if count < n else {"more"} if count > n else {"as many"}
    assert seen >= {"whole", "uneven", "ignored", "a target ignored", "smoothed", "smoothed away", "more"}


def lines_of(code):
    """The lines of a function and of those inside it, but for the `def` itself and what only raises."""
    own = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
    return own.union(*(lines_of(c) for c in code.co_consts if inspect.iscode(c)))


@pytest.fixture(scope="module")
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
                getattr(thing, "cache_clear", lambda: None)()  # what other tests have made is made again
    sys.settrace(enter)
    try:
        # What no case can be: no queries at all; float32 beside float64.
        kernels.add(np.ones(2, np.float32), np.ones(2))
        kernels.causal_attention(np.zeros((0, 2)), np.zeros((3, 2)), np.zeros((3, 2)))[1](np.zeros((0, 2)))
        for case in itertools.chain.from_iterable(map(basic, KERNELS)):
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


def test_every_line_of_every_kernel_is_executed_but_for_those_that_raise(executed):
    for path in sorted(Path(kernels.__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        text = source.splitlines()
        module = compile(source, str(path), "exec")
        raising = set()
        for i, line in enumerate(text):
            if line.lstrip().startswith("raise "):
                indent = len(line) - len(line.lstrip())
                end = next((j for j in range(i + 1, len(text)) if text[j].strip() and
                            len(text[j]) - len(text[j].lstrip()) < indent), len(text))  # fmt: skip
                raising |= set(range(i + 1, end + 1))
                # What is worked out only to be put into the message.
                above = i
                while text[above - 1].startswith(" " * indent) and text[above - 1].strip():
                    above -= 1
                raising |= set(range(above + 1, i + 1))
        functions = [c for c in module.co_consts if inspect.iscode(c) and c.co_name != "kernel"]
        wanted = set().union(*(lines_of(c) for c in functions)) - raising
        ran = {line for file, line in executed if Path(file) == path}
        missed = [f"{path.name}:{n} {text[n - 1].strip()}" for n in sorted(wanted - ran)]
        missed = [m for m in missed if not m.split(" ", 1)[1].startswith(("def ", '"""', "@"))]
        assert missed == []


def test_every_function_is_a_case_of_its_own_and_each_reduction_of_the_loss():
    functions = [case for case in CASES if case.group == "functions"]
    assert {c.covers for c in functions} >= {f"F.{name}" for name in functional.__all__}
    labels = {c.label for c in functions if c.covers == "F.cross_entropy"}
    assert labels >= {"mean", "sum", "none", "ignore_index"}
    attention = {c.label for c in functions if c.covers == "F.scaled_dot_product_attention"}
    assert attention >= {"", "causal", "dropout", "causal, dropout"}


def test_every_layer_in_float32_too_and_whole_models_by_directions():
    cases = [case for case in CASES if case.group == "layers and models"]
    exact = [(c.covers, c.label) for c in cases if c.method == "complex"]
    for method, some in (("float32", exact), ("directions", [c for c in exact if c[0] == "GPT"])):
        found = [(c.covers, c.label.removesuffix(f"by {method}").strip()) for c in cases if c.method == method]
        assert found == some


def problem(case, seed=0):
    return case.make(Generator(seed))


def test_the_gpt_is_checked_tied_and_untied_with_dropout_and_without():
    seen = set()
    for case in CASES:
        if case.covers == "GPT" and case.method == "complex" and case.label.startswith("loss"):
            fn, _, names = problem(case)
            free = inspect.getclosurevars(fn).nonlocals
            config = free["model"].config
            assert ("lm_head.weight" in names) is not config.tie_weights
            assert config.n_layer == 2
            assert (free["targets"] == -100).any()
            assert (free["targets"] != -100).any()
            seen.add((config.tie_weights, config.dropout > 0, config.qkv_bias, free["model"].recompute))
    assert {(tied, dropout) for tied, dropout, *_ in seen} == {
        (True, False),
        (True, True),
        (False, False),
        (False, True),
    }
    assert {bias for *_, bias, _ in seen} == {True, False}
    assert {(dropout, recompute) for _, dropout, _, recompute in seen} >= {(True, True), (True, False)}


def test_the_logits_of_a_gpt_are_checked_too():
    assert any(c.covers == "GPT" and c.label == "logits" and c.method == "complex" for c in CASES)


@pytest.mark.parametrize("method", ["complex", "richardson"])
def test_methods_of_tensor_that_are_more_than_one_kernel_are_checked(method):
    called = set()

    def enter(frame, event, _):
        if isinstance(frame.f_locals.get("self"), Tensor):
            called.add(frame.f_code.co_name)

    before = sys.gettrace()
    for case in CASES:
        if case.covers.startswith("Tensor.") and case.method == method:
            fn, inputs, _ = problem(case)
            tensors = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
            sys.settrace(enter)
            try:
                fn(*tensors)
            finally:
                sys.settrace(before)
    composed = {"var", "masked_fill", "expand", "unsqueeze", "flatten", "squeeze", "__radd__", "__sub__", "__rpow__"}
    assert called >= (composed | {"__truediv__", "__mul__"} if method == "complex" else {"max"})


def test_an_optimizer_and_its_clipping_are_compared_with_their_formulas():
    formulas = {case.covers for case in CASES if case.method == "formula"}
    assert formulas == {"SGD", "Adam", "AdamW", "clip_grad_norm_"}


def test_a_layer_with_dropout_is_checked_with_dropout_and_one_with_a_bias_without():
    labels = {(c.covers, c.label) for c in CASES if c.group == "layers and models"}
    for layer in ("CausalAttention", "MultiHeadAttention", "MLP", "Block"):
        assert any(covers == layer and "dropout" in label for covers, label in labels)
        assert any(covers == layer and "dropout" not in label for covers, label in labels)
    assert ("Linear", "no bias") in labels


# ---- everything there is stands in the table -----------------------------------------------------------------------


def test_nothing_is_uncovered():
    assert uncovered() == []
    assert uncovered(CASES) == []


@pytest.mark.parametrize("left_out", needed())
def test_what_is_left_out_is_reported(left_out):
    assert uncovered(case for case in CASES if case.covers != left_out) == [left_out]


def test_what_is_needed_is_all_there_is():
    wanted = needed()
    assert len(set(wanted)) == len(wanted)
    assert set(wanted) >= set(KERNELS) | {f"F.{name}" for name in functional.__all__}
    assert set(wanted) >= {"Linear", "LayerNorm", "Embedding", "Dropout", "MultiHeadAttention", "Block", "GPT", "AdamW"}
    assert uncovered([]) == wanted


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
    monkeypatch.setattr(functional, "__all__", [*functional.__all__, "softplus"])
    monkeypatch.setitem(KERNELS, "erf", lambda x: (x, lambda g: (g,)))
    assert uncovered(CASES) == ["erf", "F.softplus", "Unproven"]


# ---- the ledger ----------------------------------------------------------------------------------------------------


def planted(kernel, method="complex"):
    case = next(case for case in KERNEL_CASES if case.covers == "tanh" and case.method == method)
    return dataclasses.replace(case, make=dataclasses.replace(case.make, kernel=kernel))


def test_a_wrong_gradient_becomes_a_row_with_a_message():
    (row,) = run([planted(lambda x: (np.tanh(x), lambda g: (g,)))])
    assert not row.passed
    assert "input 0 is wrong at index" in row.message
    assert row.error > row.tolerance
    assert row.elements == 12


@pytest.mark.parametrize("method", ["complex", "float32"])
def test_a_gradient_of_nan_becomes_a_row_with_a_message(method):
    (row,) = run([planted(lambda x: (np.tanh(x), lambda g: (g * np.nan,)), method)])
    assert not row.passed
    assert np.isnan(row.error)
    assert "analytic nan" in row.message


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda x: (x * np.nan, lambda g: (g,)), "the output holds NaN"),
        (lambda x: (x * 2, lambda g: (2 * g[None],)), "the vjp is wrong"),
        (lambda x: (x * 2, lambda g: (2 * g, g)), "returned 2 gradients for 1 inputs"),
        (lambda x: (np.abs(x), lambda g: (g * np.sign(x),)), "imaginary part got lost"),
    ],
)
def test_what_cannot_be_checked_becomes_a_row_with_a_message_and_the_others_still_run(kernel, message):
    rows = list(run([planted(kernel), *CASES[:2]]))
    assert [row.passed for row in rows] == [False, True, True]
    assert message in rows[0].message
    assert rows[0].elements == 0
    assert np.isnan(rows[0].error)


def test_a_row_takes_the_worst_of_all_inputs_and_counts_every_element():
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


def test_a_case_checks_the_kernel_it_is_given():
    calls = []

    def spy(x):
        calls.append(x.dtype)
        return KERNELS["tanh"](x)

    assert planted(spy).check()
    assert {d.kind for d in calls} == {"f", "c"}
    assert isinstance(planted(spy).make, Call)
    assert apply(spy, Tensor(np.ones(1))).data[0] == np.tanh(1.0)


def test_a_kernel_that_breaks_down_becomes_a_row_and_the_others_still_run():
    def broken(x):
        raise IndexError("no such thing")

    rows = list(run([planted(broken), *CASES[:2]]))
    assert [row.passed for row in rows] == [False, True, True]
    assert rows[0].message == "IndexError: no such thing"


def test_clipping_is_checked_above_the_norm_and_below_it():
    (case,) = [case for case in all_cases() if case.covers == "clip_grad_norm_"]
    names = {c.name.partition(", ")[2] for c in case.check().comparisons}
    assert len(names) == 2
