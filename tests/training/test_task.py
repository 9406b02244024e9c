"""Tasks: their batches, parts and measurements; and a task of another shape, trained by the same trainer."""

import collections
import copy
import dataclasses
import json
import re
import textwrap

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from training_toys import (
    BLOCK,
    SETTINGS,
    VAL_IDS,
    VOCAB,
    Curve,
    assert_same_weights,
    new_model,
    regression,
    run,
    text_task,
)

from tinygrad_llm import functional as F
from tinygrad_llm import runtime
from tinygrad_llm.datasets import SlidingWindows
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.nn import Embedding, Linear, Module
from tinygrad_llm.random import Generator
from tinygrad_llm.training import (
    ConfigError,
    Examples,
    LanguageModeling,
    Task,
    Trainer,
    TrainSettings,
    held_out_windows,
)
from tinygrad_llm.training import task as task_module
from tinygrad_llm.training.records import MeanGradient
from tinygrad_llm.training.task import take
from tinygrad_llm.training.workers import Workers

PLAIN = TrainSettings(
    steps=12, batch_size=5, lr=1e-2, warmup=0, weight_decay=0.0, eval_every=5, eval_batches=1, workers=1
)


# ---- a regression is trained as a language model is ------------------------------------------------------------------


def trained(settings, dtype=np.float32, stop_at=None):
    """A Curve after training, up to a step or to the end; and the reported steps."""
    model = Curve().to(dtype)
    trainer = Trainer(model, regression(dtype=dtype), settings)
    steps = list(trainer.run(lambda: trainer.step == stop_at))
    return trainer, [dataclasses.replace(step, tokens_per_second=0.0) for step in steps]


def test_a_regression_is_learned_and_its_own_figure_is_reported():
    trainer, steps = trained(dataclasses.replace(PLAIN, steps=150))
    assert steps[-1].val_loss < steps[0].val_loss / 4
    assert steps[0].measures.keys() == {"val_absolute_error"}
    assert steps[1].measures.keys() == {"absolute_error"}
    assert steps[5].measures.keys() == {"absolute_error", "val_absolute_error"}
    batch = regression().held_out[0]
    error = np.abs(trainer.model(batch["x"]).numpy() - batch["y"])[:, 0] * batch["counts"]
    assert steps[-1].measures["val_absolute_error"] == pytest.approx(error.sum() / batch["counts"].sum(), rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"accumulation": 3}], ids=str)
@pytest.mark.parametrize("workers", [2, 3])
def test_a_regression_by_several_workers_is_that_of_one(workers, changes):
    settings = dataclasses.replace(PLAIN, **changes)
    one, alone = trained(settings, np.float64)
    several, shared = trained(dataclasses.replace(settings, workers=workers), np.float64)
    for name, w in one.model.state_dict().items():
        np.testing.assert_allclose(several.model.state_dict()[name], w, rtol=1e-9, atol=1e-12, err_msg=name)
    for a, b in zip(alone, shared, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-9)
        assert b.measures == pytest.approx(a.measures, rel=1e-9)


@pytest.mark.parametrize("stop", [0, 3, 7])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_regression_equals_one_without_a_stop_bit_for_bit(stop, accumulation):
    settings = dataclasses.replace(PLAIN, accumulation=accumulation)
    whole, steps = trained(settings)
    first, begun = trained(settings, stop_at=stop)
    if accumulation > 1:
        assert first.advance() is None  # stopped in the middle of a step
    arrays, numbers = first.get_state()
    resumed = Trainer(Curve(), regression(), settings)
    resumed.set_state({name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(numbers)))
    rest = [dataclasses.replace(step, tokens_per_second=0.0) for step in resumed.run()]
    assert begun + rest == steps
    assert_same_weights(resumed.model.state_dict(), whole.model.state_dict())


