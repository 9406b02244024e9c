"""The training loop: what it reports, what it changes, and what it refuses."""

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import BatchStream, DataError, SlidingWindows
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.optim import warmup_cosine
from tinygrad_llm.random import Generator
from tinygrad_llm.training import (
    ConfigError,
    Trainer,
    TrainingError,
    TrainSettings,
    evaluate,
    loop,
    train,
    validation_batches,
)

BLOCK, VOCAB = 8, 11
IDS = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 10, 0, 7, 8]), 30)
VAL_IDS = IDS[5:120]
SETTINGS = TrainSettings(
    steps=6, batch_size=7, lr=1e-2, min_lr=1e-3, warmup=2, eval_every=4, eval_batches=2, workers=1, seed=5
)


def new_model(dropout=0.0, dtype=np.float32):
    sizes = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 1, "n_head": 2, "n_embd": 16}
    return GPT(GPTConfig(**sizes, dropout=dropout), Generator(1)).to(dtype)


def run(model, ids=IDS, val_ids=VAL_IDS, **changes):
    """All steps, with the measured speeds, which differ each time, left out."""
    steps = train(model, ids, val_ids, dataclasses.replace(SETTINGS, **changes))
    return [dataclasses.replace(step, tokens_per_second=0.0) for step in steps]


def weights(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)


# ---- learning --------------------------------------------------------------------------------------------------


def test_a_text_that_repeats_itself_is_learned():
    steps = run(new_model(), steps=60, warmup=5)
    assert steps[-1].val_loss < 0.5 < steps[0].val_loss


def test_step_0_is_the_untrained_model():
    model = new_model()
    untrained = evaluate(model, validation_batches([VAL_IDS], BLOCK, SETTINGS.batch_size, SETTINGS.eval_batches))
    before = weights(model)
    first = next(train(model, IDS, VAL_IDS, SETTINGS))
    assert (first.step, first.lr, first.grad_norm) == (0, 0, 0)
    assert first.loss == first.val_loss == untrained
    assert first.loss == pytest.approx(math.log(VOCAB), abs=0.05)  # it has no reason to prefer any token
    assert_same_weights(weights(model), before)


def test_each_step_is_told_and_the_last_is_measured():
    steps = run(new_model())
    assert [s.step for s in steps] == [0, 1, 2, 3, 4, 5, 6]
    assert [s.step for s in steps if s.val_loss is not None] == [0, 4, 6]


def test_the_seed_decides_everything():
    one, two = new_model(), new_model()
    assert run(one) == run(two)
    assert_same_weights(weights(one), weights(two))
    assert run(new_model()) != run(new_model(), seed=6)


def test_a_batch_is_never_larger_than_the_text():
    steps = run(new_model(), ids=IDS[: 2 * BLOCK + 1], batch_size=50)
    assert steps[-1].val_loss < steps[0].val_loss


def test_the_speed_counts_training_alone(monkeypatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(seconds)))

    def slow_evaluation(model, batches):
        for _ in range(50):
            next(seconds)
        return 1.0

    monkeypatch.setattr(loop, "evaluate", slow_evaluation)
    steps = list(train(new_model(), IDS, VAL_IDS, SETTINGS))
    # The clock ticks once between the two looks at it in each step.
    assert [s.tokens_per_second for s in steps] == [0.0] + [SETTINGS.batch_size * BLOCK] * SETTINGS.steps


# ---- the update ------------------------------------------------------------------------------------------------


def test_the_learning_rate_follows_the_schedule():
    model = new_model(dtype=np.float64)
    before = model.transformer.ln_f.bias.numpy().copy()
    steps = train(model, IDS, VAL_IDS, dataclasses.replace(SETTINGS, clip=math.inf))
    next(steps)
    first = next(steps)
    assert first.lr == SETTINGS.lr / 2  # the first of two steps of warm-up
    # Adam's first update is lr · g / (|g| + 1e-8): lr, up or down, where there is a gradient.
    moved = np.abs(model.transformer.ln_f.bias.numpy() - before)
    np.testing.assert_allclose(moved, first.lr, rtol=1e-3)
    rest = list(steps)
    rates = [first.lr, *(s.lr for s in rest)]
    assert rates == [warmup_cosine(i, steps=6, lr=1e-2, min_lr=1e-3, warmup=2) for i in range(6)]
    assert rates[1] == SETTINGS.lr
    assert rates[-1] == pytest.approx(SETTINGS.min_lr)


