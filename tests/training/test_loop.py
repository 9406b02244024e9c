"""The training loop: what it reports, what it changes, and what it refuses."""

import contextlib
import dataclasses
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from training_toys import (
    BLOCK,
    IDS,
    SETTINGS,
    VAL_IDS,
    VOCAB,
    Given,
    assert_same_weights,
    new_model,
    run,
    text_task,
    weights,
)

from tinygrad_llm.datasets import DataError, SlidingWindows
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.nn import Dropout, Module, Parameter
from tinygrad_llm.optim import AdamW, Muon, warmup_cosine
from tinygrad_llm.random import Generator, QuickMasks
from tinygrad_llm.training import (
    ConfigError,
    Evaluation,
    Examples,
    LanguageModeling,
    Task,
    Trainer,
    TrainingError,
    TrainSettings,
    loop,
    make_optimizer,
    records,
    train,
)


def test_a_repeating_text_is_learned():
    steps = run(new_model(n_embd=16), steps=80, warmup=5)
    assert steps[-1].val_loss < 0.5 < steps[0].val_loss


# ---- what is reported ------------------------------------------------------------------------------------------------


def test_step_0_is_the_untrained_model():
    model = new_model()
    untrained = text_task().evaluate(model).loss
    before = weights(model)
    first = next(train(model, IDS, VAL_IDS, SETTINGS))
    assert (first.step, first.lr, first.grad_norm) == (0, 0, 0)
    assert first.loss == first.val_loss == untrained
    assert first.loss == pytest.approx(math.log(VOCAB), abs=0.05)  # it has no reason to prefer any token
    assert_same_weights(weights(model), before)


def test_every_step_is_reported_and_the_last_is_measured():
    steps = run(new_model())
    assert [s.step for s in steps] == [0, 1, 2, 3, 4, 5, 6]
    assert [s.step for s in steps if s.val_loss is not None] == [0, 4, 6]