def test_figures_of_accumulated_batches_are_those_of_one_large_batch():
    task = regression(dtype=np.float64)
    examples = task.batches.examples
    whole, *parts = (take(examples, slice(*ends)) for ends in ((0, 15), (0, 3), (3, 10), (10, 15)))
    found = MeanGradient()
    with Workers(Curve().to(np.float64), task, 1) as workers:
        for part in parts:
            before = found.copy()
            kept = copy.deepcopy(before)
            found.add(workers.gradient(part))
            np.testing.assert_equal(vars(before), vars(kept))  # a copy, to which a failed step goes back
        expected = workers.gradient(whole)
    assert len({task.count(part) for part in parts}) > 1
    assert (found.batches, found.count) == (3, expected.count)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert found.measures == pytest.approx(expected.measures, rel=1e-12)


def test_a_figure_that_the_first_batch_lacks_begins_at_its_own_value():
    total = MeanGradient(1, 3, 0.5, {"one": 1.0})
    total.add(MeanGradient(1, 1, 0.5, {"one": 3.0, "two": 8.0}))
    assert total.measures == {"one": 1.5, "two": 8.0}


def test_a_resumed_training_remembers_the_losses():
    first, resumed = (Trainer(Curve(), regression(), PLAIN) for _ in range(2))
    losses = [first.advance().loss for _ in range(3)]
    resumed.set_state(*first.get_state())
    assert list(resumed.losses.losses) == losses


def test_a_restored_state_has_its_own_arrays():
    settings = dataclasses.replace(PLAIN, accumulation=3)
    first = Trainer(Curve(), regression(), settings)
    assert first.advance() is None
    arrays, numbers = first.get_state()
    before = {name: array.copy() for name, array in arrays.items()}
    resumed = Trainer(Curve(), regression(), settings)
    resumed.set_state(arrays, numbers)
    while resumed.advance() is None:
        pass
    assert_same_weights(arrays, before)


@pytest.mark.parametrize("masks", ["torch", "quick"])
def test_dropout_of_any_model_is_resumed_bit_for_bit(masks):
    def trainer():
        return Trainer(Curve(dropout=0.3), regression(), dataclasses.replace(PLAIN, masks=masks))

    whole, parts, resumed = trainer(), trainer(), trainer()
    for _ in range(4):
        whole.advance()
    for _ in range(2):
        parts.advance()
    resumed.set_state(*parts.get_state())
    for _ in range(2):
        resumed.advance()
    assert_same_weights(resumed.model.state_dict(), whole.model.state_dict())


def test_the_example_in_the_documentation_learns():
    code = task_module.__doc__[task_module.__doc__.index("    class Classification") :].split("\nThe trainer")[0]
    names = {"Task": Task, "F": F}
    exec(textwrap.dedent(code), names)
    ids = np.random.default_rng(0).integers(0, VOCAB, (60, 3))
    examples = {"ids": ids, "label": (ids[:, 0] > 5).astype(int)}

    class Classifier(Module):
        def __init__(self):
            self.embedding = Embedding(VOCAB, 4, rng=Generator(0))
            self.head = Linear(12, 2, rng=Generator(1))

        def forward(self, ids):
            return self.head(self.embedding(ids).reshape(len(ids), 12))

    task = names["Classification"](Examples(examples, 10, Generator(2)), [examples])
    settings = dataclasses.replace(PLAIN, steps=40, lr=5e-2, min_lr=1e-3, workers=2)
    *_, last = Trainer(Classifier(), task, settings).run()
    assert last.measures["val_accuracy"] > 0.95
    assert 0 <= last.measures["accuracy"] <= 1


def test_a_task_without_a_loss_is_named():
    task = Task(Examples(np.zeros((4, 2)), 2, Generator(0)), [np.zeros((4, 2))])
    with pytest.raises(NotImplementedError, match="Task has no loss"):
        Trainer(Curve(), task, PLAIN).advance()


def test_a_batch_in_which_nothing_counts_is_refused():
    task = text_task()
    ids, targets = task.peek()
    task.next_batch = lambda: (ids, np.full_like(targets, IGNORE_INDEX))
    with pytest.raises(ValueError, match="LanguageModeling has no target that counts"):
        Trainer(new_model(), task, SETTINGS).advance()


