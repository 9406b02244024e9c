"""PyTorch's words: the table of names, errors that name the nearest thing, files, imports, what differs on purpose."""

import copy
import io
import json
import math
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm.torch as torch
from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.torch import tiktoken
from tinygrad_llm.torch.__main__ import main
from tinygrad_llm.torch.missing import NEAREST, NoSuchName, NotOffered
from tinygrad_llm.torch.nn import functional as F

nn = torch.nn


# ---- the table -----------------------------------------------------------------------------------------------------


def table():
    """(owner, name, whether it is there) of every name in the table of `help(tinygrad_llm.torch)`."""
    text = torch.__doc__.partition("The names that the book uses")[2].partition("\n")[2]
    for owner, names in re.findall(r"^    ([\w.]+):(.*?)(?=^    \w|\Z)", text, flags=re.S | re.M):
        there, _, absent = names.partition("not:")
        yield from ((owner, name, True) for name in there.split())
        yield from ((owner, name, False) for name in absent.split())


def find(owner):
    thing = {"torch": torch, "tiktoken": types.SimpleNamespace(tiktoken=tiktoken)}.get(owner.split(".")[0])
    if owner == "tiktoken":
        return tiktoken
    for part in owner.split(".")[1:]:
        thing = getattr(thing, part)
    return thing


def test_the_table_names_what_is_there_and_what_is_not(for_each):
    entries = list(table())
    assert len(entries) > 250
    assert len({owner for owner, _, _ in entries}) == 13

    def check(entry):
        owner, name, there = entry
        thing = find(owner)
        if owner == "torch.Tensor":
            thing = torch.ones(2, 2)
        elif owner == "torch.nn.Module":
            thing = nn.Linear(2, 2)
        if there:
            getattr(thing, name)
        else:
            with pytest.raises((NoSuchName, NotOffered)):
                getattr(thing, name)

    for_each(entries, check)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda: torch.compile, "torch.compile: there is no compiler"),
        (lambda: torch.bfloat16, "torch.bfloat16: NumPy has no bfloat16: use torch.float32"),
        (lambda: torch.distributed.init_process_group, "torch.distributed: processes are for"),
        (lambda: torch.softmx, "torch.softmx: did you mean softmax?"),
        (lambda: nn.Liner, "torch.nn.Liner: did you mean Linear?"),
        (lambda: nn.TransformerEncoderLayer, "tinygrad_llm.models.Block"),
        (lambda: F.gleu, "did you mean gelu?"),
        (lambda: torch.optim.lr_scheduler.OneCycleLR, "a SequentialLR"),
        (lambda: nn.Linear(2, 2).register_full_backward_hook(print), "Tensor.register_hook"),
        (lambda: torch.ones(2).sofmax(0), "torch.Tensor.sofmax: did you mean softmax?"),
        (lambda: torch.quantize_per_tensor, "see the table in help('tinygrad_llm.torch')"),
        (lambda: torch.ones(2).to("cuda"), 'there is only "cpu" here'),
        (lambda: torch.zeros(2, device="mps"), 'there is only "cpu" here'),
        (lambda: nn.Linear(2, 2).bfloat16(), "NumPy has no bfloat16"),
        (lambda: nn.MultiheadAttention(4, 2, kdim=3), "kdim=3 is not offered here"),
        (lambda: torch.ones(1, requires_grad=True).sum().backward(create_graph=True), "second_order"),
        (lambda: torch.ones(2, requires_grad=True) // 2, "has no gradient here"),
        (lambda: torch.ones(2, requires_grad=True).quantile(0.5), "torch.quantile has no gradient here"),
        (lambda: nn.Linear(2, 2).wait, "'Linear' object has no attribute 'wait'"),
        (lambda: tiktoken.get_encoding("o200k_base"), "only 'gpt2' is here"),
    ],
)
def test_what_is_missing_names_the_nearest_thing(ask, answer):
    with pytest.raises((AttributeError, NotImplementedError)) as error:
        ask()
    assert answer in str(error.value)
    assert "\n" not in str(error.value)


def test_every_hint_is_for_a_name_that_is_missing(for_each):
    def check(full):
        owner, _, name = full.rpartition(".")
        thing = torch.ones(1) if owner == "torch.Tensor" else find(owner)
        assert not hasattr(thing, name) if name != "bfloat16" else True

    for_each(NEAREST, check)


# ---- Tensors -------------------------------------------------------------------------------------------------------


def test_one_stream_serves_layers_dropout_and_draws():
    torch.manual_seed(5)
    got = [nn.Linear(3, 2).weight.tolist(), torch.rand(3).tolist(), torch.randn(2).tolist(), torch.randperm(4).tolist()]
    mask = F.dropout(torch.ones(20), 0.5)
    g = Generator(5)
    bound = 1 / math.sqrt(3)
    weight, _ = g.uniform(-bound, bound, (2, 3)), g.uniform(-bound, bound, 2)
    assert got == [weight.tolist(), g.rand(3).tolist(), g.randn(2).tolist(), g.randperm(4).tolist()]
    assert (mask > 0).tolist() == g.bernoulli_keep(0.5, 20).tolist()
    state = torch.get_rng_state()
    first = torch.randn(3).tolist()
    torch.set_rng_state(state)
    assert torch.randn(3).tolist() == first
    assert torch.initial_seed() == 5


def test_the_stream_of_nobodys_seed_is_another_one_each_time():
    assert torch.seed() != torch.seed()
    assert torch.Generator().initial_seed() == torch.Generator().initial_seed()  # PyTorch's number


