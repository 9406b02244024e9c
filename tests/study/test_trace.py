"""A trace: complete, consistent, right in its proofs, and what it says about steps, updates and mistakes is true."""

import base64
import importlib
import json
import math
import re
from unittest.mock import ANY

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor, nn
from tinygrad_llm import functional as F
from tinygrad_llm.gradcheck.mutants import Mutant, mistakes
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.nn import Parameter
from tinygrad_llm.storage.text import to_json
from tinygrad_llm.study import EXAMPLES, example, lenses, numbers, reading, replay, trace_function
from tinygrad_llm.study import trace as trace_model
from tinygrad_llm.study.documentation import document
from tinygrad_llm.study.examples import _learn
from tinygrad_llm.study.recorder import record_model
from tinygrad_llm.study.replay import Replay
from tinygrad_llm.training import Step

traces = importlib.import_module("tinygrad_llm.study.trace")  # the name in `study` is the function

NASTY = "</script><img src=x onerror=alert(1)>"


def small(**changes):
    sizes = {"vocab_size": 11, "block_size": 6, "n_layer": 1, "n_head": 2, "n_embd": 8, "initializer_range": 0.3}
    return GPT(GPTConfig(**(sizes | changes)), Generator(1))


IDS = Generator(2).randint(0, 11, (1, 5))


@pytest.fixture(scope="module")
def gpt():
    return trace_model(small(), IDS, decode=lambda i: NASTY if i == 3 else f"t{i}")


@pytest.fixture(scope="module")
def head():
    return example("attention")


def array_of(entry, shape):
    assert entry["form"] == "full"
    return np.frombuffer(base64.b64decode(entry["f32"]), "<f4").reshape(shape)


# ---- the data -------------------------------------------------------------------------------------------------------


def check_ids(data):
    """Every id leads somewhere, and both ends agree."""
    tensors, grads, steps = data["tensors"], data["grads"], data["steps"]
    for name in ("tensors", "grads"):
        assert [entry["id"] for entry in data[name]] == list(range(len(data[name])))
    assert [step["i"] for step in steps] == list(range(len(steps)))
    assert len({t["name"] for t in tensors}) == len(tensors)
    for t in tensors:
        assert len(t["axes"]) == len(t["shape"])
        assert t["made_by"] is None or steps[t["made_by"]]["output"] == t["id"]
        assert all(t["id"] in [x["tensor"] for x in steps[i]["inputs"]] for i in t["used_by"])
        assert t["grad"] is None or grads[t["grad"]]["tensor"] == t["id"]
    for step in steps:
        if step["kind"] == "forward":
            assert step["kernel"] in data["kernels"]
            assert step["backward"] is None or steps[step["backward"]]["forward"] == step["i"]
        else:
            assert grads[step["grad"]]["tensor"] == step["tensor"]
        for out in step.get("outgoing", []):
            assert (out["grad"] is None) is bool(out.get("why"))
            assert out["grad"] is None or grads[out["grad"]]["tensor"] == out["tensor"]
    for edge in data["map"]["edges"]:
        assert edge["tensor"] in [x["tensor"] for x in steps[edge["to"]]["inputs"]]
    paths = {module["path"] for module in data["map"]["modules"]}
    assert all(module["parent"] in paths for module in data["map"]["modules"] if module["path"])