def test_a_loss_must_be_a_scalar_and_a_figure_a_number():
    def step_with(change):
        task = regression()
        loss = task.loss
        task.loss = lambda *args: change(*loss(*args))
        Trainer(Curve(), task, PLAIN).advance()

    losses = {
        "a NoneType": lambda loss, measures: None,
        "a float": lambda loss, measures: loss.item(),
        "a list": lambda loss, measures: [loss, measures],
        r"a Tensor of shape \(2,\)": lambda loss, measures: F.stack([loss, loss]),
        "a tuple": lambda loss, measures: (loss, measures, 1),
        r"a Tensor of shape \(\) and a float": lambda loss, measures: (loss, 0.5),
    }
    for got, change in losses.items():
        with pytest.raises(ValueError, match=f"^Regression: a loss must be a scalar Tensor, or a pair .*; got {got}$"):
            step_with(change)
    with pytest.raises(ValueError, match="Regression: the loss must depend on a trained parameter; got a constant"):
        step_with(lambda loss, measures: loss.detach())
    for figure in (np.zeros(2), "0.5", None):
        with pytest.raises(ValueError, match="Regression: the figure 'accuracy' must be one number, got"):
            step_with(lambda loss, measures, figure=figure: (loss, {"accuracy": figure}))
    for name in ("val_accuracy", "loss", "step", 3):
        with pytest.raises(ValueError, match=f"Regression: the name of a figure must be text .*; got {name!r}"):
            step_with(lambda loss, measures, name=name: (loss, {name: 0.5}))


def test_a_negative_count_is_refused():
    task = regression()
    task.count = lambda batch: -3
    with pytest.raises(ValueError, match=r"Regression\.count: must be at least 1, got -3"):
        Trainer(Curve(), task, PLAIN).advance()
    with pytest.raises(ValueError, match=r"Regression\.count: must be at least 0, got -3"):
        task.evaluate(Curve())


def test_a_run_without_held_out_batches_is_refused():
    with pytest.raises(ConfigError, match=r"^Task has no held-out batches"):
        next(Trainer(Curve(), Task(Examples(np.zeros((4, 2)), 2, Generator(0))), PLAIN).run())


class OwnBatches(Task):
    """A task without `batches`, which does not call super().__init__."""

    batch_size = 5

    def __init__(self):
        self.inner = regression()
        self.held_out = self.inner.held_out
        for name in ("loss", "count", "next_batch", "generators", "get_state", "set_state"):
            setattr(self, name, getattr(self.inner, name))


def test_a_task_without_batches_trains_as_one_with_them():
    steps = [step.loss for step in Trainer(Curve(), OwnBatches(), PLAIN).run()]
    assert steps == [step.loss for step in Trainer(Curve(), regression(), PLAIN).run()]


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_with_a_part_that_has_no_rows_is_refused(workers):
    wrong = {
        "an array of shape (7,)": np.ones(7),
        "an array of shape ()": np.float64(3),
        "a float": 0.5,
        "a str": "words",
    }
    for got, part in wrong.items():
        task = regression()
        batch = task.next_batch()
        task.next_batch = lambda batch=batch, part=part: {**batch, "more": (None, part)}
        trainer = Trainer(Curve(), task, dataclasses.replace(PLAIN, workers=workers))
        message = f"batch['more'][1]: must be None or an array with 5 rows, got {got}. Constants belong on the Task"
        with trainer.workers, pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            trainer.advance()


def test_a_batch_without_an_array_is_refused():
    for batch in ((), {"x": None}, [[], ()], None):
        with pytest.raises(ValueError, match=r"^the batch has no array$"):
            task_module.rows(batch)


Pair = collections.namedtuple("Pair", "x y")