def test_tensor_copies_and_from_numpy_shares():
    array = np.ones(2)
    copied, shared = torch.tensor(array), torch.from_numpy(array)
    array[0] = 5
    assert copied.tolist() == [1, 1]
    assert shared.tolist() == [5, 1]
    assert copied.dtype == torch.float64
    view = shared.data
    view[1] = 7
    assert array.tolist() == [5, 7]
    assert shared.numpy() is array


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (torch.ones(2), torch.ones(2, dtype=torch.int64), torch.float32),
        (torch.ones(2), torch.tensor(1.0, dtype=torch.float64), torch.float32),
        (torch.ones(2, dtype=torch.int64), torch.tensor(1.5), torch.float32),
        (torch.ones(2, dtype=torch.int64), torch.tensor(1.5, dtype=torch.float64), torch.float64),
        (torch.ones(2, dtype=torch.float16), torch.ones(2), torch.float32),
        (torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.uint8), torch.uint8),
        (torch.ones(2, dtype=torch.int32), 2, torch.int32),
        (torch.ones(2, dtype=torch.int64), 2.5, torch.float32),
        (torch.ones(2, dtype=torch.bool), 2, torch.int64),
        (torch.ones(2), np.float64(2), torch.float32),
    ],
)
def test_dtypes_are_promoted_as_in_pytorch(a, b, expected):
    assert (a * b).dtype == expected
    assert (b * a).dtype == expected


def test_changes_in_place_keep_the_gradient():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = x * 2
    same = y
    y.masked_fill_(torch.tensor([[False, True], [False, False]]), -torch.inf)
    assert same is y
    assert y.tolist() == [[2, -math.inf], [6, 8]]
    y.softmax(-1)[1, 0].backward()
    assert x.grad[0].tolist() == [0, 0]
    assert x.grad[1, 0].item() == pytest.approx(-x.grad[1, 1].item())
    with pytest.raises(RuntimeError, match="leaf"):
        x.masked_fill_(torch.ones(2, 2).bool(), 0.0)
    with torch.no_grad():
        x.zero_()
    assert x.tolist() == [[0, 0], [0, 0]]