def test_epochs_take_the_place_of_steps():
    windows = len(SlidingWindows(IDS, BLOCK, SETTINGS.stride))
    counts = {"batch_size": windows // 4, "eval_every": 99, "eval_batches": 1}
    assert run(new_model(), epochs=2, steps=1, warmup=0, **counts)[-1].step == 8


def test_a_trainer_counts_epochs_by_itself():
    examples = Examples({"x": np.ones((10, 2), np.float32)}, 3, Generator(0))
    settings = TrainSettings(epochs=4, accumulation=2, steps=99, warmup=5, workers=1)
    assert Trainer(new_model(), LanguageModeling(examples), settings).settings.steps == 4 * 3 // 2
    with pytest.raises(ConfigError, match="more than the run's 1 steps"):
        Trainer(new_model(), LanguageModeling(examples), dataclasses.replace(settings, epochs=1))


def test_the_seed_decides_everything():
    one, two = new_model(), new_model()
    assert run(one) == run(two)
    assert_same_weights(weights(one), weights(two))
    assert run(new_model()) != run(new_model(), seed=6)


def test_a_batch_may_hold_all_windows_of_a_text_and_no_more():
    ids = IDS[: 2 * BLOCK + 1]
    steps = run(new_model(), ids=ids, batch_size=2, stride=0)
    assert steps[-1].val_loss < steps[0].val_loss
    with pytest.raises(DataError, match="batch_size is 3, and the data have 2 windows"):
        run(new_model(), ids=ids, batch_size=3, stride=0)


def test_the_speed_counts_training_only(monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(records.time, "perf_counter", lambda: float(next(seconds)))
    evaluate = Task.evaluate

    def slow(*args):
        for _ in range(50):
            next(seconds)
        return evaluate(*args)

    monkeypatch.setattr(Task, "evaluate", slow)
    steps = list(train(new_model(), IDS, VAL_IDS, SETTINGS))
    # The clock ticks once between the two readings in each step.
    assert [s.tokens_per_second for s in steps] == [0.0] + [SETTINGS.batch_size * BLOCK] * SETTINGS.steps


def test_a_spike_has_a_high_z_score(monkeypatch):
    model = new_model()
    original = model.loss
    done = 0

    def spiky(*batch):
        return original(*batch) * (50 if model.training and done == 29 else 1)

    monkeypatch.setattr(model, "loss", spiky)
    steps = []
    for step in train(model, IDS, VAL_IDS, dataclasses.replace(SETTINGS, steps=33, lr=1e-4, min_lr=0, eval_every=100)):
        steps.append(step)
        done = step.step
    assert [step.step for step in steps if step.spike] == [30]
    assert [step.step for step in steps if step.z_score is None] == list(range(21))
    before = [step.loss for step in steps[1:30]]
    assert steps[30].z_score == pytest.approx((steps[30].loss - np.mean(before)) / np.std(before))
    assert steps[31].z_score < 1  # once seen, a spike is part of what is usual


def test_a_loss_is_compared_with_the_hundred_before_it():
    history, last = records.LossHistory(), np.linspace(1, 2, 100)
    for loss in [1000.0] * 50 + last.tolist():
        history.z_score(loss)
    assert list(history.losses) == last.tolist()
    assert history.z_score(3.0) == pytest.approx((3 - last.mean()) / last.std())
    again = records.LossHistory(history.losses)  # as after a resume
    assert again.z_score(2.5) == history.z_score(2.5)
    assert again.losses == history.losses


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own figures")
def test_memory_is_the_peak_in_bytes():
    steps = list(train(new_model(), IDS, VAL_IDS, SETTINGS))
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak = int(line.split()[1]) * 1024
    assert steps[0].memory is None
    # It may exceed this peak: what the process had before exec counts as well.
    assert 0.9 * peak < steps[-1].memory < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# ---- the update ------------------------------------------------------------------------------------------------------


def test_the_learning_rate_follows_the_schedule():
    model = new_model(np.float64)
    before = model.transformer.ln_f.bias.numpy().copy()
    steps = train(model, IDS, VAL_IDS, dataclasses.replace(SETTINGS, clip=math.inf))
    next(steps)
    first = next(steps)
    assert first.lr == SETTINGS.lr / 2  # the first of two steps of warm-up
    # Adam's first update is lr · g / (|g| + 1e-8): lr, up or down, where there is a gradient.
    moved = np.abs(model.transformer.ln_f.bias.numpy() - before)
    np.testing.assert_allclose(moved, first.lr, rtol=1e-3)
    rates = [first.lr, *(s.lr for s in steps)]
    assert rates == [warmup_cosine(i, steps=6, lr=1e-2, min_lr=1e-3, warmup=2) for i in range(6)]
    assert rates[1] == SETTINGS.lr
    assert rates[-1] == pytest.approx(SETTINGS.min_lr)


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_weight_decay_shrinks_the_parameters_it_is_set_for(decay):
    start, decayed, free = (new_model(np.float64) for _ in range(3))
    (_, first) = run(decayed, steps=1, warmup=0, weight_decay=0.5, decay=decay)
    run(free, steps=1, warmup=0, weight_decay=0.0)
    for (name, p0), p1, p2 in zip(start.named_parameters(), decayed.parameters(), free.parameters(), strict=True):
        expected = -first.lr * 0.5 * p0.data if p0.ndim >= 2 or decay == "all" else np.zeros(p0.shape)
        np.testing.assert_allclose(p1.data - p2.data, expected, rtol=0, atol=1e-15, err_msg=name)


def test_the_gradient_is_clipped_and_its_norm_before_is_reported():
    start, free, clipped = (new_model(np.float64) for _ in range(3))
    plain = {"steps": 1, "warmup": 0, "optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.0}  # lr times the gradient
    norm = run(free, clip=math.inf, **plain)[1].grad_norm
    assert run(clipped, clip=norm / 4, **plain)[1].grad_norm == norm
    for p0, p1, p2 in zip(start.parameters(), free.parameters(), clipped.parameters(), strict=True):
        np.testing.assert_allclose(p2.data - p0.data, (p1.data - p0.data) / 4, rtol=1e-4, atol=1e-14)
    moved = math.sqrt(sum(np.sum((clipped.state_dict()[name] - w) ** 2) for name, w in start.state_dict().items()))
    assert moved == pytest.approx(SETTINGS.lr * norm / 4, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse_sqrt"])
def test_every_optimizer_and_schedule_learns(optimizer, schedule):
    lr = 0.5 if optimizer == "sgd" else 1e-2
    steps = run(new_model(), steps=20, optimizer=optimizer, schedule=schedule, lr=lr, momentum=0.5)
    assert steps[-1].val_loss < steps[0].val_loss - 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_the_optimizer_gets_the_eps_and_betas_of_the_settings(optimizer):
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, eps=1e-3, betas=(0.5, 0.6))
    made = Trainer(new_model(), text_task(), settings).optimizer
    assert (made.eps, made.betas) == (1e-3, (0.5, 0.6))


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_muon_updates_the_matrices_of_blocks_and_adamw_the_rest(decay):
    model = new_model()
    settings = dataclasses.replace(SETTINGS, optimizer="muon", eps=1e-3, betas=(0.5, 0.6), decay=decay, lr=3e-3)
    optimizer = make_optimizer(model, settings)
    rules = {name: optimizer._rule(name) for name in dict(model.named_parameters())}
    inner = {name for name, p in model.named_parameters() if ".h." in name and p.ndim == 2}
    assert {name for name, rule in rules.items() if isinstance(rule, Muon)} == inner
    assert {(rule.eps, rule.betas) for rule in rules.values() if isinstance(rule, AdamW)} == {(1e-3, (0.5, 0.6))}
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {2: 0.1, 1: 0.1 if decay == "all" else 0.0}
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}

    for name, p in model.named_parameters():
        p.requires_grad = name in inner
    assert isinstance(make_optimizer(model, settings), Muon)
    for name, p in model.named_parameters():
        p.requires_grad = name not in inner
    with pytest.raises(ConfigError, match=r"^training\.optimizer: muon updates the matrices of blocks.*: set adamw$"):
        make_optimizer(model, settings)


# ---- NaN and infinity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", ["the loss", "the gradient"])
def test_nan_stops_training_before_the_update(breaks, monkeypatch):
    model = new_model()
    steps = train(model, IDS, VAL_IDS, SETTINGS)
    for _ in range(3):  # 0, 1 and 2
        next(steps)
    original = model.loss

    def broken(*batch):
        loss = original(*batch)
        if breaks == "the loss":
            return loss * math.nan
        return loss + (loss * 0.0) ** 0.5  # the value of √0 is 0, its slope infinite

    monkeypatch.setattr(model, "loss", broken)
    before = weights(model)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"step 3: .*nan.*lower learning rate"):
        next(steps)
    assert_same_weights(weights(model), before)


def test_the_bad_operation_and_its_layer_are_named():
    model = new_model()
    steps = train(model, IDS, VAL_IDS, SETTINGS)
    next(steps)
    model.transformer.h[0].mlp.c_fc.weight.data[:] = 1e38  # as a learning rate far too high does
    with pytest.raises(
        TrainingError, match=r"step 1: the loss is nan .*transformer\.h\.0\.mlp.*lower learning rate"
    ) as error:
        next(steps)
    assert "\n" not in str(error.value)
    assert error.value.__cause__.layer.startswith("GPT.transformer.h.0")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("workers", [1, 2])
def test_the_bad_operation_is_searched_with_the_masks_of_the_step(workers, seed):
    """A model that is bad with half of all masks: another mask could show nothing."""

    class Logarithm(Module):
        def __init__(self):
            self.w, self.dropout = Parameter(np.ones(1, np.float32)), Dropout(0.5, rng=Generator(seed))

    class Bad(Task):
        def loss(self, model, batch, total):
            return model.dropout(model.w).log().sum()

        def held_out_loss(self, model, batch, total):
            return model.w.sum()

    ones = np.ones((workers, 1), np.float32)
    settings = TrainSettings(steps=9, lr=0.0, min_lr=0.0, warmup=0, workers=workers, eval_every=9)
    trainer = Trainer(Logarithm(), Bad(Given(itertools.repeat(ones), workers), [ones]), settings)
    with pytest.raises(TrainingError, match=r"step \d+: the loss is -inf .*: log made inf in its output"):
        list(trainer.run())


def test_bad_steps_are_skipped_where_the_settings_say_so(monkeypatch):
    model = new_model()
    original, calls = model.loss, []

    def broken(*batch):
        calls.append(batch)
        return original(*batch) * (math.nan if model.training and len(calls) % 5 == 0 else 1)

    monkeypatch.setattr(model, "loss", broken)
    steps = run(model, steps=12, on_bad_step="skip", eval_every=12, eval_batches=1)
    assert sum(step.skipped for step in steps) >= 2
    assert all(math.isnan(step.loss) == step.skipped for step in steps)
    assert all(step.z_score is None for step in steps)  # so few losses; those of skipped steps are not among them
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_bad_steps_that_are_not_in_a_row_never_stop_training(monkeypatch):
    model = new_model()
    original = model.loss
    settings = dataclasses.replace(SETTINGS, on_bad_step="skip", steps=26, eval_every=26)
    trainer = Trainer(model, text_task(), settings)
    monkeypatch.setattr(model, "loss", lambda *batch: original(*batch) * (math.nan if trainer.step % 2 else 1))
    for _ in range(settings.steps - 1):
        trainer.advance()
    assert trainer.skipped == 12 > loop.GIVE_UP


@pytest.mark.parametrize("bad", [loop.GIVE_UP - 1, loop.GIVE_UP])
def test_as_many_bad_steps_in_a_row_as_give_up_says_end_training(bad, monkeypatch):
    model = new_model()
    original = model.loss
    trainer = Trainer(model, text_task(), dataclasses.replace(SETTINGS, on_bad_step="skip", steps=99))
    monkeypatch.setattr(model, "loss", lambda *batch: original(*batch) * (math.nan if trainer.step < bad else 1))
    for _ in range(loop.GIVE_UP - 1):
        assert trainer.advance().skipped
    if bad == loop.GIVE_UP:
        with pytest.raises(TrainingError, match=f"step {loop.GIVE_UP}: .*, the {loop.GIVE_UP}th bad step in a row"):
            trainer.advance()
    else:
        assert not trainer.advance().skipped
        assert trainer.skipped_in_a_row == 0


def test_a_skipped_loss_is_not_remembered(monkeypatch):
    model = new_model()
    original = model.loss
    trainer = Trainer(model, text_task(), dataclasses.replace(SETTINGS, on_bad_step="skip"))
    monkeypatch.setattr(model, "loss", lambda *batch: original(*batch) * (math.nan if trainer.step == 1 else 1))
    losses = [trainer.advance().loss for _ in range(3)]
    assert math.isnan(losses[1])
    assert list(trainer.losses.losses) == [losses[0], losses[2]]


def test_a_skipped_step_has_no_update_ratio(monkeypatch):
    model = new_model()
    original = model.loss
    monkeypatch.setattr(model, "loss", lambda *batch: original(*batch) * (math.nan if model.training else 1))
    step = run(model, steps=1, warmup=0, on_bad_step="skip")[1]
    assert step.skipped
    assert step.update_ratio is None
    assert math.isnan(step.layer_grad_norm["h.0"])


# ---- accumulation and label smoothing --------------------------------------------------------------------------------


def trainer_on(batches, **changes):
    """A Trainer of a float64 model on these batches."""
    settings = dataclasses.replace(SETTINGS, clip=math.inf, **changes)
    task = LanguageModeling(
        Given(iter(batches), 7), [(IDS[None, :BLOCK], IDS[None, 1 : BLOCK + 1])], settings.label_smoothing
    )
    return Trainer(new_model(np.float64), task, settings)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sizes", [[2, 2, 2], [1, 4, 2], [5, 1]])
def test_accumulated_batches_equal_one_large_batch(sizes, workers):
    rows = np.stack([IDS[i : i + BLOCK + 1] for i in range(sum(sizes))])
    inputs, targets = rows[:, :-1], rows[:, 1:].copy()
    targets[0, :5] = targets[-1, 2] = IGNORE_INDEX  # so the parts differ in how many count
    cuts = np.cumsum(sizes)[:-1]
    parts = list(zip(np.split(inputs, cuts), np.split(targets, cuts), strict=True))
    small = trainer_on(parts, accumulation=len(sizes), workers=workers)
    large = trainer_on([(inputs, targets)], workers=workers)
    with small.workers, large.workers:
        for _ in sizes[1:]:
            assert small.advance() is None
        one, other = small.advance(), large.advance()
    assert one.loss == pytest.approx(other.loss, rel=1e-13)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-12)
    for name, p in small.parameters.items():
        np.testing.assert_allclose(p.grad, large.parameters[name].grad, rtol=1e-10, atol=1e-15)


