"""Each theme at a toy's size: our side does the work it names, and the others' side does the same work."""

import dataclasses
import importlib
import os

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, no_grad
from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, grad
from tinygrad_llm.bench import agree, attention, decode, optimizer, train
from tinygrad_llm.bench.limits import attention_flops, prompt_flops, step_flops, weight_bytes
from tinygrad_llm.bench.measure import OURS
from tinygrad_llm.training import LanguageModeling, Trainer
from tinygrad_llm.training.workers import Workers

TOY = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=31)
WRITER = dataclasses.replace(TOY, block_size=1024, initializer_range=0.5)


def work(case, name=OURS):
    """The Subject of a contender, created in this process."""
    module, _, function = case.subjects[name].partition(":")
    return getattr(importlib.import_module(module), function)(**case.options)


@pytest.fixture
def torch(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def toy_case(monkeypatch):
    monkeypatch.setitem(train.CONFIGS, "toy", (TOY, 4))
    cases = train.cases(["toy"])
    yield next(cases)  # closing `cases` removes its files
    cases.close()


# ---- train -------------------------------------------------------------------------------------------------------


def test_training_takes_the_trainers_steps(toy_case):
    one = work(toy_case)
    first = one.answer()
    model = GPT(TOY, Generator(0))
    held_out = [next(train.batches(TOY, 1))]
    task = LanguageModeling(train.batches(TOY, 4), held_out)
    steps = Trainer(model, task, dataclasses.replace(train.SETTINGS, batch_size=4)).run()
    next(steps)
    assert first == pytest.approx([next(steps).loss for _ in range(train.FIRST)], rel=1e-5)
    one.round()
    before = one.do().step
    one.round()
    assert one.do().step == before + (one.times > 1) + one.times + 1
    assert one.about()["memory"]["peak"] is None or one.about()["memory"]["peak"] > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_training_reports_the_workers_that_it_uses(workers, toy_case, monkeypatch):
    seen = []
    gradient = Workers.gradient

    def noted(self, batch):
        seen.append(self.threads)
        return gradient(self, batch)

    monkeypatch.setattr(Workers, "gradient", noted)
    monkeypatch.setattr(train, "fastest_threads", lambda model, task: workers)
    one = work(toy_case)
    one.answer()
    assert one.about()["workers"] == workers
    assert set(seen) == {workers}


def test_losses_differ_if_the_update_differs(toy_case, monkeypatch):
    right = work(toy_case).answer()
    monkeypatch.setattr(train, "SETTINGS", dataclasses.replace(train.SETTINGS, lr=train.SETTINGS.lr / 2))
    assert not agree(work(toy_case).answer(), right, train.TOLERANCE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("name", train.THEIRS)
def test_torch_gives_the_same_losses(name, toy_case, torch):
    if name == "torch-compile":
        pytest.importorskip("torch._inductor")
    ours, theirs = work(toy_case), work(toy_case, name)
    assert agree(theirs.answer(), ours.answer(), 1e-4)
    assert theirs.round() > 0
    assert theirs.about()["version"] == torch.__version__


def test_batches_are_repeatable_and_follow_zipf():
    one, other = train.batches(TOY, 4), train.batches(TOY, 4)
    for _ in range(3):
        assert np.array_equal(next(one), next(other))
    counts = np.bincount(np.concatenate([next(one)[0].ravel() for _ in range(300)]), minlength=31)
    assert counts.argmax() == 0
    assert counts.min() > 0
    assert counts[0] / counts[3] == pytest.approx(np.log(2) / np.log(5 / 4), rel=0.15)


def test_a_case_states_the_flops_of_a_step(toy_case):
    assert toy_case.flops == step_flops(TOY, 4)
    assert toy_case.traffic == 0
    assert set(toy_case.subjects) == {OURS, *train.THEIRS}


# ---- decode and prefill ------------------------------------------------------------------------------------------


@pytest.fixture(params=["decode_cases", "prefill_cases"])
def writing(request):
    cases = getattr(decode, request.param)(WRITER)
    yield next(cases)
    cases.close()


@pytest.mark.parametrize("writing", ["decode_cases"], indirect=True)
def test_decoding_gives_the_most_likely_tokens(writing):
    assert writing.traffic == weight_bytes(WRITER)
    model = GPT.from_pretrained(writing.options["folder"])
    text = decode.prompt(31, decode.PROMPT)
    for _ in range(decode.NEW):  # without a cache
        with no_grad(), model.evaluating():
            text = np.append(text, np.argmax(model(text).data[:, -1:], axis=-1), axis=1)
    new = text[0, decode.PROMPT :].tolist()
    one = work(writing)
    assert one.answer() == new
    assert len(set(new)) > 2
    assert one.pieces == decode.NEW


@pytest.mark.parametrize("writing", ["prefill_cases"], indirect=True)
def test_prefill_gives_the_models_logits(writing):
    assert writing.flops == prompt_flops(dataclasses.replace(WRITER, block_size=decode.PREFILL))
    model = GPT.from_pretrained(writing.options["folder"])
    with no_grad(), model.evaluating():
        whole = model(decode.prompt(31, decode.PREFILL)).data
    one = work(writing)
    assert agree(one.answer(), [[1, 1, 31], whole[0, -1, ::97].tolist()], 1e-5)
    assert agree(decode.sample(one.do()), one.answer())
    assert isinstance(one.imported, int | None)


@pytest.mark.slow
def test_transformers_gives_the_same_tokens_and_logits(writing, torch):
    pytest.importorskip("transformers")
    theirs = work(writing, "transformers")
    assert agree(theirs.answer(), work(writing).answer(), writing.tolerance)
    assert theirs.about()["version"]


# ---- attention and optimizer -------------------------------------------------------------------------------------


def test_attention_gives_output_and_gradient(monkeypatch):
    monkeypatch.setattr(attention, "SHAPES", {"toy": (2, 3, 5, 4)})
    (case,) = attention.cases()
    assert (case.name, case.flops) == ("toy (2, 3, 5, 4)", attention_flops(2, 3, 5, 4))
    x, g = attention.inputs((2, 3, 5, 4))
    qkv = Tensor(x, requires_grad=True)
    q, k, v = qkv.reshape(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 5, 12)
    expected = attention.sample(y.data, grad(y, qkv, gradient=g)[0])
    assert agree(work(case).answer(), expected, 1e-5)
    assert len(expected) > 100


def test_the_sizes_are_those_of_the_training_configurations():
    sizes = {"char-cpu": (4, 4, 128, 64, 65, 12), "book-mini": (2, 4, 64, 256, 50257, 4)}
    sizes |= {"baby": (6, 6, 384, 256, 65, 8), "gpt2-124M": (12, 12, 768, 64, 50257, 4)}
    assert list(train.CONFIGS) == list(sizes)
    for name, (config, batch) in train.CONFIGS.items():
        L, H, C, T, V, B = sizes[name]
        expected = GPTConfig(n_layer=L, n_head=H, n_embd=C, block_size=T, vocab_size=V)
        assert (config, batch) == (expected, B)
        assert attention.SHAPES[name] == (B, H, T, C // H)
    assert attention.SHAPES.keys() - sizes.keys() == {"gpt2-1024"}
    assert attention.SHAPES["gpt2-1024"] == (1, 12, 1024, 64)
    assert GPTConfig(initializer_range=0.1) == decode.CONFIG
    s = train.SETTINGS
    assert (s.lr, s.warmup, s.schedule, s.betas, s.eps) == (6e-4, 0, "constant", (0.9, 0.95), 1e-8)
    assert (s.weight_decay, s.clip) == (0.1, 1.0)


def test_torch_gives_the_same_attention(monkeypatch, torch):
    monkeypatch.setattr(attention, "SHAPES", {"toy": (2, 3, 5, 4)})
    (case,) = attention.cases()
    assert agree(work(case, "torch").answer(), work(case).answer(), 1e-5)


def test_an_update_is_adamw_after_clipping():
    (case,) = optimizer.cases(TOY)
    assert case.traffic == 32 * TOY.num_parameters
    one = work(case)
    norm, *moved = one.answer()
    shapes = [shape for _, shape in TOY.shapes()]
    values = [array.astype(np.float64) for array in optimizer.values(shapes)]
    assert norm == pytest.approx(np.sqrt(sum(np.sum(p**2) for p in values)), rel=1e-6)
    assert norm > train.SETTINGS.clip
    expected = []
    for p in values:  # at the first step m̂ / √v̂ is the gradient's sign
        g, decay = p / norm, train.SETTINGS.weight_decay if p.ndim > 1 else 0.0
        expected.append(-g / (np.abs(g) + train.SETTINGS.eps) - decay * p)
    assert moved == pytest.approx(optimizer.sample(expected), abs=1e-3)
    one.prepare()
    assert 0.9 * norm < one.do() < 0.999 * norm  # `prepare` makes the gradient of the parameters, which are smaller now


def test_torch_gives_the_same_update(torch):
    (case,) = optimizer.cases(TOY)
    assert agree(work(case, "torch").answer(), work(case).answer(), 1e-4)


def test_a_cases_files_are_removed_after_it():
    for cases in (train.cases(["char-cpu"]), decode.decode_cases(WRITER)):
        place = next(iter(v for v in next(cases).options.values() if isinstance(v, str)))
        assert os.path.exists(place)
        assert list(cases) == []
        assert not os.path.exists(place)