def test_writing_to_elements_keeps_the_gradient():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    v = torch.tensor([5.0, 6.0], requires_grad=True)
    y = x * 10
    y[1:] = v
    y[0] = y[0] * 3
    assert y.tolist() == [30, 5, 6]
    (y * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [30, 0, 0]
    assert v.grad.tolist() == [2, 4]
    ids = torch.tensor([3, 9, 9, 9])
    ids[torch.nonzero(ids == 9).squeeze()[1:]] = -100
    assert ids.tolist() == [3, 9, -100, -100]
    with pytest.raises(RuntimeError, match="leaf"):
        x[0] = 1.0


def test_a_gradient_is_a_tensor_that_shares_its_memory():
    p = nn.Parameter(torch.ones(2))
    assert p.grad is None
    for _ in range(2):
        (p * 3).sum().backward()
    assert isinstance(p.grad, torch.Tensor)
    p.grad *= 0.5
    assert p.grad.tolist() == [3, 3]
    p.grad.zero_()
    assert p.ours.grad.tolist() == [0, 0]
    p.grad = torch.tensor([1.0, 2.0])
    assert p.grad.tolist() == [1, 2]
    h = p * 2
    h.retain_grad()
    h.pow(2).sum().backward()
    assert h.grad.tolist() == [4, 4]


def test_short_rows_are_rounded_as_in_pytorch():
    scores = torch.tensor([0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865])
    naive = torch.exp(scores) / torch.exp(scores).sum(dim=0)
    assert [naive.sum().item(), torch.softmax(scores, 0).sum().item()] == [1.0, 1.0]
    torch.manual_seed(123)
    x = torch.randn(2, 5)
    out = nn.Sequential(nn.Linear(5, 6), nn.ReLU())(x)
    normal = (out - out.mean(dim=-1, keepdim=True)) / torch.sqrt(out.var(dim=-1, keepdim=True))
    assert [f"{m:.4e}" for m in normal.mean(dim=-1).tolist()] == ["9.9341e-09", "1.9868e-08"]
    rows = torch.tensor([[-math.inf] * 3, [0.0, -math.inf, 0.0]])
    assert repr(rows.softmax(-1).tolist()) == "[[nan, nan, nan], [0.5, 0.0, 0.5]]"


# Operations that only PyTorch's words have, and so their derivatives: on x (2, 3) between 0.2 and 0.9.
ONLY_HERE = [
    *(getattr(torch, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "atan", "asin", "acos", "expm1", "exp2")),
    *(getattr(torch, name) for name in ("log1p", "log2", "log10", "prod")),
    lambda x: torch.prod(x, 1),
    lambda x: torch.prod(x, 0, keepdim=True),
    lambda x: x.diff(dim=1),
    lambda x: x * torch.floor(3 * x) + torch.round(5.2 * x) + torch.sign(x - 0.5) + torch.ceil(x) + torch.trunc(4 * x),
    lambda x: torch.addmm(x[:, :2], x, x.T, beta=2, alpha=3),
    lambda x: torch.scatter(x * 2, 1, torch.tensor([[2], [0]]), x[:, 1:2] ** 2),
    lambda x: torch.scatter_add(x * 2, 1, torch.tensor([[2, 2], [0, 1]]), x[:, 1:] ** 2),
    lambda x: torch.index_add(x * 2, 0, torch.tensor([1, 1]), x**2, alpha=3),
    lambda x: torch.cdist(x, x[:1] + 1),
    lambda x: torch.nn.functional.smooth_l1_loss(x * 3, x * x, reduction="none"),
    lambda x: torch.nn.functional.huber_loss(x * 3, x * x, delta=0.7),
    lambda x: torch.nn.functional.elu(x - 0.5, 0.7),
    lambda x: torch.movedim(x, 0, 1).unflatten(0, (3, 1)).diag() if x.ndim > 2 else torch.trace(x[:, :2]),
]


@pytest.mark.parametrize("f", ONLY_HERE)
def test_operations_that_only_these_words_have_are_differentiated(f):
    start = np.array([[0.2, 0.9, 0.45], [0.7, 0.3, 0.61]])
    x = torch.tensor(start, requires_grad=True)
    y = f(x)
    weights = np.cos(np.arange(1.0, y.numel() + 1)).reshape(y.shape)  # another one for each element
    (y * torch.tensor(weights)).sum().backward()
    found = np.zeros_like(start)
    for at in np.ndindex(start.shape):
        ends = [start.copy(), start.copy()]
        for end, step in zip(ends, (1e-6, -1e-6), strict=True):
            end[at] += step
        high, low = ((f(torch.tensor(end)).numpy() * weights).sum() for end in ends)
        found[at] = (high - low) / 2e-6
    np.testing.assert_allclose(x.grad.numpy(), found, rtol=1e-7, atol=1e-8)


def test_a_graph_is_walked_again_only_if_it_is_retained():
    w = torch.tensor([2.0], requires_grad=True)
    loss = (w.exp() * w).sum()
    one = torch.autograd.grad(loss, w, retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    assert w.grad.tolist() == pytest.approx([2 * one[0].item()])
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()


def test_a_tensor_compares_with_none_and_with_other_things():
    assert (torch.ones(1) == None) is False  # noqa: E711 (what the book's generate does)
    assert torch.ones(1) != "a"
    assert 1 in torch.tensor([1, 2])
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(torch.ones(2) == torch.ones(2))


def test_what_shares_leave_of_a_split_goes_to_the_first_parts_one_each():
    parts = torch.utils.data.random_split(range(11), [1 / 3, 1 / 3, 1 / 3])
    assert [len(part) for part in parts] == [4, 4, 3]


@pytest.mark.parametrize(("numbers", "expected"), [([3], 3), ([4, 1, 3, 2], 2), ([[5, 1], [3, 4]], 3), ([2, 9, 1], 2)])
def test_the_median_of_an_even_number_is_the_lower_one(numbers, expected):
    assert torch.tensor(numbers).median().item() == expected


@pytest.mark.parametrize(("steps", "expected"), [(0, []), (1, [3]), (2, [3, 10]), (3, [3, 6.5, 10])])
def test_linspace_begins_at_its_start_also_with_one_step(steps, expected):
    assert torch.linspace(3, 10, steps).tolist() == expected


def test_numpy_and_format_see_the_numbers():
    x = torch.linspace(0, 1, 3)
    np.testing.assert_array_equal(np.asarray(x), [0, 0.5, 1])
    assert isinstance(np.ones(3) + x, torch.Tensor)
    assert f"{x[1]:.2f}" == "0.50"
    with pytest.raises(RuntimeError, match=r"detach\(\)\.numpy\(\)"):
        np.asarray(torch.ones(1, requires_grad=True))


def test_losses_refuse_shapes_that_would_broadcast_and_probabilities_above_1():
    column, row = torch.tensor([[0.1], [0.9]]), torch.tensor([0.0, 1.0])
    F = torch.nn.functional
    for loss in (F.l1_loss, F.mse_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits):
        with pytest.raises(ValueError, match=r"got input \(2, 1\) and target \(2,\), which must be alike"):
            loss(column, row)  # PyTorch warns of some of them, and takes the mean of four losses
    for p in (1.5, -0.5, float("nan")):
        with pytest.raises(RuntimeError, match="should be between 0 and 1"):
            F.binary_cross_entropy(torch.tensor([p]), torch.tensor([1.0]))


def test_scopes_without_recording():
    w = torch.ones(1, requires_grad=True)

    @torch.inference_mode()
    def f():
        return w * 2

    @torch.no_grad()
    def g():
        return w * 2

    with torch.set_grad_enabled(False):
        h = w * 2
    assert [x.requires_grad for x in (f(), g(), h, w * 2)] == [False, False, False, True]


# ---- Modules -------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("mask", torch.ones(2))
        self.register_buffer("passing", torch.zeros(1), persistent=False)
        self.hidden = [nn.Linear(1, 1)]  # as in PyTorch, a list hides its Modules

    def forward(self, x):
        return self.inner(x) * self.scale * self.mask


def test_a_module_finds_what_pytorch_finds():
    model = Small()
    assert [name for name, _ in model.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
    assert list(model.state_dict()) == ["scale", "mask", "inner.weight", "inner.bias"]
    assert [name for name, _ in model.named_buffers()] == ["mask", "passing"]
    assert [name for name, _ in model.named_modules()] == ["", "inner"]
    model.double()
    assert {x.dtype for x in (*model.parameters(), *model.buffers())} == {torch.float64}
    model.float().eval()
    assert not model.inner.training
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    seen = []
    model.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Small"]


def test_a_module_refuses_what_pytorch_refuses():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"before Module\.__init__\(\) call"):
        Forgot()
    model = Small()
    with pytest.raises(TypeError, match=r"torch\.nn\.Parameter or None expected"):
        model.scale = torch.ones(1)
    with pytest.raises(KeyError, match="already exists"):
        model.register_buffer("inner", torch.ones(1))
    before = {name: x.tolist() for name, x in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="size mismatch for scale"):
        model.load_state_dict({**model.state_dict(), "scale": torch.ones(2), "mask": torch.zeros(2)})
    assert {name: x.tolist() for name, x in model.state_dict().items()} == before


def test_copies_are_independent_and_tied_weights_stay_tied():
    model = nn.Sequential(nn.Embedding(3, 2), nn.Dropout(0.5), nn.Linear(2, 3, bias=False))
    model[2].weight = model[0].weight
    twin = copy.deepcopy(model)
    assert twin[2].weight is twin[0].weight is not model[0].weight
    with torch.no_grad():
        twin[0].weight.zero_()
    assert model[0].weight.abs().sum() > 0
    torch.manual_seed(1)
    one = model(torch.tensor([0, 1]))
    torch.manual_seed(1)
    assert torch.equal(one, model(torch.tensor([0, 1])))


def test_lists_of_modules():
    layers = nn.ModuleList([nn.Linear(1, i) for i in (1, 2, 3)])
    layers[1] = nn.ReLU()
    layers.insert(0, nn.Identity())
    del layers[2]
    assert [type(x).__name__ for x in layers] == ["Identity", "Linear", "Linear"]
    assert len(layers[1:]) == 2
    assert layers[-1].out_features == 3
    named = nn.ModuleDict({"a": nn.Linear(1, 1)})
    assert "a" in named
    assert list(named.state_dict()) == ["a.weight", "a.bias"]


# ---- optimizers ----------------------------------------------------------------------------------------------------


def test_settings_of_groups_may_change_between_steps():
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b]}], lr=1.0)
    (a + b).sum().backward()
    optimizer.param_groups[1]["lr"] = 0.5
    optimizer.step()
    assert (a.item(), b.item()) == pytest.approx((0.9, 0.5))
    optimizer.param_groups[0]["momentum"] = 0.9
    with pytest.raises(NotOffered, match="momentum is one for all groups"):
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_a_saved_optimizer_continues_bit_for_bit(kind, tmp_path):
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {"amsgrad": True}
    torch.manual_seed(2)
    one = nn.Linear(3, 2)
    optimizer = kind(one.parameters(), lr=0.1, **options)
    data = torch.rand(4, 3)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(data).pow(2).mean().backward()
        optimizer.step()

    step(one, optimizer)
    torch.save({"model": one.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "file")
    state = torch.load(tmp_path / "file")
    other = nn.Linear(3, 2)
    other.load_state_dict(state["model"])
    again = kind(other.parameters(), lr=0.7, **options)
    again.load_state_dict(state["optimizer"])
    assert again.param_groups[0]["lr"] == 0.1
    for _ in range(2):
        step(one, optimizer)
        step(other, again)
    assert torch.equal(one.weight, other.weight)


# ---- files ---------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read_again(tmp_path):
    value = {
        "a": torch.arange(3),
        "more": [1, 2.5, None, "text", (True, torch.ones(2, dtype=torch.float64))],
        7: {"p": nn.Parameter(torch.zeros(1)), "empty": {}},
    }
    torch.save(value, tmp_path / "state.pth")
    again = torch.load(tmp_path / "state.pth", map_location="cpu", weights_only=True)
    assert repr(again) == repr(value)
    arrays, _ = load_safetensors(tmp_path / "state.pth")  # any reader of the format sees the arrays by their paths
    assert set(arrays) == {"a", "more.4.1", "7.p"}
    torch.save(torch.ones(2), tmp_path / "one")
    assert torch.load(tmp_path / "one").tolist() == [1, 1]
    torch.save({"w": torch.ones(3)}, buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.load(buffer)["w"].tolist() == [1, 1, 1]
    save_safetensors(tmp_path / "other", {"w": np.ones(2)})
    assert torch.load(tmp_path / "other")["w"].tolist() == [1, 1]


def test_a_state_of_a_model_has_its_names_in_the_file(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert set(load_safetensors(tmp_path / "model.pth")[0]) == {"0.weight", "0.bias"}


def test_pickles_and_other_things_are_refused(tmp_path):
    (tmp_path / "old").write_bytes(pickle.dumps({"a": 1}, protocol=2) + b" " * 20)
    (tmp_path / "zip").write_bytes(b"PK\x03\x04\x00\x00\x08\x08" + b" " * 20)
    for name in ("old", "zip"):
        with pytest.raises(LoadError, match="a pickle of PyTorch, which could run anything"):
            torch.load(tmp_path / name)
    with pytest.raises(NotOffered, match=r"weights_only=False would run"):
        torch.load(tmp_path / "old", weights_only=False)
    with pytest.raises(NotOffered, match=r"save its state_dict\(\)"):
        torch.save(nn.Linear(1, 1), tmp_path / "new")
    with pytest.raises(NotOffered, match="keys of a"):
        torch.save({"a": {1.5: 2}}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    save_safetensors(tmp_path / "bad", {"w": np.ones(1)}, {"tinygrad_llm.torch": '{"tensor":"v"}'})
    with pytest.raises(LoadError, match="does not fit the arrays"):
        torch.load(tmp_path / "bad")


# ---- loaders -------------------------------------------------------------------------------------------------------


def test_a_loader_with_a_sampler_draws_as_pytorch_does():
    data = list(range(7))
    torch.manual_seed(3)
    loader = torch.utils.data.DataLoader(data, batch_size=3, sampler=[6, 0, 2, 4], drop_last=True)
    assert [b.tolist() for b in loader] == [[6, 0, 2]]
    after = torch.rand(1).item()
    g = Generator(3)
    g.random_seed()
    assert g.rand(1).item() == after
    assert len(loader) == 1
    for wrong in ({"batch_size": 0}, {"sampler": [1], "shuffle": True}):
        with pytest.raises(ValueError, match=r"batch_size|sampler"):
            torch.utils.data.DataLoader(data, **wrong)
    loader = torch.utils.data.DataLoader(data, batch_sampler=[[1, 2], [5]])
    assert [b.tolist() for b in loader] == [[1, 2], [5]]
    assert len(loader) == 2


# ---- running a file ------------------------------------------------------------------------------------------------


def run(*arguments, cwd):
    command = [sys.executable, "-m", "tinygrad_llm.torch", *map(str, arguments)]
    root = str(Path(torch.__file__).parents[2])
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=100, env={"PYTHONPATH": root, "PATH": ""}
    )


def test_a_program_is_run_with_import_torch_and_its_arguments(tmp_path):
    (tmp_path / "helper.py").write_text("from torch import nn\nfrom torch.utils.data import Dataset\n")
    (tmp_path / "program.py").write_text(
        "import sys\nimport torch\nimport tiktoken\nfrom importlib.metadata import version\nfrom helper import nn\n"
        "import torch.nn.functional as F\nfrom torch.nn.parameter import Parameter\n"
        "if __name__ == '__main__':\n"
        "    print(__file__, sys.argv[1:], version('torch') == torch.__version__, torch.__version__.split('.')[0])\n"
        "    print(nn.Linear(1, 2), hasattr(torch, 'compile'), torch.cuda.is_available())\n"
        "    encoding = tiktoken.get_encoding('gpt2')\n"
        "    print(encoding.encode('Hello, world<|endoftext|>', allowed_special={'<|endoftext|>'}), encoding.n_vocab)\n"
    )
    done = run("program.py", "a", "--b", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "program.py ['a', '--b'] True 2",
        "Linear(in_features=1, out_features=2, bias=True) False False",
        "[15496, 11, 995, 50256] 50257",
    ]


def test_a_notebook_is_run_cell_by_cell(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": "# A title"},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "!pip install torch\n", "import torch\n", "x = 2"]},
        {"cell_type": "code", "source": "torch.ones(x)"},
        {"cell_type": "code", "source": "print(x)\nx + 1;"},
        {"cell_type": "code", "source": "%%bash\nrm -rf nothing"},
        {"cell_type": "code", "source": "def f():\n    return torch.ones(2) @ torch.ones(3)\nf()"},
        {"cell_type": "code", "source": "print('never')"},
    ]
    (tmp_path / "book.ipynb").write_text(json.dumps({"cells": cells}))
    done = run("book.ipynb", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "tensor([1., 1.])\n2\n"
    assert "book.ipynb, cell 2: skipped: %matplotlib inline" in done.stderr
    assert 'File "book.ipynb, cell 6", line 3' in done.stderr
    assert "return torch.ones(2) @ torch.ones(3)" in done.stderr
    assert "__main__.py" not in done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("from torch import vmap", "operations broadcast over leading axes"),
        ("import torch.distributed as dist", "torch.distributed: processes are for"),
        ("from torch.nn import Liner", "torch.nn.Liner: did you mean Linear?"),
    ],
)
def test_an_import_that_fails_names_the_nearest_thing(tmp_path, code, words):
    (tmp_path / "program.py").write_text(code)
    done = run("program.py", cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.stderr


def test_help_fits_into_80_columns(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_file_that_cannot_be_run_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("list.ipynb").write_text("[]")
    Path("bytes.py").write_bytes(b"\xff")
    for name in ("gone.py", "list.ipynb", "bytes.py"):
        assert main([name]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"{name}: cannot be run: ")
        assert err.count("\n") == 1


# ---- tiktoken ------------------------------------------------------------------------------------------------------


def test_an_encoding_is_extended_as_tiktoken_is():
    base = tiktoken.get_encoding("gpt2")
    longer = tiktoken.Encoding(
        name="gpt2_custom",
        pat_str=base._pat_str,
        mergeable_ranks=base._mergeable_ranks,
        special_tokens={**base._special_tokens, "MyNewToken_1": base.n_vocab, "MyNewToken_2": base.n_vocab + 1},
    )
    special = {"MyNewToken_1", "MyNewToken_2", "<|endoftext|>"}
    ids = longer.encode("Sample text, MyNewToken_1 and MyNewToken_2. <|endoftext|>", allowed_special=special)
    assert ids == [36674, 2420, 11, 220, 50257, 290, 220, 50258, 13, 220, 50256]
    assert longer.decode(ids) == "Sample text, MyNewToken_1 and MyNewToken_2. <|endoftext|>"
    assert longer.n_vocab == base.n_vocab + 2
    assert longer.decode_tokens_bytes([15496]) == [b"Hello"]
    assert longer.max_token_value == 50258
    assert "50257" not in repr(base)
    with pytest.raises(NotOffered, match="must have the ids 50257"):
        tiktoken.Encoding("x", special_tokens={"new": 9})


# What each call gives, by its formula or as PyTorch prints it; the arguments that the programs leave out.
VALUES = {
    "torch.tensor([[1.0, 2], [3, 5]]).quantile(0.5, 1, keepdim=True)": [[1.5], [4.0]],
    "torch.tensor([[1.0, 2], [3, 5]]).prod(1, keepdim=True)": [[2.0], [15.0]],
    "torch.tensor([[True, True], [True, False]]).prod(0)": [1, 0],
    "torch.diag(torch.tensor([1, 2]), -1)": [[0, 0, 0], [1, 0, 0], [0, 2, 0]],
    "torch.diag(torch.tensor([[1, 2], [3, 4]]), 1)": [2],
    "torch.zeros(2).index_add(0, torch.tensor([1, 1]), torch.tensor([1.0, 2]))": [0, 3],
    "torch.zeros(2).index_add(0, torch.tensor([1, 1]), torch.tensor([1.0, 2]), alpha=10)": [0, 30],
    "torch.zeros(2, 2).scatter(1, torch.tensor([[1], [0]]), torch.tensor([[5.0, 9], [6, 9]]))": [[0, 5], [6, 0]],
    "torch.zeros(2, 2).scatter(0, torch.tensor([[1, 0]]), value=7)": [[0, 7], [7, 0]],
    "torch.logspace(0, 2, 3)": [1, 10, 100],
    "torch.logspace(0, 3, 4, base=2)": [1, 2, 4, 8],
    "torch.tensordot(torch.ones(2, 3), torch.ones(3, 4), 1)": [[3] * 4] * 2,
    "torch.tensor([[1.0, 5], [7, 2]]).argmax(1, keepdim=True)": [[1], [0]],
    "torch.tensor([[1.0, 5], [7, 2]]).argmin(0, keepdim=True)": [[0, 1]],
    "torch.tensor([[1.0, 5], [7, 2]]).argmin()": 0,
    "torch.arange(4).reshape(2, 2).roll(1)": [[3, 0], [1, 2]],
    "torch.arange(4).reshape(2, 2).roll(1, 1)": [[1, 0], [3, 2]],
    "torch.arange(4).reshape(2, 2).flip(0)": [[2, 3], [0, 1]],
    "torch.arange(4).reshape(2, 2).flip(dims=(0, 1))": [[3, 2], [1, 0]],
    "torch.arange(4).reshape(2, 2).diagonal(1)": [1],
    "torch.arange(4).reshape(2, 2).diagonal(-1)": [2],
    "torch.arange(4).reshape(2, 2).index_select(1, torch.tensor([1, 1]))": [[1, 1], [3, 3]],
    "torch.arange(2).repeat_interleave(torch.tensor([1, 2]))": [0, 1, 1],
    "torch.arange(4).reshape(2, 2).repeat_interleave(2, dim=1)": [[0, 0, 1, 1], [2, 2, 3, 3]],
    "torch.tensor([1, 1, 3]).bincount(torch.tensor([0.5, 1, 2]))": [0, 1.5, 0, 2],
    "torch.tensor([1, 1]).bincount(minlength=3)": [0, 2, 0],
    "torch.tensor([1.0, math.nan]).isclose(torch.tensor([1.0, math.nan]))": [True, False],
    "torch.tensor([1.0, math.nan]).isclose(torch.tensor([1.0, math.nan]), equal_nan=True)": [True, True],
    "torch.tensor([1.0, 1.0]).isclose(torch.tensor([1.000008, 1.000012]))": [True, False],
    "torch.tensor([1.0], dtype=torch.float32).view(torch.int32)": [0x3F800000],
    "nn.Parameter()": [],
    "nn.Flatten(0, 1)(torch.ones(2, 2, 1, 2))": [[[1, 1]]] * 4,
    "nn.Flatten()(torch.ones(2, 2, 2))": [[1] * 4] * 2,
    "F.one_hot(torch.tensor([1, 0]))": [[0, 1], [1, 0]],
    "F.one_hot(torch.tensor([1]), 3)": [[0, 1, 0]],
    "torch.autograd.grad(_square(w), w, [torch.tensor([1.0, 10])])[0]": [2, 40],
    "torch.autograd.grad([_square(w).sum()], [w])[0]": [2, 4],
    "torch.autograd.inference_mode(_square)(w).requires_grad": False,
    "torch.as_tensor([1, 2], dtype=torch.float64).dtype": torch.float64,
    "torch.as_tensor([1, 2])": [1, 2],
    "torch.full_like(torch.ones(2), 3).dtype": torch.float32,
    "torch.full((2,), 3).dtype": torch.int64,
    "torch.zeros_like(torch.ones(1), requires_grad=True).requires_grad": True,
    "torch.ones(2).new_zeros(2, dtype=torch.int64).dtype": torch.int64,
    "torch.ones(2).new_full((1,), 3, dtype=torch.int64).dtype": torch.int64,
    "torch.ones(2, dtype=torch.int64).new_full((1,), 3).dtype": torch.int64,
    "torch.ones(2).new_tensor([3], dtype=torch.int64).dtype": torch.int64,
    "torch.ones(2).new_tensor([3]).dtype": torch.float32,
    "str(torch.device('cuda', 1)), str(torch.device('cpu'))": ("cuda:1", "cpu"),
    "[torch.tensor(x).dtype for x in ([1j], [np.complex128(1j)], 2.0, [np.float64(2)], [1, 2.0], np.ones(1))]": [
        *(torch.complex64, torch.complex128, torch.float32, torch.float64, torch.float32, torch.float64)
    ],
    "torch.autograd.grad(F.embedding(torch.tensor([0, 1, 1]), table, padding_idx=0), table, torch.ones(3, 2))[0]": [
        *([0, 0], [2, 2])
    ],
    "torch.autograd.grad(F.embedding(torch.tensor([0, 1, 1]), table, padding_idx=-1), table, torch.ones(3, 2))[0]": [
        *([1, 1], [0, 0])
    ],
    "torch.var_mean(table, 1, keepdim=True)[1]": [[0.5], [2.5]],
    "torch.var_mean(table, 1)[1]": [0.5, 2.5],
    "torch.result_type(torch.ones(1), torch.tensor(1.0, dtype=torch.float64))": torch.float32,
    "torch.result_type(torch.tensor(1.0, dtype=torch.float64), torch.ones(1))": torch.float32,
    "torch.ones(2).new_zeros(2, requires_grad=True).requires_grad": True,
    "torch.ones(2).new_zeros(2).requires_grad": False,
    "str(torch.tensor([1 + 2j, 3 - 4j]))": "tensor([1.+2.j, 3.-4.j])",
    "str(torch.tensor([1, 100]))": "tensor([  1, 100])",
    "F.binary_cross_entropy_with_logits(torch.zeros(1), torch.ones(1), pos_weight=torch.tensor([3.0]))": 3
    * math.log(2),
    "F.binary_cross_entropy_with_logits(torch.zeros(2), torch.ones(2), torch.tensor([2.0, 4]))": 3 * math.log(2),
    "F.binary_cross_entropy(torch.tensor([0.5, 0.5]), torch.ones(2), torch.tensor([2.0, 4]))": 3 * math.log(2),
}


def _square(x):
    return x * x


@pytest.mark.parametrize("call", VALUES)
def test_each_argument_of_a_call_counts(call):
    w = torch.tensor([1.0, 2], requires_grad=True)
    table = torch.tensor([[0.0, 1], [2, 3]], requires_grad=True)
    got = eval(
        call, {"np": np, "table": table, "torch": torch, "nn": nn, "F": F, "math": math, "_square": _square, "w": w}
    )
    assert (pytest.approx(VALUES[call]) if isinstance(VALUES[call], float) else VALUES[call]) == (
        got.tolist() if isinstance(got, torch.Tensor) else got
    )


def test_the_name_of_an_operation_is_pytorchs(for_each):
    x, i = torch.ones(2, 2, requires_grad=True), torch.tensor([0, 1])
    cases = {
        "IndexSelectBackward0": x.index_select(0, i), "RepeatBackward0": x.repeat(2, 1), "FlipBackward0": x.flip(0),
        "RollBackward0": x.roll(1), "DiagonalBackward0": x.diagonal(), "WhereBackward0": x.where(x > 0, 0),
        "MaskedSelectBackward0": x.masked_select(x > 0), "UnbindBackward0": x.unbind()[0],
        "ScatterBackward0": x.scatter(0, i[None], value=1.0), "IndexFillBackward0": x.index_fill(0, i, 1.0),
        "IndexCopyBackward0": x.index_copy(0, i, x), "IndexAddBackward0": x.index_add(0, i, x),
        "ScatterAddBackward0": x.scatter_add(0, i[None], x), "TraceBackward0": torch.trace(x),
        "DotBackward0": x[0] @ x[0], "MmBackward0": x @ x, "MvBackward0": x @ x[0], "SqueezeBackward4": x[0] @ x,
        "UnsafeViewBackward0": x[None] @ x, "ViewBackward0": x.reshape(4), "ToCopyBackward0": x.to(torch.float64),
        "SinBackward0": x.sin(), "ProdBackward0": x.prod(0), "ReluBackward0": (x * 1).relu_(),
        "MaskedScatterBackward0": x.masked_scatter(x > 0, torch.ones(4)), "ExpBackward0": x.exp(),
    }  # fmt: skip
    assert {name: y.grad_fn.name() for name, y in cases.items()} == {name: name for name in cases}
    assert x.T.reshape(4).grad_fn.name() == "UnsafeViewBackward0"  # a copy


def test_every_loss_passes_its_reduction_on():
    x, t = torch.tensor([[0.2, 0.7]]), torch.tensor([[0.5, 0.1]])
    for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss"):
        kind = getattr(nn, name)
        each = kind(reduction="none")(x, t)
        assert each.shape == (1, 2), name
        assert kind(reduction="sum")(x, t).item() == pytest.approx(each.sum().item()), name
        assert kind()(x, t).item() == pytest.approx(each.mean().item()), name
    for name in ("CrossEntropyLoss", "NLLLoss"):
        kind, ids = getattr(nn, name), torch.tensor([1, 0])
        each = kind(reduction="none")(x.repeat(2, 1), ids)
        assert each.shape == (2,), name
        assert kind(reduction="sum")(x.repeat(2, 1), ids).item() == pytest.approx(each.sum().item()), name


def test_first_weights_have_the_spread_of_their_formula():
    torch.manual_seed(1)
    expected = {  # of weights (40, 60): fan_in 60, fan_out 40
        nn.init.kaiming_normal_: math.sqrt(2 / 60),
        nn.init.kaiming_uniform_: math.sqrt(2 / 60),
        nn.init.xavier_normal_: math.sqrt(2 / 100),
        nn.init.xavier_uniform_: math.sqrt(2 / 100),
        nn.init.normal_: 1,
        nn.init.uniform_: math.sqrt(1 / 12),
        lambda x: nn.init.normal_(x, 5, 0.1): 0.1,
        lambda x: nn.init.uniform_(x, 4, 6): math.sqrt(4 / 12),
        lambda x: nn.init.kaiming_normal_(x, mode="fan_out", nonlinearity="linear"): math.sqrt(1 / 40),
        lambda x: nn.init.kaiming_normal_(x, math.sqrt(3)): math.sqrt(0.5 / 60),
    }
    for fill, std in expected.items():
        assert fill(torch.empty(40, 60)).std().item() == pytest.approx(std, rel=0.05), fill
    cut = nn.init.trunc_normal_(torch.empty(2000), 1.0, 2.0, 0.0, 2.0)
    assert 0 <= cut.min().item() < 0.01 < 1.99 < cut.max().item() <= 2
    assert nn.init.trunc_normal_(torch.empty(2000), 0.0, 0.1).std().item() == pytest.approx(0.1, rel=0.05)
    for shape in ((3, 2, 4), (6, 2)):
        q = nn.init.orthogonal_(torch.empty(*shape), 2.0).reshape(shape[0], -1).numpy()
        np.testing.assert_allclose(q @ q.T if len(q) < q.shape[1] else q.T @ q, 4 * np.eye(min(q.shape)), atol=1e-5)


def test_close_means_pytorchs_tolerances_and_the_same_dtype():
    close = torch.testing.assert_close
    for kind, rtol, atol in (("float16", 1e-3, 1e-5), ("float32", 1.3e-6, 1e-5), ("float64", 1e-7, 1e-7)):
        one = torch.tensor([1024.0], dtype=getattr(torch, kind))
        zero = one * 0
        close(zero + 0.9 * atol, zero)
        with pytest.raises(AssertionError):
            close(zero + 1.2 * atol, zero)
        with pytest.raises(AssertionError):
            close(one + 1024 * 2.5 * rtol, one)
        close(one + 1024 * 2.5 * rtol, one, rtol=3 * rtol, atol=0)
    nan = torch.tensor([math.nan])
    close(nan, nan, equal_nan=True)
    for a, b in ((nan, nan), (torch.ones(1), torch.ones(1).double()), (torch.ones(1), torch.ones(1, 1))):
        with pytest.raises(AssertionError):
            close(a, b)


def test_an_attention_gives_its_weights_as_asked():
    attend = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(3, 5, 4)
    y, mean = attend(x, x, x)
    assert attend(x, x, x, need_weights=False)[1] is None
    heads = attend(x, x, x, average_attn_weights=False)[1]
    assert (mean.shape, heads.shape) == ((3, 5, 5), (3, 2, 5, 5))
    torch.testing.assert_close(heads.mean(1), mean)
    alone, weights = attend(x[0], x[0], x[0])
    torch.testing.assert_close(alone, y[0])
    torch.testing.assert_close(weights, mean[0])


def test_an_attention_takes_masks_as_pytorch_does():
    attend = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(2, 3, 4)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        attend(x, x, x, is_causal=True)
    with pytest.raises(RuntimeError, match=r"3D attn_mask is \(2, 3, 3\), but should be \(4, 3, 3\)"):
        attend(x, x, x, attn_mask=torch.zeros(2, 3, 3))
    ahead = torch.ones(3, 3).triu(1).bool()
    each = torch.stack([ahead, torch.zeros(3, 3).bool(), torch.zeros(3, 3).bool(), ahead])  # by example, then by head
    heads = attend(x, x, x, attn_mask=each, average_attn_weights=False)[1]
    open_, masked = (attend(x, x, x, attn_mask=m, average_attn_weights=False)[1] for m in (None, ahead))
    torch.testing.assert_close(
        heads, torch.stack([masked[0, 0], open_[0, 1], open_[1, 0], masked[1, 1]]).view(2, 2, 3, 3)
    )
    alone = attend(x[0], x[0], x[0], attn_mask=each[:2], average_attn_weights=False)[1]
    torch.testing.assert_close(alone, heads[0])
    pad = torch.tensor([[False, False, True], [False, False, False]])
    y, padded = attend(x, x, x, key_padding_mask=pad)
    assert (padded[0, :, 2].tolist(), padded[1].min().item() > 0) == ([0, 0, 0], True)
    torch.testing.assert_close(attend(x[0], x[0], x[0], key_padding_mask=pad[0])[0], y[0])


def test_ids_outside_the_classes_have_no_one_hot_row():
    for ids, classes in (([3], 3), ([-1, 0], -1), ([-1], 3)):
        with pytest.raises(RuntimeError, match="non-negative and smaller than num_classes"):
            F.one_hot(torch.tensor(ids), classes)


def test_a_layer_has_the_weights_that_are_asked_for():
    x, names = torch.tensor([[1.0, 3.0]]), lambda layer: [name for name, _ in layer.named_parameters()]
    assert names(nn.LayerNorm(2)) == ["weight", "bias"]
    assert names(nn.LayerNorm((2,), bias=False)) == ["weight"]
    assert names(nn.LayerNorm(2, elementwise_affine=False)) == names(nn.RMSNorm(2, elementwise_affine=False)) == []
    assert names(nn.RMSNorm(2)) == ["weight"]
    assert names(nn.MultiheadAttention(4, 2, bias=False)) == ["in_proj_weight", "out_proj.weight"]
    assert sorted(names(nn.MultiheadAttention(4, 2)))[::2] == ["in_proj_bias", "out_proj.bias"]
    for layer, expected in (
        (nn.LayerNorm(2, eps=3.0, bias=False), [-0.5, 0.5]),  # mean 2, variance 1
        (nn.LayerNorm(2, eps=3.0, elementwise_affine=False), [-0.5, 0.5]),
        (nn.RMSNorm(2, eps=4.0), [1 / 3, 1.0]),  # mean square 5
    ):
        assert layer(x).tolist()[0] == pytest.approx(expected)


def test_the_last_short_batch_of_a_stream_can_be_left_out():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(5))

    batches = {drop: torch.utils.data.DataLoader(Stream(), batch_size=2, drop_last=drop) for drop in (False, True)}
    assert [b.tolist() for b in batches[False]] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in batches[True]] == [[0, 1], [2, 3]]


def test_buffers_and_hooks_of_a_module():
    outer, inner = nn.Sequential(), nn.Linear(1, 1)
    outer.add_module("inner", inner)
    outer.register_buffer("a", torch.ones(1))
    inner.register_buffer("b", torch.ones(1), persistent=False)
    assert [name for name, _ in outer.named_buffers()] == ["a", "inner.b"]
    assert [len(list(outer.buffers(recurse))) for recurse in (True, False)] == [2, 1]
    assert list(outer.state_dict()) == ["a", "inner.weight", "inner.bias"]
    with pytest.raises(AttributeError, match=r"^Sequential has no Parameter 'inner\.a'$"):
        outer.get_parameter("inner.a")
    with pytest.raises(AttributeError, match=r"^Sequential has no Module 'x'$"):
        outer.get_submodule("x")
    handle = inner.register_forward_hook(lambda module, args, y: y * 0)
    assert inner(torch.ones(1)).item() == 0
    handle.remove()
    handle.remove()  # a second time does nothing, as in PyTorch
    with inner.register_forward_pre_hook(lambda module, args: (args[0] * 0,)):
        assert inner(torch.ones(1)).item() == inner.bias.item()
    assert inner(torch.ones(1)).item() != 0


def test_optimizers_start_with_pytorchs_settings():
    def settings(kind):
        group = kind([nn.Parameter(torch.ones(1))], lr=1).param_groups[0]
        return {name: group[name] for name in ("betas", "eps", "momentum", "weight_decay", "amsgrad") if name in group}

    adam = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    assert settings(torch.optim.Adam) == adam
    assert settings(torch.optim.AdamW) == {**adam, "weight_decay": 0.01}
    assert settings(torch.optim.SGD) == {"momentum": 0, "weight_decay": 0}
    lr = {
        kind: kind([nn.Parameter(torch.ones(1))]).param_groups[0]["lr"] for kind in (torch.optim.Adam, torch.optim.SGD)
    }
    assert list(lr.values()) == [1e-3, 1e-3]


def test_profiles_of_printing():
    x = torch.arange(1001) / 4
    try:
        torch.set_printoptions(profile="short")
        assert str(x) == "tensor([  0.00,   0.25,  ..., 249.75, 250.00])"
        torch.set_printoptions(profile="full")
        assert "..." not in str(x)
    finally:
        torch.set_printoptions(profile="default")
    assert str(x) == "tensor([  0.0000,   0.2500,   0.5000,  ..., 249.5000, 249.7500, 250.0000])"