def test_an_accumulation_ends_at_its_first_bad_batch(monkeypatch):
    batch = IDS[None, :BLOCK], IDS[None, 1 : BLOCK + 1]
    trainer = trainer_on([batch] * 9, accumulation=3, on_bad_step="skip")
    original, taken = trainer.model.loss, []

    def broken(*batch):
        taken.append(trainer.step)
        return original(*batch) * (math.nan if len(taken) == 2 else 1)

    monkeypatch.setattr(trainer.model, "loss", broken)
    steps = [step for step in (trainer.advance() for _ in range(5)) if step]
    assert [step.skipped for step in steps] == [True, False]
    assert taken == [0, 0, 1, 1, 1]


def test_a_bad_step_after_a_resume_within_an_accumulation_goes_back_to_the_checkpoint(monkeypatch):
    first, second = (Trainer(new_model(), text_task(), dataclasses.replace(SETTINGS, accumulation=3)) for _ in range(2))
    for _ in range(4):
        first.advance()
    arrays, numbers = first.get_state()
    second.set_state({name: array.copy() for name, array in arrays.items()}, numbers)
    original = second.model.loss
    monkeypatch.setattr(second.model, "loss", lambda *batch: original(*batch) * math.nan)
    with pytest.raises(TrainingError, match="step 2"):
        second.advance()
    again, same = second.get_state()
    assert same == numbers
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }


def test_label_smoothing_counts_in_training_and_not_in_held_out_losses():
    batch = IDS[None, :BLOCK], IDS[None, 1 : BLOCK + 1]
    smooth, plain = trainer_on([batch], label_smoothing=0.1), trainer_on([batch])
    assert next(smooth.run()).val_loss == next(plain.run()).val_loss
    logits = new_model(np.float64)(batch[0]).numpy()[0]
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(0.9 * log_probs[np.arange(BLOCK), batch[1][0]] + 0.1 * log_probs.mean(axis=1)).mean()
    loss = smooth.advance().loss
    assert loss == pytest.approx(expected, rel=1e-12)
    assert loss != plain.advance().loss


# ---- settings --------------------------------------------------------------------------------------------------------


def test_a_lengthened_schedule_changes_from_the_step_at_which_it_was_lengthened():
    settings = dataclasses.replace(SETTINGS, steps=20, extended=((1, 4), (5, 10)))
    rates = [settings.learning_rate(step) for step in range(8)]
    expected = [warmup_cosine(i, steps=10 if i < 5 else 20, lr=1e-2, min_lr=1e-3, warmup=2) for i in range(8)]
    assert rates == expected
    assert rates[4] != warmup_cosine(4, steps=20, lr=1e-2, min_lr=1e-3, warmup=2)