def test_the_data_is_strict_json_and_its_ids_agree(gpt, head):
    for made in (gpt, head):
        data = json.loads(to_json(made.data), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        check_ids(data)
        assert data["meta"]["exact"]
        assert data["meta"]["output"] == made.recording.output


def rounded(x):
    """Numbers to five digits, tuples as lists."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    return (
        [rounded(value) for value in x]
        if isinstance(x, list | tuple)
        else float(f"{x:.5g}")
        if isinstance(x, float)
        else x
    )


def scalar_by_hand():
    """The values (name, role, step that made it, steps that use it, gradient, number) of L = tanh(a · b + c) · a, its
    gradients (value, step, use, number), and its steps."""
    a, b, c = 0.5, -1.5, 1.0
    y = math.tanh(a * b + c)
    dtotal = a * (1 - y * y)
    values = [
        ("a", "parameter", None, [0, 3], 8, a), ("b", "parameter", None, [0], 7, b),
        ("product", "value", 0, [1], 4, a * b), ("c", "parameter", None, [1], 5, c),
        ("total", "value", 1, [2], 3, a * b + c), ("y", "value", 2, [3], 1, y), ("L", "output", 3, [], 0, y * a),
    ]  # fmt: skip
    gradients = [
        (6, 4, None, 1.0), (5, 5, "input a of multiply → L", a), (0, 5, "input b of multiply → L", y),
        (4, 6, "input x of tanh → y", dtotal), (2, 7, "input a of add → total", dtotal),
        (3, 7, "input b of add → total", dtotal), (0, 8, "input a of multiply → product", dtotal * b),
        (1, 8, "input b of multiply → product", dtotal * a), (0, 9, None, y + dtotal * b),
    ]  # fmt: skip
    factors = [{"name": f"for_{x}", "of": f"its input {y}", "shape": [], "bytes": 4} for x, y in ("ab", "ba")]
    forward = [
        ("multiply", "product = a * b", {"a": 0, "b": 1}, 2, factors, 8, {"a": 6, "b": 7}),
        ("add", "total = product + c", {"a": 2, "b": 3}, 4, [], 7, {"a": 4, "b": 5}),
        ("tanh", "y = total.tanh()", {"x": 4}, 5, [], 6, {"x": 3}),
        ("multiply", "L = y * a", {"a": 5, "b": 0}, 6, factors, 5, {"a": 1, "b": 2}),
    ]
    steps, calls = [], []
    for i, (kernel, line, inputs, output, saved, backward, _) in enumerate(forward):
        calls.append({"kernel": kernel, "layer": "", "line": line})
        step = {
            "i": i,
            "kind": "forward",
            "output": output,
            "options": {},
            "saved": saved,
            "recorded": True,
            "notes": [],
        }
        step |= {"residual": None, "backward": backward, **calls[-1]}
        steps.append(step | {"inputs": [{"role": role, "tensor": j} for role, j in inputs.items()]})
    say = "Backward starts here: L changes one to one with itself, so its gradient is 1."
    steps.append({"i": 4, "kind": "seed", "tensor": 6, "grad": 0, "notes": [say]})
    for i, (_, _, inputs, output, _, backward, outgoing) in reversed(list(enumerate(forward))):
        out = [{"role": role, "tensor": j, "grad": outgoing[role]} for role, j in inputs.items()]
        step = {"i": backward, "kind": "vjp", "tensor": output, "grad": values[output][4], "forward": i, "notes": []}
        steps.append(step | calls[i] | {"outgoing": out})
    say = "a was used more than once. A small change of it changes the loss through each use, so the gradients of the "
    step = {
        "i": 9,
        "kind": "sum",
        "tensor": 0,
        "grad": 8,
        "first": 2,
        "second": 6,
        "layer": "",
        "notes": [say + "uses are added."],
    }
    steps.append(step | {"first_use": gradients[2][2], "second_use": gradients[6][2]})
    for i, v, grad, uses in ((10, 3, 5, "its only use"), (11, 1, 7, "its only use"), (12, 0, 8, "all 2 uses")):
        say = f"The gradient of {values[v][0]} is complete: {uses} contributed."
        notes = [say, "A step of SGD subtracts lr times this gradient."]
        steps.append({"i": i, "kind": "leaf", "tensor": v, "grad": grad, "notes": notes})
    return values, gradients, steps


def test_the_data_of_a_scalar_example_is_what_one_computes_by_hand():
    data = example("scalar").data
    values, gradients, steps = scalar_by_hand()

    def stats(x):
        return {"n": 1, "min": x, "max": x, "mean": x, "norm": abs(x), "nan": 0, "inf": 0, "zeros": 0}

    kept = [{key: x for key, x in t.items() if key != "data"} for t in data["tensors"]]
    same = {"names": [], "label": None, "layer": "", "shape": [], "axes": [], "dtype": "float32", "requires_grad": True}
    fields = ("name", "role", "made_by", "used_by", "grad")
    assert rounded(kept) == rounded([
        {"id": i, **same, **dict(zip(fields, row, strict=True)), "text": f"{x:.4g}", "stats": stats(x)}
        for i, (*row, x) in enumerate(values)
    ])  # fmt: skip
    kept = [{key: x for key, x in g.items() if key != "data"} for g in data["grads"]]
    assert rounded(kept) == rounded([
        {"id": i, "tensor": value, "step": step, "use": use, "stats": stats(x)}
        for i, (value, step, use, x) in enumerate(gradients)
    ])  # fmt: skip
    places = [step.pop("where").rpartition(":")[0] for step in data["steps"] if "where" in step]
    assert places == ["tinygrad_llm/study/examples.py"] * 8
    assert rounded(data["steps"]) == steps
    used = [(0, 0, 6), (1, 0, 7), (2, 1, 4), (3, 1, 5), (4, 2, 3), (5, 3, 1), (0, 3, 2)]  # value, step, gradient
    assert rounded(data["map"]) == rounded({
        "modules": [{"path": "", "parent": None, "name": "", "class": "", "parameters": 3, "own": []}],
        "edges": [
            {"tensor": v, "from": values[v][2], "to": step, "grad": g, "norm": abs(gradients[g][3]),
             "log10": math.log10(abs(gradients[g][3])), "kind": "plain"} for v, step, g in used
        ],
    })  # fmt: skip
    assert (
        data["meta"].pop("intro").startswith("L = tanh(a · b + c) · a. Each operation knows only its own derivative.")
    )
    assert rounded(data["meta"]) == rounded({
        "version": 1, "title": "a scalar expression", "example": "scalar", "sizes": {}, "tokens": None, "targets": None,
        "ids": None, "target_ids": None, "vocab": None, "loss": values[6][5], "output": 6, "exact": True,
        "label": "Every value is here in full, as float32.", "parameters": 3, "dtype": "float32", "model": None,
        "package": "tinygrad_llm",
    })  # fmt: skip
    assert (data["words"], data["attention"]) == (None, [])
    check_scalar_update(data, values, gradients)


def check_scalar_update(data, values, gradients):
    """The step of SGD, and what the layers of a function without layers are: its parameters."""
    weights, slopes = np.array([values[i][5] for i in (0, 1, 3)]), np.array([gradients[i][3] for i in (8, 7, 5)])

    def loss(lr):
        a, b, c = weights - lr * slopes
        return math.tanh(a * b + c) * a

    square = float(slopes @ slopes)  # 0.488: a twentieth of the loss, 0.0061, is about 0.01 of it
    assert rounded(data["update"]) == rounded({
        "lr": 0.01, "grad_norm": math.sqrt(square), "positions": [],
        "loss": {"before": loss(0), "after": loss(0.01), "predicted": loss(0) - 0.01 * square},
        "curve": [[0.01 * k, loss(0.01 * k)] for k in (0, 1, 2, 3, 5, 7, 10, 13, 16, 20)],
    })  # fmt: skip
    breaks = data["breaks"]
    assert breaks["right"][0] == pytest.approx(loss(0))
    lr = float(breaks["what"].rpartition(" ")[2])
    a, b, c = weights - lr * np.sign(slopes)  # the first step of AdamW is lr long; nothing decays
    assert breaks["right"][1] == pytest.approx(math.tanh(a * b + c) * a, rel=2e-6)
    figures = [
        {"grad_norm": abs(g), "weight_norm": abs(w), "ratio": 0.01 * abs(g / w), "nan": 0, "inf": 0}
        for w, g in zip(weights.tolist(), slopes.tolist(), strict=True)
    ]
    none = {"activation_norm": None, "activation_grad_norm": None}
    assert rounded(data["flow"]) == rounded({
        "lr": 0.01, "training": None,
        "layers": [{"layer": name, **row, **none} for name, row in zip("abc", figures, strict=True)],
        "parameters": [{"tensor": i, **row} for i, row in zip((0, 1, 3), figures, strict=True)],
    })  # fmt: skip


def test_arrays_are_those_of_the_recording(gpt):
    for t, v in zip(gpt.data["tensors"], gpt.recording.values, strict=True):
        np.testing.assert_array_equal(array_of(t["data"], v.shape), v.array.astype(np.float32))
    for entry, g in zip(gpt.data["grads"], gpt.recording.gradients, strict=True):
        np.testing.assert_array_equal(array_of(entry["data"], g.array.shape), g.array)


def test_a_kernel_has_its_formula_derivation_and_source(gpt):
    for name, words in gpt.data["kernels"].items():
        assert words["forward"]
        assert words["gradient"].startswith("d")
        assert words["derivation"]
        first, last = words["vjp_lines"]
        assert words["source"].splitlines()[first].startswith("    def vjp(")
        assert last > first
        assert words["file"].startswith("tinygrad_llm/kernels/")
        assert words["source"].startswith(f"def {name}(")


def test_every_kernel_says_what_its_gradient_is():
    for kernel in KERNELS.values():
        words = document(kernel)
        assert words.forward
        assert words.gradient
        assert words.formula.startswith(words.forward)
        assert words.formula.endswith(words.gradient)
        if words.vjp_lines is not None:
            first, last = words.vjp_lines
            vjp = words.source.splitlines()[first:last]
            assert re.match(" +def vjp", vjp[0])
            assert vjp[-1].lstrip().startswith(("return", ")", "]"))


def test_uses_tell_the_residual_stream_from_the_branch_and_the_head_from_the_lookup(gpt):
    names = {t["id"]: t["name"] for t in gpt.data["tensors"]}
    uses = {}
    for step in gpt.data["steps"]:
        if step["kind"] == "sum":
            uses.setdefault(names[step["tensor"]], set()).update((step["first_use"], step["second_use"]))
    assert uses == {
        "transformer.h.0.x": {"residual stream", "branch transformer.h.0.mlp"},
        "transformer.x": {"residual stream", "branch transformer.h.0.attn"},
        "transformer.wte.weight": {"head lm_head", "lookup transformer.wte"},
    } | {"transformer.h.0.attn.c_attn.reshape.transpose": uses["transformer.h.0.attn.c_attn.reshape.transpose"]}
    kinds = {edge["kind"] for edge in gpt.data["map"]["edges"]}
    assert kinds == {"residual", "branch", "plain"}
    residual = [step["residual"] for step in gpt.data["steps"] if step.get("residual")]
    assert [(names[r["stream"]], names[r["branch"]]) for r in residual] == [
        ("transformer.x", "transformer.h.0.attn.c_proj"),
        ("transformer.h.0.x", "transformer.h.0.mlp.c_proj"),
    ]


def test_attention_is_found_with_all_its_parts(gpt, head):
    (a,) = gpt.data["attention"]
    names = {key: gpt.data["tensors"][i]["name"].rpartition("attn.")[2] for key, i in a.items() if key != "layer"}
    assert names == {key: key for key in ("weights", "scores", "q", "k", "v", "heads")} | {
        "masked": "scores.where",
        "mask": "later",
    }
    assert a["layer"] == "transformer.h.0.attn"
    (a,) = head.data["attention"]
    assert {key: head.data["tensors"][i]["name"] for key, i in a.items() if key in ("masked", "mask", "heads")} == {
        "masked": "masked",
        "mask": "later",
        "heads": "head",
    }


def test_the_keys_of_attention_are_tokens_even_where_a_head_is_as_wide():
    made = trace_model(small(), IDS[:, :4], prove=False)  # T = D = 4
    axes = {t["name"].rpartition("attn.")[2]: "".join(t["axes"]) for t in made.data["tensors"]}
    assert (axes["weights"], axes["scores"], axes["q"]) == ("BHTT", "BHTT", "BHTD")


def test_products_without_a_name_are_called_by_their_formula(gpt, head):
    labels = {t["name"]: t["label"] for t in head.data["tensors"] if t["label"]}
    assert labels == {"k.transpose": "kᵀ", "matmul": "q·kᵀ", "multiply": "error²"}
    labels = {t["name"].rpartition("attn.")[2]: t["label"] for t in gpt.data["tensors"] if t["label"]}
    assert labels["k.transpose"] == "kᵀ"
    assert labels["matmul"] == "q·kᵀ"
    a, b = (Tensor(np.ones((2, 2)), requires_grad=True) for _ in range(2))
    made = trace_function(lambda: ((a @ b) * a.mT * 0.5).sum(), {"a": a, "b": b}, prove=False)
    assert [t["label"] for t in made.data["tensors"] if t["label"]] == ["a·b", "aᵀ", "(a·b)·aᵀ", "((a·b)·aᵀ)·0.5"]


def test_axes_have_the_letters_of_the_model(gpt, head):
    lesson = {t["name"]: "".join(t["axes"]) for t in head.data["tensors"]}
    names = {
        "x": "TC",
        "Wq": "DC",
        "q": "TD",
        "k.transpose": "DT",
        "weights": "TT",
        "head": "TD",
        "Wo": "CD",
        "y": "TC",
    }
    assert {name: lesson[name] for name in names} == names
    axes = {t["name"]: "".join(t["axes"]) for t in gpt.data["tensors"]}
    assert axes["transformer.h.0.attn.weights"] == "BHTT"
    assert axes["transformer.h.0.attn.q"] == "BHTD"
    assert axes["transformer.h.0.mlp.c_fc.weight"] == "4CC"
    assert axes["lm_head"] == "BTV"
    assert axes["logits"] == "B·TV"
    assert axes["transformer.wpe.weight"] == "blockC"
    assert reading.axes((9, 9), {"B": 2}) == ["", ""]


def test_modules_count_their_parameters(gpt):
    model = small()
    counts = {module["path"]: module["parameters"] for module in gpt.data["map"]["modules"]}
    assert counts == {path: module.num_parameters() for path, module in model.named_modules()}
    names = {t["id"]: t["name"] for t in gpt.data["tensors"]}
    modules = {module["path"]: module for module in gpt.data["map"]["modules"]}
    fc = modules["transformer.h.0.mlp.c_fc"]
    assert {key: fc[key] for key in ("parent", "name", "class")} == {
        "parent": "transformer.h.0.mlp",
        "name": "c_fc",
        "class": "Linear",
    }
    assert [names[i] for i in fc["own"]] == ["transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_fc.bias"]
    assert {
        path: (modules[path]["parent"], modules[path]["name"]) for path in ("", "transformer", "transformer.h.0")
    } == {
        "": (None, ""),
        "transformer": ("", "transformer"),
        "transformer.h.0": ("transformer", "h.0"),
    }


def test_the_head_of_a_page_says_what_was_traced(monkeypatch):
    monkeypatch.setattr(traces, "VOCABULARY", 10)
    meta = trace_model(small(), IDS, title="mine", intro="<p>", example="e", prove=False).data["meta"]
    assert rounded({key: x for key, x in meta.items() if key != "loss"}) == {
        "version": 1, "title": "mine", "example": "e", "intro": "<p>", "vocab": None, "exact": True, "dtype": "float32",
        "sizes": {"B": 1, "T": 5, "C": 8, "H": 2, "D": 4, "V": 11, "block": 6, "layers": 1},
        "tokens": [[str(i) for i in IDS[0]]], "targets": [[*map(str, IDS[0, 1:]), None]], "ids": IDS.tolist(),
        "target_ids": [[*IDS[0, 1:].tolist(), None]], "output": ANY, "label": ANY, "model": repr(small()),
        "parameters": small().num_parameters(), "package": "tinygrad_llm",
    }  # fmt: skip
    targets = IDS[:, ::-1]
    meta = trace_model(small(), IDS, targets, prove=False).data["meta"]
    assert meta["target_ids"] == targets.tolist()
    assert meta["loss"] == pytest.approx(small().loss(IDS, targets).item(), rel=1e-6)
    monkeypatch.setattr(traces, "VOCABULARY", 11)
    assert trace_model(small(), IDS, prove=False).data["meta"]["vocab"] == [str(i) for i in range(11)]


# ---- proofs ---------------------------------------------------------------------------------------------------------


def test_every_proof_holds(gpt, head):
    for made in (gpt, head):
        proven = {p["tensor"] for p in made.data["proofs"]}
        assert proven == {t["id"] for t in made.data["tensors"] if t["grad"] is not None}
        for p in made.data["proofs"]:
            assert 0 <= p["error"] <= 1e-12
            assert 0 <= p["central_error"] <= 1e-7
            off = abs(p["backprop"] - (p["central"] if p["complex"] is None else p["complex"]))
            assert off == pytest.approx(p["error"] * p["scale"])  # what the page says the error is relative to
            g = made.recording.gradient_of(made.recording.values[p["tensor"]])
            assert p["recorded"] == g[p["index"]]
            assert p["scale"] == pytest.approx(float(np.abs(g).max()) + 0.01, rel=1e-5)
            assert abs(p["recorded"] - p["backprop"]) <= 1e-5 * (abs(p["backprop"]) + 1)


def test_a_proof_is_against_the_recorded_function():
    """The complex step through the replay is that of the function itself."""
    x = Tensor(np.array([[0.5, -1.0], [2.0, 0.25]]), requires_grad=True)
    made = trace_function(lambda: (x.tanh() * x).softmax(-1).log().sum(), {"x": x})

    def loss(z):
        y = np.tanh(z) * z
        return np.sum(np.log(np.exp(y) / np.exp(y).sum(-1, keepdims=True)))

    for p in made.data["proofs"]:
        if made.data["tensors"][p["tensor"]]["name"] == "x":
            moved = x.data.astype(complex)
            moved[p["index"]] += 1e-20j
            np.testing.assert_allclose(p["complex"], loss(moved).imag / 1e-20, rtol=1e-13)


def test_functions_with_kinks_are_proven_by_differences_alone():
    x = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    proofs = trace_function(lambda: x.relu().sum(), {"x": x}).data["proofs"]
    assert {p["complex"] for p in proofs} == {None}
    assert max(p["error"] for p in proofs) < 1e-9
    assert [p["zero_because"] for p in proofs if p["backprop"] == 0] == ["the input of relu is negative here"]


def test_a_wrong_gradient_does_not_pass_the_proof():
    recording = record_model(small(), IDS)
    mutant = mistakes("softmax")[0]
    for step in recording.forward:
        if step.name == "softmax":
            step.kernel = mutant.plant(step.kernel)
    proofs = replay.prove(recording)
    bad = {recording.values[p.value].name for p in proofs if p.error > 1e-6}
    assert "transformer.h.0.attn.scores" in bad
    assert "transformer.h.0.attn.weights" not in bad  # its gradient does not pass the softmax


def test_why_an_element_is_zero_is_told(head):
    def reasons(name):
        found = [p for p in head.data["proofs"] if p["tensor"] == head.recording[name].id and p["recorded"] == 0]
        return {(p["index"][0] < p["index"][1], p["zero_because"]) for p in found}

    assert reasons("masked") == {
        (True, "its weight in the softmax is 0"),
        (False, "its weight in the softmax is 1, whatever its score is: no other one in its row has any"),
    }
    assert reasons("scores") == {
        (True, "the mask is true here, so the loss does not depend on this element"),
        (False, None),  # the mask lets it through; what comes in is 0
    }


def test_a_lesson_has_a_proof_of_every_element(head):
    proven = {(p["tensor"], tuple(p["index"])) for p in head.data["proofs"]}
    for t in head.data["tensors"]:
        if t["grad"] is not None:
            assert {(t["id"], index) for index in np.ndindex(*t["shape"])} <= proven


def test_a_large_model_has_its_largest_elements_and_a_zero_of_each_gradient_proven(monkeypatch):
    monkeypatch.setattr(replay, "LESSON", 0)
    recording = record_model(small(), IDS)
    values, proven = [v for v in recording.values if v.grad is not None], {}
    for p in replay.prove(recording, most=5):
        proven.setdefault(p.value, []).append(p.index)
    assert list(proven) == [v.id for v in values]
    for indices, g in zip(proven.values(), map(np.abs, Replay(recording).gradients(values)[1]), strict=True):
        assert indices == sorted(set(indices))
        assert len(indices) == min(5, g.size)
        assert max(g[index] for index in indices) == g.max()
        assert g.all() or not all(g[index] for index in indices)
    assert len(replay.prove(recording, work=1.0)) == len(proven)  # no time for more than one of each


def test_a_replay_gives_the_recorded_values_and_gradients():
    recording = record_model(small(), IDS)
    again = Replay(recording, np.float32)
    for i, array in again.values().items():
        np.testing.assert_array_equal(array, recording.values[i].array)
    loss, gradients = again.gradients(recording.parameters)
    assert loss == recording.values[recording.output].array
    for v, g in zip(recording.parameters, gradients, strict=True):
        assert g.tobytes() == recording.gradient_of(v).tobytes()


# ---- words, update, breaks ------------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_model(gpt):
    model = small()
    rows = gpt.data["words"]["positions"]
    losses = [row["loss"] for row in rows if row["target"] is not None]
    np.testing.assert_allclose(np.mean(losses), gpt.data["meta"]["loss"], rtol=1e-6)
    assert rows[-1]["target"] is None
    logp = lenses.log_softmax(model(IDS).data)[0]
    for t, row in enumerate(rows):
        np.testing.assert_allclose([p for _, p in row["top"]], np.sort(np.exp(logp[t]))[::-1][:5], rtol=1e-5)
        if row["target"] is not None:
            assert row["rank"] == np.sum(logp[t] > logp[t, IDS[0, t + 1]])


def words_of(scores, count):
    """The `count` tokens of highest score, and their scores."""
    return [[f"t{i}" if i != 3 else NASTY, pytest.approx(scores[i], rel=1e-4)] for i in np.argsort(-scores)[:count]]


def test_predictions_and_the_logit_lens_are_computed_from_each_layer(gpt):
    model, cache = small(), gpt.recording.cache()
    streams = {"embedding": cache["transformer.x"], "transformer.h.0": cache["transformer.h.0"]}
    found = {row["layer"]: row["positions"] for row in gpt.data["words"]["lens"]}
    assert list(found) == list(streams)
    targets = [*IDS[0, 1:], None]
    for layer, x in streams.items():
        logits = model.lm_head(model.transformer.ln_f(Tensor(x))).data[0].astype(np.float64)
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        assert found[layer] == [
            {"b": 0, "t": t, "p": None if target is None else pytest.approx(p[target], rel=1e-4), "top": words_of(p, 3)}
            for t, (p, target) in enumerate(zip(probs, targets, strict=True))
        ]
    # The lens of the last block is the model's own prediction.
    token = {i: f"t{i}" if i != 3 else NASTY for i in range(11)} | {None: None}
    for t, (p, target, row) in enumerate(zip(probs, targets, gpt.data["words"]["positions"], strict=True)):
        expected = {"b": 0, "t": t, "token": token[IDS[0, t]], "target": token[target], "top": words_of(p, 5)}
        if target is not None:
            at = pytest.approx(p[target], rel=1e-4)
            expected |= {"p": at, "loss": pytest.approx(-np.log(p[target]), rel=1e-4), "rank": np.sum(p > p[target])}
        assert row == expected


def test_the_backward_lens_reads_the_factors_of_the_weights_gradient(gpt):
    cache = gpt.recording.cache()
    head = cache["lm_head.weight"]
    by_weight = {row["weight"].rpartition(".h.0.")[2]: row for row in gpt.data["words"]["backward"]}
    assert {name: row["factor"] for name, row in by_weight.items()} == {
        "mlp.c_fc.weight": "x",
        "mlp.c_proj.weight": "delta",
    }
    x, delta = cache["transformer.h.0.mlp.gelu"], cache["transformer.h.0.mlp.c_proj.grad"]
    outer = np.einsum("bti,btj->ij", delta, x)  # Σ δ xᵀ is the gradient
    np.testing.assert_allclose(outer, cache["transformer.h.0.mlp.c_proj.weight.grad"], atol=1e-7)
    entered = gpt.recording["transformer.h.0.ln_2"]
    values = {"mlp.c_fc.weight": entered, "mlp.c_proj.weight": gpt.recording["transformer.h.0.mlp.c_proj"]}
    for name, array in (("mlp.c_fc.weight", entered.array), ("mlp.c_proj.weight", delta)):
        row, value = by_weight[name], values[name]
        assert (row["tensor"], row["grad"]) == (value.id, None if value is entered else value.grad)
        assert row["positions"] == [
            {
                "b": 0,
                "t": t,
                "norm": pytest.approx(np.linalg.norm(array[0, t]), rel=1e-5),
                "most": words_of(head @ array[0, t], 5),
                "least": [[text, pytest.approx(-s.expected, rel=1e-4)] for text, s in words_of(-head @ array[0, t], 5)],
            }
            for t in range(5)
        ]


def test_an_update_is_foreseen_to_first_order():
    recording = record_model(small(), IDS)
    logits = lenses.logits_of(recording)
    off = []
    for lr in (1e-3, 1e-4):
        made = replay.update(recording, lr, logits)
        before, after, predicted = made.logits
        np.testing.assert_allclose(before, recording.values[logits].array, rtol=1e-4, atol=1e-6)
        assert made.curve[:2] == [(0, pytest.approx(made.before)), (lr, pytest.approx(made.after))]
        off.append((abs(made.after - made.predicted), np.abs(after - predicted).max()))
        assert made.after < made.before
        np.testing.assert_allclose(made.predicted, made.before - lr * made.grad_norm**2, rtol=1e-12)
    np.testing.assert_allclose(np.array(off[0]) / off[1], 100, rtol=0.1)  # what is left is of second order


def test_an_update_changes_nothing():
    model = small()
    state = {name: x.copy() for name, x in model.state_dict().items()}
    recording = record_model(model, IDS)
    replay.update(recording, 0.1, lenses.logits_of(recording))
    assert all(np.array_equal(x, state[name]) for name, x in model.state_dict().items())


def test_moved_predictions_are_listed(gpt):
    update = gpt.data["update"]
    assert update["loss"]["after"] < update["loss"]["before"]
    assert update["lr"] == float(f"{0.05 * update['loss']['before'] / update['grad_norm'] ** 2:.1g}")
    made = replay.update(gpt.recording, update["lr"], lenses.logits_of(gpt.recording))
    start, end, foreseen = (np.asarray(x, np.float64).reshape(5, 11) for x in made.logits)
    before, after = lenses.log_softmax(start), lenses.log_softmax(end)
    e = 1e-6
    slope = (
        lenses.log_softmax(start + e * (foreseen - start)) - lenses.log_softmax(start - e * (foreseen - start))
    ) / (2 * e)
    token = {i: f"t{i}" if i != 3 else NASTY for i in range(11)}
    for t, (target, row) in enumerate(zip([*IDS[0, 1:], None], update["positions"], strict=True)):
        p, q = np.exp(before[t]), np.exp(after[t])
        expected = {"b": 0, "t": t, "token": token[IDS[0, t]], "target": None if target is None else token[target]}
        if target is not None:
            figures = before[t, target], after[t, target], before[t, target] + slope[t, target]
            expected |= {
                key: pytest.approx(x) for key, x in zip(("before", "after", "predicted"), figures, strict=True)
            }
        moved = [
            {
                "text": token[i],
                "before": pytest.approx(p[i]),
                "after": pytest.approx(q[i]),
                "predicted": pytest.approx(p[i] * (1 + slope[t, i])),
            }
            for i in np.argsort(-np.abs(q - p))[:5]
        ]
        assert row == expected | {"moved": moved}


def test_mistakes_are_caught_and_change_the_gradient(gpt):
    breaks = gpt.data["breaks"]
    kernels = {m["kernel"] for m in breaks["mutants"]}
    assert {"softmax", "layer_norm", "cross_entropy"} <= kernels
    assert breaks["right"][-1] < breaks["right"][0]
    for m in breaks["mutants"]:
        assert m["caught"]
        assert m["wrong"]
        assert not m["error"] <= m["tolerance"]
        assert m["message"]
        assert max(g["error"] for g in m["gradients"]) > 1e-6
        assert len(m["curve"]) == len(breaks["right"]) == len(breaks["steps"])
        assert m["curve"][0] == breaks["right"][0]  # the forward pass is right
    assert any(m["curve"][-1] > 1.2 * breaks["right"][-1] for m in breaks["mutants"])


def test_the_most_telling_mistakes_are_shown_with_their_formulas(gpt, head):
    def shown(made):
        return {(m["kernel"], m["name"]): m["wrong"] for m in made.data["breaks"]["mutants"]}

    assert shown(gpt) == {
        ("softmax", "only the diagonal"): "dx = y · (1 − y) · g",
        ("layer_norm", "mean(g') forgotten"): "dx = rstd · (dx̂ − x̂ · mean(dx̂·x̂)),  dx̂ = g · weight",
        ("cross_entropy", "onehot forgotten"): "dlogits = g · p / n",
        ("linear", "dbias averaged"): "dbias = mean(g)",
        ("gelu", "0.0447 for 0.044715"): "as it is, with 0.0447 for 0.044715",
    }
    assert shown(head) == {
        ("softmax", "only the diagonal"): "dx = y · (1 − y) · g",
        ("matmul", "reshaped, not transposed"): "da = g b.reshape(m, k),  db = a.reshape(k, n) g",
        ("where", "a and b exchanged"): "da = 0 where condition, else g;  db = g where condition, else 0",
        ("multiply", "own factor for the other's"): "da = g · a,  db = g · b",
        ("mean", "n forgotten"): "dx = g, copied to every summand",
    }


def test_a_mistake_that_cannot_run_here_is_passed_over(monkeypatch, head):
    def plant(kernel):
        def wrong(*inputs, **options):
            y, _ = kernel(*inputs, **options)
            return y, lambda g: g.reshape(-1, 7)

        return wrong

    names = [(m["kernel"], m["name"]) for m in head.data["breaks"]["mutants"]]
    first = replay._mistakes
    monkeypatch.setattr(replay, "_mistakes", lambda r: [Mutant("softmax", "of other shapes", plant), *first(r)])
    found = replay.breaks(head.recording).found
    assert [(b.mutant.kernel, b.mutant.name) for b in found] == names


def test_a_mistake_has_its_formula_its_worst_element_and_its_factor(head):
    for kernel, formulas in replay.WRITTEN.items():
        assert set(formulas) <= {m.name for m in mistakes(kernel)}, kernel
    mutants = {m["kernel"]: m for m in head.data["breaks"]["mutants"]}
    assert mutants["mean"]["wrong"] == "dx = g, copied to every summand"
    assert mutants["mean"]["factor"] == pytest.approx(30, rel=1e-5)  # n
    assert mutants["softmax"]["factor"] is None
    assert replay._factor([np.zeros(2)], [np.ones(2)]) is None
    for m in mutants.values():
        w = m["worst"]
        assert f"analytic {w['wrong']:.17g}" in m["message"]
        assert abs(w["wrong"] - w["numeric"]) > 0.1 * m["error"]


def test_flow_has_the_norms_of_every_layer(gpt):
    cache = gpt.recording.cache()
    layers = {row["layer"]: row for row in gpt.data["flow"]["layers"]}
    assert list(layers) == ["wte", "wpe", "h.0", "ln_f"]
    g = cache["transformer.wpe.weight.grad"]
    np.testing.assert_allclose(layers["wpe"]["grad_norm"], np.linalg.norm(g), rtol=1e-6)
    lr, w = gpt.data["flow"]["lr"], cache["transformer.wpe.weight"]
    np.testing.assert_allclose(layers["wpe"]["ratio"], lr * np.linalg.norm(g) / np.linalg.norm(w), rtol=1e-6)
    x = cache["transformer.h.0"]
    np.testing.assert_allclose(layers["h.0"]["activation_norm"], np.linalg.norm(x), rtol=1e-6)


def test_flow_has_the_steps_of_a_run_that_looked_at_its_layers():
    rows = [(1, 5.0, None, None), (2, 4.0, 4.5, {"wte": 1.0}), (3, 3.0, 3.5, None), (4, 2.0, None, {"wte": 2.0})]
    steps = [Step(i, loss, 1e-3, 1.0, 1.0, held, layer_grad_norm=norms) for i, loss, held, norms in rows]
    data = trace_model(small(), IDS, training=steps, prove=False).data
    assert data["flow"]["training"] == {
        "steps": [2, 4],
        "loss": [4.0, 2.0],
        "held_out": [[2, 4.5], [3, 3.5]],
        "layers": {"wte": [1.0, 2.0]},
    }
    assert trace_model(small(), IDS, training=steps[:1], prove=False).data["flow"]["training"] is None


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_a_map_and_says_so(monkeypatch):
    monkeypatch.setattr(traces, "EXACT_BYTES", 1000)
    monkeypatch.setattr(traces, "MAP_BYTES", 40_000)
    monkeypatch.setattr(traces, "CELLS", 10)  # a pattern has 50 cells, all of which are shown
    data = trace_model(small(), IDS, prove=False).data
    assert not data["meta"]["exact"]
    assert "8-bit" in data["meta"]["label"]
    arrays = [entry["data"] for entry in (*data["tensors"], *data["grads"])]
    assert {x["form"] for x in arrays} == {"full", "map"}
    assert sum(len(to_json(x)) for x in arrays) < 40_000
    (a,) = data["attention"]
    assert data["tensors"][a["weights"]]["data"].get("cell", [1, 1]) == [1, 1]
    check_ids(data)
    monkeypatch.setattr(traces, "CELLS", 4096)  # many maps share the room
    data = trace_model(small(), IDS, prove=False).data
    arrays = [entry["data"] for entry in (*data["tensors"], *data["grads"])]
    assert {x["form"] for x in arrays} == {"full", "map"}
    assert sum(len(to_json(x)) for x in arrays) < 40_000


def test_a_large_model_keeps_summaries(monkeypatch):
    monkeypatch.setattr(traces, "LARGE", 10)
    monkeypatch.setattr(numbers, "LARGE", 20)  # fewer than there are logits, or places in the mask
    model = small(dropout=0.3)
    model.train()
    model.transformer.wpe.weight.requires_grad = False  # a constant
    made = trace_model(model, IDS)
    assert made.data["proofs"] == []
    assert made.data["breaks"] is None
    assert made.data["update"]["loss"]["after"] < made.data["update"]["loss"]["before"]
    assert isinstance(made.recording.values[lenses.logits_of(made.recording)].array, numbers.Summary)
    losses = [p["loss"] for p in made.data["words"]["positions"] if p["target"] is not None]
    assert np.mean(losses) == pytest.approx(made.data["meta"]["loss"], rel=1e-5)
    check_ids(json.loads(to_json(made.data)))


def test_what_is_recomputed_is_one_step_without_proofs():
    model = small()
    model.recompute = True
    data = trace_function(lambda: model.loss(IDS, IDS), {"ids": IDS}, root=model).data
    check_ids(json.loads(to_json(data)))
    assert (data["update"], data["proofs"], data["breaks"]) == (None, [], None)
    (step,) = [s for s in data["steps"] if s["kind"] == "forward" and s["kernel"] == "recompute"]
    assert "only the input is kept" in step["notes"][0]
    assert "runs a second time" in data["steps"][step["backward"]]["notes"][0]
    assert data["kernels"]["recompute"]["gradient"].startswith("dx = ")


@pytest.mark.parametrize("size", [3, 50, 51, 5000])
def test_the_top_of_a_vocabulary_is_that_of_a_stable_sort(size):
    for seed in range(20):
        scores = Generator(seed).randint(0, 40, (size,)).astype(np.float64)  # many are equal
        scores[:: 2 + seed] = math.nan
        expected = np.argsort(-scores, kind="stable")[:5]
        assert [i for i, _ in lenses.top(scores, 5, lambda i: i)] == list(expected)


def test_damaged_weights_are_traced_all_the_same():
    model = small()
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = math.nan
    with np.errstate(all="ignore"):
        data = trace_model(model, IDS).data
    to_json(data)
    assert data["update"] is None
    assert data["flow"]["layers"][2]["nan"] > 0


# ---- examples -------------------------------------------------------------------------------------------------------


def check_example(name):
    data = example(name).data
    check_ids(json.loads(to_json(data)))
    assert data["meta"]["example"] == name
    assert data["meta"]["exact"]
    assert len(to_json(data)) < 2_000_000
    assert max(p["error"] for p in data["proofs"]) < 1e-12
    assert all(m["caught"] and m["wrong"] for m in data["breaks"]["mutants"])
    assert all(t["axes"] == [] or any(t["axes"]) for t in data["tensors"])
    check_given(data)


def check_given(data):
    assert data["meta"]["title"]
    assert data["meta"]["intro"].endswith(".")
    assert {t["dtype"] for t in data["tensors"]} <= {"float32", "int64", "bool"}
    given = {role: [t["name"] for t in data["tensors"] if t["role"] == role] for role in ("parameter", "input")}
    assert {role: " ".join(names) for role, names in given.items()} == GIVEN.get(data["meta"]["example"], ANY)


GIVEN = {
    "scalar": {"parameter": "a b c", "input": ""},
    "xor": {"parameter": "W1 b1 W2 b2", "input": "x target"},
    "cross_entropy": {"parameter": "logits", "input": ""},
    "layer_norm": {"parameter": "weight bias", "input": "x direction"},
    "attention": {"parameter": "Wq Wk Wv Wo", "input": "x later target"},
}


def test_xor_is_in_the_middle_of_its_training():
    x = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    _learn(lambda: (x * x).sum(), [x], 1, 0.05)
    np.testing.assert_allclose(x.data, [0.95, -1.95])  # the first step of AdamW is lr long; no weight decays
    assert x.grad is None
    losses = example("xor").data["breaks"]["right"]
    assert 0.001 < losses[-1] < losses[0] < 0.1


@pytest.mark.parametrize("name", ["scalar", "xor", "cross_entropy", "layer_norm"])
def test_a_small_example_is_complete_and_proven(name):
    check_example(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "block", "one_page"])
def test_an_example_is_complete_and_proven(name):
    check_example(name)


def test_examples_are_those_of_the_issue():
    assert list(EXAMPLES) == ["scalar", "xor", "cross_entropy", "layer_norm", "attention", "block", "one_page"]
    with pytest.raises(ValueError, match="no example is named 'atention': did you mean attention"):
        example("atention")


def test_the_same_seed_gives_the_same_example():
    assert to_json(example("scalar", 3).data) == to_json(example("scalar", 3).data)
    assert to_json(example("cross_entropy", 3).data) != to_json(example("cross_entropy", 4).data)


def test_layer_norm_in_steps_is_the_kernel():
    made = example("layer_norm")
    cache = made.recording.cache()
    y, vjp = KERNELS["layer_norm"](cache["x"], cache["weight"], cache["bias"])
    np.testing.assert_allclose(cache["y"], y, atol=1e-6)
    for name, d in zip(("x", "weight", "bias"), vjp(cache["y.grad"]), strict=True):
        np.testing.assert_allclose(cache[f"{name}.grad"], d, atol=1e-5)


def test_each_step_of_a_model_is_explained(gpt):
    first, attn = {}, "transformer.h.0.attn"
    for step in gpt.data["steps"]:
        if step["notes"]:
            first.setdefault((step["kind"], step.get("kernel")), " ".join(step["notes"]).replace(f"{attn}.", ""))
    assert first == {
        ("forward", "where"): (
            "The mask is true at 10 of 25 places. The score there becomes −∞, and the softmax turns it into a "
            "weight of exactly 0."
        ),
        ("forward", "softmax"): ("Each row becomes weights between 0 and 1 that sum to 1."),
        ("forward", "add"): (
            "This addition is the residual connection: transformer.x, unchanged, plus transformer.h.0.attn, which "
            "was computed from it."
        ),
        ("seed", None): ("Backward starts here: loss changes one to one with itself, so its gradient is 1."),
        ("vjp", "cross_entropy"): (
            "In each row that counts: the probabilities, minus 1 at the target, divided by the number of targets. "
            "So the gradient is negative at the target alone, and a step raises that logit and lowers all others."
        ),
        ("vjp", "add"): (
            "Both inputs of an addition get the gradient unchanged: one copy flows along the residual stream, "
            "past transformer.h.0.mlp, the other one into it."
        ),
        ("sum", None): (
            "transformer.h.0.x was used more than once. A small change of it changes the loss through each use, "
            "so the gradients of the uses are added."
        ),
        ("vjp", "matmul"): (
            "With g = ∂L/∂heads: da = g · vᵀ is ∂L/∂weights, and db = weightsᵀ · g is ∂L/∂v. In shapes: da (5, 4) "
            "· (4, 5), db (5, 5) · (5, 4). Row j of db adds the rows i of g, each times element [i, j] of "
            "weights: by as much as row j of v went into row i of heads."
        ),
        ("vjp", "softmax"): (
            "Adding a number to a whole row of scores.where changes no weight, so each row of its gradient sums "
            "to 0. Where the weight is 0, so is the gradient."
        ),
        ("vjp", "where"): (
            "Where the mask is true (10 of 25 places), the output does not depend on scores: its gradient there "
            "is exactly 0."
        ),
        ("vjp", "getitem"): (
            "Elements of c_attn.reshape.transpose that were not taken do not reach the loss this way: their "
            "gradient is 0."
        ),
        ("vjp", "embedding"): (
            "Each row of the table gets the gradients of all places where its id stands. 6 of 11 ids do not occur "
            "here: their rows stay 0."
        ),
        ("leaf", None): (
            "The gradient of transformer.ln_f.bias is complete: its only use contributed. A step of SGD subtracts "
            "lr times this gradient."
        ),
    }
    data = example("layer_norm").data
    (x,) = [t["id"] for t in data["tensors"] if t["name"] == "x"]  # an input, which no step changes
    (notes,) = [step["notes"] for step in data["steps"] if step["kind"] == "leaf" and step["tensor"] == x]
    assert notes == ["The gradient of x is complete: all 2 uses contributed."]


def test_a_row_without_a_target_has_no_gradient_and_says_why(gpt):
    logits = gpt.recording.values[lenses.logits_of(gpt.recording)]
    reasons = {(p["index"][0], p["zero_because"]) for p in gpt.data["proofs"] if p["tensor"] == logits.id}
    assert (4, "this row has no target") in reasons
    assert {reason for row, reason in reasons if row < 4} == {None}


def test_attention_with_dropout_is_found():
    rng = Generator(3)
    q, k, v = (Tensor(rng.randn((3, 2), np.float32), requires_grad=True) for _ in range(3))

    def function():
        weights = (q @ k.mT).softmax(-1)
        kept = F.dropout(weights, 0.5, True, Generator(4))
        heads = kept @ v
        return heads.sum()

    made = trace_function(function, {"q": q, "k": k, "v": v}, prove=False)
    (a,) = made.data["attention"]
    parts = ("weights", "v", "heads", "q", "k")
    assert [made.data["tensors"][a[key]]["name"] for key in parts] == [*parts]


def test_the_head_answers_the_questions_of_a_student(head):
    check_given(head.data)
    assert head.data["meta"]["example"] == "attention"
    assert head.data["meta"]["tokens"] == [["the", "fox", "saw", "a", "hen"]]
    said = [note for step in head.data["steps"] for note in step["notes"]]
    assert any(
        "With g = ∂L/∂head: da = g · vᵀ is ∂L/∂weights, and db = weightsᵀ · g is ∂L/∂v." in note for note in said
    )  # where dV comes from
    assert any("its gradient there is exactly 0" in note for note in said)  # why a gradient is 0
    assert any("The mask is true at 10 of 25 places" in note for note in said)  # what the mask does
    assert any("This addition is the residual connection: x, unchanged, plus out" in note for note in said)


# ---- functions ------------------------------------------------------------------------------------------------------


def test_what_the_output_does_not_need_is_recorded_and_not_trained():
    a, b = (Parameter(np.float32(x)) for x in (2.0, 3.0))

    def function():
        unused = b.exp()
        return a * a + 0 * len(unused.shape)

    made = trace_function(function, {"a": a, "b": b})
    assert [v.name for v in Replay(made.recording).parameters] == ["a"]
    assert {p["tensor"] for p in made.data["proofs"]} == {
        t["id"] for t in made.data["tensors"] if t["grad"] is not None
    }
    assert made.data["update"]["grad_norm"] == 4.0


def test_a_product_of_a_matrix_and_a_vector_is_explained_without_shapes():
    m, v = Tensor(np.ones((2, 3)), requires_grad=True), Tensor(np.ones(3), requires_grad=True)
    steps = trace_function(lambda: (m @ v).sum(), {"m": m, "v": v}, prove=False).data["steps"]
    (step,) = [s for s in steps if s["kind"] == "vjp" and s["kernel"] == "matmul"]
    assert step["notes"] == [
        "With g = ∂L/∂(m·v): da = g · vᵀ is ∂L/∂m, and db = mᵀ · g is ∂L/∂v.",
        "Row j of db adds the rows i of g, each times element [i, j] of m: by as much as row j of v went into row i of "
        "m·v.",
    ]


def test_a_function_of_your_own_is_traced():
    layer = nn.Linear(3, 2, rng=Generator(0))
    x = np.ones((4, 3), np.float32)
    made = trace_function(lambda: layer(Tensor(x)).tanh().sum(), {"x": x}, root=layer, sizes={"rows": 4})
    assert {"weight", "bias", "x"} <= {t["name"] for t in made.data["tensors"]}
    assert made.data["words"] is None
    with pytest.raises(ValueError, match="a gradient starts from a scalar"):
        trace_function(lambda: layer(Tensor(x)), {"x": x})