@given(n=st.integers(0, 12), parts=st.integers(1, 9))
def test_the_parts_of_any_nest_make_up_the_batch(n, parts):
    x = np.arange(n * 2).reshape(n, 2)
    batch = {"a": Pair(x, [x[:, 0], None]), "b": (np.arange(n),)}
    cut = regression().split(batch, parts)
    assert len(cut) == parts
    assert all(type(part["a"]) is Pair and type(part["a"].y) is list and part["a"].y[1] is None for part in cut)
    np.testing.assert_array_equal(np.concatenate([part["a"].x for part in cut]), x)
    np.testing.assert_array_equal(np.concatenate([part["b"][0] for part in cut]), np.arange(n))
    sizes = [len(part["b"][0]) for part in cut]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == sizes[-1]


@given(n=st.integers(1, 30), size=st.integers(1, 30), seed=st.integers(0, 99))
def test_an_epoch_shows_each_example_once(n, size, seed):
    assume(size <= n)
    source = Examples({"i": np.arange(n)}, size, Generator(seed))
    assert source.batch_size == size
    for _ in range(3):
        epoch = [next(source)["i"].tolist() for _ in range(n // size)]
        assert len({i for batch in epoch for i in batch}) == n // size * size


def test_examples_that_make_no_batch_are_refused():
    rng = Generator(0)
    for size in (0, -1):
        with pytest.raises(ValueError, match="batch_size"):
            Examples(np.arange(5), size, rng)
    with pytest.raises(ValueError, match="batch_size is 6, and the data have 5 examples: use a smaller batch_size"):
        Examples(np.arange(5), 6, rng)
    with pytest.raises(ValueError, match="there are no examples"):
        Examples(np.zeros((0, 3)), 2, rng)
    with pytest.raises(ValueError, match=r"batch\['y'\]: must be None or an array with 5 rows"):
        Examples({"x": np.arange(5), "y": np.arange(6)}, 2, rng)


def test_examples_refuse_the_place_of_other_data():
    source = Examples(np.arange(5), 2, Generator(0))
    places = ("x", 2), (3, "x"), (3, 1.5), (3, None), (-1, 2), (3, 6), (None, 2)
    for wrong in (*({"seed": seed, "position": position} for seed, position in places), {}, [], None):
        with pytest.raises(ValueError, match="is not a place among 5 examples"):
            source.set_state(wrong)


@pytest.mark.parametrize("make", [text_task, regression])
def test_peeking_changes_nothing(make):
    task, other = make(), make()
    for _ in range(20):
        task.peek()
        one, two = task.next_batch(), other.next_batch()
        pairs = zip(one.values(), two.values(), strict=True) if isinstance(one, dict) else zip(one, two, strict=True)
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)


def test_a_task_for_other_processes_has_no_data():
    task = text_task(dataclasses.replace(SETTINGS, label_smoothing=0.2))
    sent = task.without_data()
    assert (sent.batches, sent.held_out, sent.label_smoothing) == (None, (), 0.2)
    assert task.held_out
    assert task.batches is not None


# ---- held-out losses -------------------------------------------------------------------------------------------------


@given(n=st.integers(2, 400), block=st.integers(1, 20), batch_size=st.integers(1, 6), batches=st.integers(1, 6))
def test_held_out_windows_are_spread_over_the_text(n, block, batch_size, batches):
    ids = np.arange(n + block)
    found = held_out_windows([ids], block, batch_size, batches)
    assert all(len(inputs) == batch_size for inputs, _ in found[:-1])
    inputs, targets = (np.concatenate(part) for part in zip(*found, strict=True))
    np.testing.assert_array_equal(inputs + 1, targets)
    np.testing.assert_array_equal(inputs, inputs[:, :1] + np.arange(block))
    numbers, rest = np.divmod(inputs[:, 0], block)
    assert not rest.any()  # so no target counts twice
    windows = len(SlidingWindows(ids, block))
    assert len(numbers) == min(windows, batch_size * batches)
    gaps = np.diff(numbers)
    assert (gaps > 0).all()
    if len(numbers) > 1:
        assert (numbers[0], numbers[-1]) == (0, windows - 1)
        assert gaps.max() - gaps.min() <= 2  # even, apart from rounding at both ends of a gap


@pytest.mark.parametrize(
    ("weights", "counts"), [((), [3, 6, 3]), ((6, 1, 5), [6, 1, 5])], ids=["by length", "by weight"]
)
def test_held_out_windows_of_several_texts_follow_their_weights(weights, counts):
    texts = [1000 * i + np.arange(n) for i, n in enumerate((200, 400, 200))]
    found = held_out_windows(texts, 8, 4, 3, weights)
    kinds = np.concatenate([inputs[:, 0] // 1000 for inputs, _ in found])
    assert np.bincount(kinds).tolist() == counts


def test_the_held_out_windows_never_change(monkeypatch):
    seen = []
    loss = LanguageModeling.held_out_loss

    def note(task, model, batch, total):
        seen.append([part.copy() for part in batch])
        return loss(task, model, batch, total)

    monkeypatch.setattr(LanguageModeling, "held_out_loss", note)
    run(new_model())
    batches = len(text_task().held_out)
    assert len(seen) == 3 * batches
    for i, batch in enumerate(seen):
        np.testing.assert_array_equal(batch, seen[i % batches])


def nats(model, inputs, targets):
    """−ln p of each target, in float64."""
    logits = model(inputs).numpy().astype(np.float64)
    right = np.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
    return np.log(np.exp(logits).sum(axis=2)) - right


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    """A number of threads for evaluation, also on a machine of one core."""
    for module in (task_module, runtime):
        monkeypatch.setattr(module, "threads_of_blas", lambda: request.param)


@pytest.mark.usefixtures("threads")
def test_the_held_out_loss_is_the_mean_over_the_targets_that_count():
    model = new_model(dropout=0.5)
    windows = SlidingWindows(VAL_IDS, BLOCK)
    batches = [windows.batch([0, 1, 2, 3]), windows.batch([4])]  # a mean of their means would be another number
    masked = batches[0][1].copy()
    masked[0], masked[2, 3] = IGNORE_INDEX, IGNORE_INDEX
    nothing = windows.batch([5])[0], np.full((1, BLOCK), IGNORE_INDEX)
    found = text_task().evaluate(model, [(batches[0][0], masked), batches[1], nothing]).loss
    model.eval()
    expected = np.concatenate([nats(model, *batches[0])[masked != IGNORE_INDEX], nats(model, *batches[1]).ravel()])
    assert found == pytest.approx(expected.mean(), rel=1e-6)
    with pytest.raises(ValueError, match="the 1 held-out batches have no target that counts"):
        text_task().evaluate(model, [nothing])
    with pytest.raises(ValueError, match="the 0 held-out batches have no target that counts"):
        text_task().evaluate(model, [])


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_leaves_the_mode_as_it_was(training, monkeypatch):
    model = new_model(dropout=0.5).train(training)
    text_task().evaluate(model)
    assert {module.training for module in model.modules()} == {training}

    def fail(*batch):
        raise MemoryError

    monkeypatch.setattr(model, "loss", fail)
    with pytest.raises(MemoryError):
        text_task().evaluate(model)
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.usefixtures("threads")
def test_the_held_out_loss_of_a_regression_is_a_mean_over_the_rows_that_count():
    model, task = Curve().to(np.float64), regression(dtype=np.float64)
    (batch,) = task.held_out
    squares = (model(batch["x"]).numpy() - batch["y"])[:, 0] ** 2
    found = task.evaluate(model)
    assert 0 < batch["counts"].sum() < len(squares)
    assert found.loss == pytest.approx((squares * batch["counts"]).sum() / batch["counts"].sum(), rel=1e-12)
    errors = np.abs(model(batch["x"]).numpy() - batch["y"])[:, 0]
    expected = (errors * batch["counts"]).sum() / batch["counts"].sum()
    assert found.measures["absolute_error"] == pytest.approx(expected, rel=1e-12)


def test_a_state_of_other_data_is_refused():
    task = text_task()
    with pytest.raises(ValueError, match="position"):
        task.set_state({"seeds": [1, 2], "positions": [0, 0]})