def test_there_are_at_most_as_many_workers_as_rows():
    assert Trainer(new_model(), text_task(), dataclasses.replace(SETTINGS, workers=50)).workers.threads == 7


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "must be at least 1, got 0"),
        ({"eval_every": 0}, "must be at least 1, got 0"),
        ({"workers": -3}, "must be at least 1, got -3"),
        ({"lr": math.nan}, "must be finite and ≥ 0, got nan"),
        ({"lr": math.inf}, "must be finite and ≥ 0, got inf"),
        ({"min_lr": 0.5}, r"0.5 is above training.lr, 0.01, .*lower it as well \(min_lr=0.001\)"),
        ({"workers": 1.5}, "must be an integer, got 1.5"),
        ({"extended": ((0, 5),)}, r"must be pairs of numbers above 0.*, got \[\[0, 5\]\]"),
        ({"extended": ((5, 0),)}, "must be pairs of numbers above 0"),
        ({"extended": ((5, 9), (5, 12))}, "must be pairs of numbers above 0"),
        ({"warmup": -1}, "must be finite and ≥ 0, got -1"),
        ({"clip": 0.0}, r"must be positive \(inf: no limit\), got 0.0"),
        ({"clip": math.nan}, "must be positive .*, got nan"),
        ({"optimizer": "adagrad"}, "must be adamw, adam, sgd or muon, got 'adagrad'"),
        ({"schedule": "exponential"}, "must be cosine, linear, constant or inverse_sqrt, got 'exponential'"),
        ({"order": "sorted"}, "must be epochs or random, got 'sorted'"),
        ({"steps": "3"}, "must be an integer, got '3'"),
        ({"batch_size": 2.0}, "must be an integer, got 2.0"),
        ({"steps": True}, "must be an integer, got True"),
        ({"lr": "1e-3"}, "must be a number, got '1e-3'"),
        ({"betas": (0.9,)}, r"must be two numbers, got \(0.9,\)"),
        ({"betas": 0.9}, "must be two numbers, got 0.9"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=rf"^training\.{next(iter(wrong))}: {message}"):
        dataclasses.replace(SETTINGS, **wrong)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse_sqrt"])