def test_weight_decay_shrinks_matrices_and_nothing_else():
    start, decayed, free = (new_model(dtype=np.float64) for _ in range(3))
    (_, first) = run(decayed, steps=1, warmup=0, weight_decay=0.5)
    run(free, steps=1, warmup=0, weight_decay=0.0)
    for (name, p0), p1, p2 in zip(start.named_parameters(), decayed.parameters(), free.parameters(), strict=True):
        expected = -first.lr * 0.5 * p0.data if p0.ndim >= 2 else np.zeros(p0.shape)
        np.testing.assert_allclose(p1.data - p2.data, expected, rtol=0, atol=1e-15, err_msg=name)


def test_the_gradient_is_clipped_and_its_norm_told_as_it_was():
    start, free, clipped = (new_model(dtype=np.float64) for _ in range(3))
    plain = {"steps": 1, "warmup": 0, "optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.0}  # lr times the gradient
    told = run(free, clip=math.inf, **plain)[1].grad_norm
    assert run(clipped, clip=told / 4, **plain)[1].grad_norm == told
    for p0, p1, p2 in zip(start.parameters(), free.parameters(), clipped.parameters(), strict=True):
        np.testing.assert_allclose(p2.data - p0.data, (p1.data - p0.data) / 4, rtol=1e-4, atol=1e-14)
    moved = math.sqrt(sum(np.sum((clipped.state_dict()[name] - w) ** 2) for name, w in start.state_dict().items()))
    assert moved == pytest.approx(SETTINGS.lr * told / 4, rel=1e-4)


@pytest.mark.parametrize("breaks", ["the loss", "the gradient"])
def test_what_is_no_number_stops_before_the_update(breaks, monkeypatch):
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


def test_bad_steps_may_be_skipped(monkeypatch):
    model = new_model()
    original, calls = model.loss, []

    def broken(*batch):
        calls.append(batch)
        return original(*batch) * (math.nan if model.training and len(calls) % 5 == 0 else 1)

    monkeypatch.setattr(model, "loss", broken)
    steps = run(model, steps=12, on_bad_step="skip", eval_every=12, eval_batches=1)
    assert sum(step.skipped for step in steps) >= 2
    assert all(math.isnan(step.loss) == step.skipped for step in steps)
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_a_spike_stands_out_by_its_z_score(monkeypatch):
    model = new_model()
    original = model.loss

    def spiky(*batch):
        return original(*batch) * (50 if model.training and step == 39 else 1)

    monkeypatch.setattr(model, "loss", spiky)
    steps, step = [], 0
    for told in train(model, IDS, VAL_IDS, dataclasses.replace(SETTINGS, steps=45, lr=1e-4, min_lr=0, eval_every=100)):
        steps.append(told)
        step = told.step
    assert [told.step for told in steps if told.spike] == [40]
    assert [told.step for told in steps if told.z_score is None] == list(range(21))
    before = [told.loss for told in steps[1:40]]
    assert steps[40].z_score == pytest.approx((steps[40].loss - np.mean(before)) / np.std(before))
    assert steps[41].z_score < 1  # a spike that has been seen is part of what to expect


# ---- by layer --------------------------------------------------------------------------------------------------


def layers_of(model, tied=True):
    """Which parameters are of which layer, written out."""
    gpt = model.transformer
    parts = {"wte": gpt.wte, "wpe": gpt.wpe} | {f"h.{i}": h for i, h in enumerate(gpt.h)} | {"ln_f": gpt.ln_f}
    parts |= {} if tied else {"lm_head": model.lm_head}
    return {name: list(part.parameters()) for name, part in parts.items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("clip", [math.inf, 0.1])
def test_updates_and_gradients_are_told_by_layer(tied, clip):
    model = GPT(
        GPTConfig(vocab_size=VOCAB, block_size=BLOCK, n_layer=2, n_head=2, n_embd=16, tie_weights=tied), Generator(1)
    ).to(np.float64)
    layers = layers_of(model, tied)
    steps = train(model, IDS, VAL_IDS, dataclasses.replace(SETTINGS, eval_every=1, clip=clip))
    next(steps)
    for _ in range(2):
        before = {name: [p.data.copy() for p in of] for name, of in layers.items()}
        step = next(steps)
        assert list(step.update_ratio) == list(step.layer_grad_norm) == list(layers)
        for name, of in layers.items():
            moved = math.sqrt(sum(((p.data - w) ** 2).sum() for p, w in zip(of, before[name], strict=True)))
            size = math.sqrt(sum((w**2).sum() for w in before[name]))
            assert step.update_ratio[name] == pytest.approx(moved / size, rel=1e-9)
        assert math.hypot(*step.layer_grad_norm.values()) == pytest.approx(step.grad_norm, rel=1e-12)
        for name, of in layers.items():
            norm = math.sqrt(sum((p.grad**2).sum() for p in of))
            assert norm == pytest.approx(step.layer_grad_norm[name], rel=1e-9)


def test_layers_are_looked_at_now_and_then():
    steps = run(new_model(), steps=26, eval_every=12)
    assert [s.step for s in steps if s.update_ratio] == [10, 12, 20, 24, 26]
    assert [s.step for s in steps if s.layer_grad_norm] == [10, 12, 20, 24, 26]


def test_a_look_at_the_layers_changes_nothing(monkeypatch):
    one, other = new_model(), new_model()
    losses = [step.loss for step in run(one, steps=12, clip=0.5)]
    monkeypatch.setattr(loop, "LAYERS_EVERY", 1)
    assert [step.loss for step in run(other, steps=12, clip=0.5)] == losses
    assert_same_weights(weights(one), weights(other))


@given(rows=st.integers(1, 3000), columns=st.integers(1, 200), transposed=st.booleans())
def test_a_sample_stands_for_the_whole(rows, columns, transposed):
    values = np.random.default_rng(rows).standard_normal((rows, columns)) + np.arange(columns) % 7  # columns differ
    p = Tensor(values.T if transposed else values)
    sample = loop._sample([p])
    assert len(sample) <= 2 * loop._SAMPLE
    whole = math.sqrt(float((values**2).sum()))
    assert loop._norm(sample) == pytest.approx(whole, rel=0.05 if p.data.size >= 2 * loop._SAMPLE else 1e-9)


def test_weights_of_zero_have_no_ratio():
    model = new_model()
    for p in model.transformer.wpe.parameters():
        p.data[:] = 0
    step = run(model, steps=1, warmup=0)[1]
    assert math.isnan(step.update_ratio["wpe"])
    assert step.update_ratio["ln_f"] > 0


def test_a_step_that_is_skipped_has_no_update(monkeypatch):
    model = new_model()
    original = model.loss
    monkeypatch.setattr(model, "loss", lambda *batch: original(*batch) * (math.nan if model.training else 1))
    step = run(model, steps=1, warmup=0, on_bad_step="skip")[1]
    assert step.skipped
    assert step.update_ratio is None
    assert math.isnan(step.layer_grad_norm["h.0"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own figures")
def test_memory_is_the_peak_in_bytes():
    steps = list(train(new_model(), IDS, VAL_IDS, SETTINGS))
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    peak = int(line.split()[1]) * 1024
    assert steps[0].memory is None
    # More than the peak: what a process had before exec counts as well.
    assert 0.9 * peak < steps[-1].memory < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# ---- accumulation, smoothing, optimizers ------------------------------------------------------------------------


def trainer_on(batches, **changes):
    """A Trainer of a float64 model that is given these batches, one after another."""
    settings = dataclasses.replace(SETTINGS, clip=math.inf, **changes)

    class Given(BatchStream):
        def __init__(self):
            self.rng, self.batch_size, self.given = Generator(0), 7, iter(batches)

        def __next__(self):
            return next(self.given)

        def get_state(self):
            return {}

    return Trainer(new_model(dtype=np.float64), Given(), [(IDS[None, :8], IDS[None, 1:9])], settings)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sizes", [[2, 2, 2], [1, 4, 2], [5, 1]])
def test_accumulated_batches_are_one_large_batch(sizes, workers):
    rows = np.stack([IDS[i : i + BLOCK + 1] for i in range(sum(sizes))])
    inputs, targets = rows[:, :-1], rows[:, 1:].copy()
    targets[0, :5] = targets[-1, 2] = -100  # so the parts differ in what counts
    cuts = np.cumsum(sizes)[:-1]
    parts = list(zip(np.split(inputs, cuts), np.split(targets, cuts), strict=True))
    small = trainer_on(parts, accumulation=len(sizes), workers=workers)
    large = trainer_on([(inputs, targets)], workers=workers)
    with small._gradients, large._gradients:
        for _ in sizes[1:]:
            assert small.advance() is None
        one, other = small.advance(), large.advance()
    assert one.loss == pytest.approx(other.loss, rel=1e-13)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-12)
    for p, q in zip(small.parameters, large.parameters, strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-10, atol=1e-15)


def test_label_smoothing_is_learned_with_and_not_measured_with():
    batch = IDS[None, :8], IDS[None, 1:9]
    smooth, plain = trainer_on([batch], label_smoothing=0.1), trainer_on([batch])
    assert smooth.advance().loss != plain.advance().loss
    logits = new_model(dtype=np.float64)(batch[0]).numpy()[0]
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(0.9 * log_probs[np.arange(8), batch[1][0]] + 0.1 * log_probs.mean(axis=1)).mean()
    assert trainer_on([batch], label_smoothing=0.1).advance().loss == pytest.approx(expected, rel=1e-12)
    fresh = trainer_on([batch], label_smoothing=0.1)
    assert next(fresh.run()).val_loss == next(trainer_on([batch]).run()).val_loss


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_every_optimizer_and_schedule_learns(optimizer, schedule):
    lr = 0.5 if optimizer == "sgd" else 1e-2
    steps = run(new_model(), steps=40, optimizer=optimizer, schedule=schedule, lr=lr, momentum=0.5)
    assert steps[-1].val_loss < steps[0].val_loss - 0.1


@pytest.mark.parametrize("wrong", [{"optimizer": "adagrad"}, {"schedule": "exponential"}])
def test_an_unknown_optimizer_or_schedule(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong.values()))):
        run(new_model(), **wrong)


def test_all_parameters_may_decay():
    free, decayed = (new_model(dtype=np.float64) for _ in range(2))
    (_, first) = run(decayed, steps=1, warmup=0, weight_decay=0.5, decay="all")
    run(free, steps=1, warmup=0, weight_decay=0.0)
    for p0, p1, p2 in zip(
        new_model(dtype=np.float64).parameters(), decayed.parameters(), free.parameters(), strict=True
    ):
        np.testing.assert_allclose(p1.data - p2.data, -first.lr * 0.5 * p0.data, rtol=0, atol=1e-15)


# ---- several workers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_share_the_gradient_of_one(workers):
    one, several = new_model(dtype=np.float64), new_model(dtype=np.float64)
    alone = run(one, steps=1, warmup=0, clip=math.inf)
    shared = run(several, steps=1, warmup=0, clip=math.inf, workers=workers)
    assert shared[1].loss == pytest.approx(alone[1].loss, rel=1e-13)
    for (name, p), q in zip(one.named_parameters(), several.parameters(), strict=True):
        np.testing.assert_allclose(q.grad, p.grad, rtol=1e-11, atol=1e-14, err_msg=name)


def test_several_workers_repeat_bit_for_bit():
    one, two = new_model(), new_model()
    assert run(one, workers=3) == run(two, workers=3)
    assert_same_weights(weights(one), weights(two))


def test_dropout_with_several_workers_is_refused():
    with pytest.raises(ValueError, match="it takes one worker, not 2"):
        next(train(new_model(dropout=0.1), IDS, VAL_IDS, dataclasses.replace(SETTINGS, workers=2)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"eval_every": 0},
        {"workers": -3},
        {"lr": math.nan},
        {"warmup": -1},
        {"clip": 0.0},
        {"clip": math.nan},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=rf"training\.{next(iter(wrong))}: must be"):
        dataclasses.replace(SETTINGS, **wrong)


# ---- held-out loss ---------------------------------------------------------------------------------------------


@given(n=st.integers(2, 400), block=st.integers(1, 20), batch_size=st.integers(1, 6), batches=st.integers(1, 6))
def test_held_out_windows_are_spread_over_the_text(n, block, batch_size, batches):
    ids = np.arange(n + block)
    found = validation_batches([ids], block, batch_size, batches)
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
        assert gaps.max() - gaps.min() <= 2  # even, but for rounding at both ends of a gap


def test_the_held_out_windows_never_change(monkeypatch):
    seen = []

    def note(model, batches):
        seen.append([[part.copy() for part in batch] for batch in batches])
        return 1.0

    monkeypatch.setattr(loop, "evaluate", note)
    run(new_model())
    assert len(seen) == 3
    for later in seen[1:]:
        for batch, first in zip(later, seen[0], strict=True):
            np.testing.assert_array_equal(batch, first)


def test_evaluate_is_the_mean_over_targets():
    model = new_model(dropout=0.5)
    windows = SlidingWindows(VAL_IDS, BLOCK)
    batches = [windows.batch([0, 1, 2, 3]), windows.batch([4])]  # a mean of their means would be another number
    found = evaluate(model, batches)
    nats = []
    model.eval()
    for inputs, targets in batches:
        logits = model(inputs).numpy().astype(np.float64)
        right = np.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
        nats += list((np.log(np.exp(logits).sum(axis=2)) - right).ravel())
    assert found == pytest.approx(np.mean(nats), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_the_mode_as_it_was(training, monkeypatch):
    model = new_model(dropout=0.5).train(training)
    batches = validation_batches([VAL_IDS], BLOCK, 4, 2)
    evaluate(model, batches)
    assert {module.training for module in model.modules()} == {training}

    def fail(inputs, targets):
        raise MemoryError

    monkeypatch.setattr(model, "loss", fail)
    with pytest.raises(MemoryError):
        evaluate(model, batches)
    assert {module.training for module in model.modules()} == {training}


# ---- texts that are too short ----------------------------------------------------------------------------------


def test_too_short_a_text_is_refused():
    with pytest.raises(DataError, match=f"8 tokens; one window of block_size 8 .*need {BLOCK + 1}"):
        run(new_model(), ids=IDS[:BLOCK])
    with pytest.raises(DataError, match=r"held-out part is too short: .*5 tokens"):
        run(new_model(), val_ids=IDS[:5])


def test_the_shortest_texts_that_can_be_used():
    assert len(run(new_model(), ids=IDS[: BLOCK + 1], val_ids=IDS[: BLOCK + 1])) == 7


@pytest.mark.parametrize("wrong", [VOCAB, -1])
def test_an_id_outside_the_vocabulary_is_named(wrong):
    ids = IDS.copy()
    ids[77] = wrong
    with pytest.raises(DataError, match=rf"^ids: token 77 is id {wrong}, and the vocabulary has ids 0 to 10"):
        run(new_model(), ids=ids)
    with pytest.raises(DataError, match=r"^val_ids: token 77"):
        run(new_model(), val_ids=ids)