def test_a_floor_above_the_peak_is_refused_where_the_schedule_ends_there(schedule):
    ends_there = schedule in ("cosine", "linear")
    with pytest.raises(ConfigError, match="the rate would rise") if ends_there else contextlib.nullcontext():
        dataclasses.replace(SETTINGS, min_lr=0.5, schedule=schedule)


@pytest.mark.parametrize("masks", ["torch", "quick"])
def test_dropout_draws_from_the_stream_that_the_settings_name(masks):
    model = new_model(dropout=0.5)
    drawn = {id(module.rng) for module in model.modules() if isinstance(module, Dropout)}
    Trainer(model, text_task(), dataclasses.replace(SETTINGS, masks=masks, seed=4))
    streams = [module.rng for module in model.modules() if isinstance(module, Dropout)]
    if masks == "torch":
        assert {id(rng) for rng in streams} == drawn
    else:
        assert len({id(rng) for rng in streams}) == 1
        assert type(streams[0]) is QuickMasks
        assert str(streams[0].get_state()) == str(QuickMasks(4).get_state()) != str(QuickMasks(5).get_state())


def test_windows_are_shuffled_by_the_generator_that_is_given():
    rng = Generator(9)
    before, settings = rng.get_state(), dataclasses.replace(SETTINGS, seed=3)
    given = [step.loss for step in train(new_model(), IDS, VAL_IDS, settings, rng)]
    assert str(rng.get_state()) != str(before)
    own, same = ([step.loss for step in train(new_model(), IDS, VAL_IDS, settings, r)] for r in (None, Generator(3)))
    assert own == same != given


def test_a_held_out_loss_that_no_operation_explains_is_infinite_all_the_same(monkeypatch):
    trainer = Trainer(new_model(), text_task(), SETTINGS)
    monkeypatch.setattr(trainer.task, "evaluate", lambda model: Evaluation(math.inf, {}))
    with pytest.raises(TrainingError, match=r"^step 0: the held-out loss is inf: computed a second"):
        list(trainer.run())


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(DataError, match=f"{BLOCK} tokens; one window of block_size {BLOCK} .*need {BLOCK + 1}"):
        run(new_model(), ids=IDS[:BLOCK])
    with pytest.raises(DataError, match=r"held-out part is too short: .*5 tokens"):
        run(new_model(), val_ids=IDS[:5])
    just_enough = IDS[: BLOCK + 1]
    assert len(run(new_model(), ids=just_enough, val_ids=just_enough, batch_size=1)) == 7


@pytest.mark.parametrize("wrong", [VOCAB, -1])
def test_an_id_outside_the_vocabulary_is_named(wrong):
    ids = IDS.copy()
    ids[77] = wrong
    with pytest.raises(DataError, match=rf"^ids: token 77 is id {wrong}, and the vocabulary has ids 0 to 10"):
        run(new_model(), ids=ids)
    with pytest.raises(DataError, match=r"^val_ids: token 77"):
        run(new_model(), val_ids=ids)
