"""What processes send each other, with threads in their place; and how a process finds the others."""

import contextlib
import copy
import dataclasses
import math
import pickle
import queue
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_toys import BLOCK, IDS, SETTINGS, VOCAB, Curve, new_model, regression, text_task

from tinygrad_llm.autograd import AnomalyError, detect_anomaly, grad
from tinygrad_llm.cli import main
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.runtime import OFF, started
from tinygrad_llm.training import ConfigError, LanguageModeling, Trainer, mpi, workers
from tinygrad_llm.training.mpi import ALONE, LaunchError, LaunchWarning, Processes, connected, processes, working_with
from tinygrad_llm.training.workers import Workers, fastest_threads, launch, serve

MPI_VARIABLES = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "PMIX_RANK")
WAIT = 30  # seconds for a message, so that no test waits for ever


class Aborted(Exception):
    """What Abort raises in every thread, where MPI would end the process."""


class World:
    """Communicators of threads: messages are copies in queues, one for each pair and direction."""

    def __init__(self, size):
        self.size = size
        self.messages = {(a, b): queue.Queue() for a in range(size) for b in range(size)}
        self.status = None
        self.sent = []  # the sizes in bytes of the arrays that rank 0 has broadcast
        self.communicators = [Communicator(self, rank) for rank in range(size)]


class Communicator:
    def __init__(self, world, rank):
        self.world, self.rank, self.size = world, rank, world.size

    def put(self, message, to):
        self.world.messages[self.rank, to].put(message)

    def get(self, source):
        received = self.world.messages[source, self.rank].get(timeout=WAIT)
        if received is Aborted:
            raise Aborted
        return received

    def bcast(self, obj, root=0):
        if self.rank == root:
            for other in range(1, self.size):
                self.put(pickle.dumps(obj), other)
            return obj
        return pickle.loads(self.get(root))

    def gather(self, sendobj, root=0):
        if self.rank != root:
            self.put(pickle.dumps(sendobj), root)
            return None
        return [sendobj, *(pickle.loads(self.get(other)) for other in range(1, self.size))]

    def Bcast(self, buf, root=0):
        if self.rank == root:
            self.world.sent.append(buf.nbytes)
            for other in range(1, self.size):
                self.Send(buf, other)
        else:
            self.Recv(buf, root)

    def Send(self, buf, dest):
        assert buf.flags.c_contiguous
        self.put(buf.copy(), dest)

    def Recv(self, buf, source):
        received = self.get(source)
        assert (received.shape, received.dtype) == (buf.shape, buf.dtype)
        buf[...] = received

    def Abort(self, errorcode=0):
        self.world.status = self.world.status or errorcode  # the first, as the process is gone then
        for messages in self.world.messages.values():
            messages.put(Aborted)
        raise Aborted


def together(size, first, others=serve, world=None):
    """What first() returns in rank 0, while the others do others(processes); all have ended."""
    world = world or World(size)
    ended, threads = [], []
    for communicator in world.communicators[1:]:

        def work(communicator=communicator):
            with contextlib.suppress(Aborted), working_with(Processes(communicator, 1)) as own:
                others(own)
                ended.append(communicator.rank)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
    try:
        with working_with(Processes(world.communicators[0], 1)) as own, own:
            result = first()
    finally:
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
    assert sorted(ended) == list(range(1, size))
    return result


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Processes each set their own BLAS, threads would set each other's; and no launcher reads what they say."""
    monkeypatch.setattr(workers, "blas_threads", lambda number: contextlib.nullcontext(True))
    monkeypatch.setattr(mpi, "READ_SECONDS", 0)
    monkeypatch.setattr(mpi, "ERROR_SECONDS", 0)


# ---- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 10))
def test_arrays_are_added_in_pairs(size):
    rng = np.random.default_rng(size)
    parts = [[rng.standard_normal((3, 4), np.float32), rng.standard_normal(5)] for _ in range(size)]
    given = copy.deepcopy(parts)

    def pairs(arrays):
        return arrays[0] if len(arrays) == 1 else pairs([sum(arrays[i : i + 2]) for i in range(0, len(arrays), 2)])

    def others(own):
        own.add(parts[own.rank], {"rank": own.rank, f"of {own.rank}": 1.0})
        assert own.next_order() is None

    sums = together(size, lambda: processes().add(parts[0], {"rank": 0.0}), others)
    assert sums == {"rank": sum(range(size)), **{f"of {rank}": 1.0 for rank in range(1, size)}}
    for i in range(2):
        assert parts[0][i].tobytes() == pairs([part[i] for part in given]).tobytes()


def test_arrays_of_any_memory_order_are_shared():
    array = np.arange(24.0).reshape(2, 3, 4)
    got = [np.zeros((4, 2, 3)).transpose(1, 2, 0), np.zeros((2, 3, 4)), np.zeros((2, 6, 4))[:, ::2]]

    def others(own):
        own.share([got[own.rank - 1]])
        assert own.next_order() is None

    together(4, lambda: processes().share([array.transpose(2, 1, 0).transpose(2, 1, 0)]), others)
    for found in got:
        np.testing.assert_array_equal(found, array)


def test_a_model_is_sent_with_its_ties_and_frozen_parameters_and_without_its_hooks():
    model = new_model()
    model.transformer.wpe.weight.requires_grad = False
    model.transformer.ln_f.weight.register_hook(lambda g: g)  # it could not be pickled
    model.transformer.ln_f.bias.grad = np.ones(8, np.float32)
    got = []

    def others(own):
        got.append(own.next_order())
        assert own.next_order() is None

    world = World(2)
    together(2, lambda: processes().order(model), others, world)
    (other,) = got
    assert other.lm_head.weight is other.transformer.wte.weight
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (p.data.tobytes(), p.dtype, p.requires_grad) == (q.data.tobytes(), q.dtype, q.requires_grad), name
        assert q.data is not p.data
        assert q.data.flags.writeable
        assert q.grad is None
    assert model.transformer.h[0].mlp.c_fc.weight.data.nbytes in world.sent  # by itself, and not in the pickle


# ---- gradients -------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    rows=st.integers(1, 6),
    size=st.integers(1, 5),
    threads=st.integers(1, 2),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    ignored=st.sampled_from([0.0, 0.8]),
    seed=st.integers(0, 99),
)
def test_any_number_of_processes_gives_the_gradient_of_one(rows, size, threads, label_smoothing, ignored, seed):
    rng = np.random.default_rng(seed)
    inputs, targets = rng.integers(0, VOCAB, (2, rows, BLOCK))
    targets[rng.random(targets.shape) < ignored] = IGNORE_INDEX
    targets[-1, 0] = 3
    model = new_model(np.float64)
    expected = model.loss(inputs, targets, label_smoothing)
    expected_grads = grad(expected, list(model.parameters()))

    def first():
        with Workers(model, LanguageModeling(None, label_smoothing=label_smoothing), threads) as opened:
            return [opened.gradient((inputs, targets)) for _ in range(2)]

    found, again = together(size, first)
    assert found.loss == again.loss == pytest.approx(expected.item(), rel=1e-13)
    for g, same, h in zip(found.grads, again.grads, expected_grads, strict=True):
        np.testing.assert_array_equal(g, same)
        np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-15)


def trained(dtype=np.float64, task=text_task, model=new_model, **changes):
    """The weights and losses of a training on the processes there are."""
    chosen = dataclasses.replace(SETTINGS, **changes)
    trained_model = model().to(dtype)
    steps = list(Trainer(trained_model, task(chosen), chosen).run())
    figures = [(step.loss, *(step.measures or {}).values()) for step in steps]
    return {name: array.copy() for name, array in trained_model.state_dict().items()}, figures


OTHER = {"task": lambda settings: regression(5, np.float64), "model": Curve}


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation": 3, "label_smoothing": 0.1}, {"batch_size": 2}, OTHER, {**OTHER, "accumulation": 2}],
    ids=["text", "accumulation", "fewer rows than processes", "regression", "regression with accumulation"],
)
def test_training_by_several_processes_is_training_by_one(changes):
    alone, figures = trained(**changes)
    weights, found = together(3, lambda: trained(**changes))
    for a, b in zip(figures, found, strict=True):
        assert b == pytest.approx(a, rel=1e-9)
    for name, w in alone.items():
        np.testing.assert_allclose(weights[name], w, rtol=1e-7, atol=1e-12, err_msg=name)


def test_the_same_number_of_processes_gives_the_same_bits():
    (one, losses), (two, same) = (together(3, lambda: trained(np.float32)) for _ in range(2))
    assert losses == same
    assert {name: w.tobytes() for name, w in one.items()} == {name: w.tobytes() for name, w in two.items()}


def test_only_trained_weights_that_have_changed_are_sent():
    def model():
        made = new_model(n_embd=10)
        made.transformer.wpe.weight.requires_grad = False
        return made

    world = World(2)
    together(2, lambda: trained(np.float32, model=model, steps=3, accumulation=4, batch_size=2), world=world)
    # No other arrays have these sizes. They are sent with the model; and, where they are trained, after two updates.
    assert world.sent.count(model().transformer.wpe.weight.data.nbytes) == 1
    assert world.sent.count(model().transformer.wte.weight.data.nbytes) == 3


def test_the_same_processes_train_one_model_after_another():
    (one, _), (two, _) = together(2, lambda: (trained(), trained()))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_other_processes_recompute_where_the_model_does(monkeypatch):
    seen = []
    loss = LanguageModeling.loss

    def noted(task, model, batch, total):
        seen.append(model.recompute)
        return loss(task, model, batch, total)

    monkeypatch.setattr(LanguageModeling, "loss", noted)
    model = new_model()
    model.recompute = True

    def first():
        with Workers(model, LanguageModeling(None), 1) as opened:
            return opened.gradient((IDS[:12].reshape(2, 6), IDS[1:13].reshape(2, 6)))

    together(2, first)
    assert seen == [True, True]


@pytest.mark.parametrize("masks", ["torch", "quick"])
def test_two_processes_of_two_threads_draw_the_masks_of_four_threads(masks):
    changes = {"model": lambda: new_model(dropout=0.3), "masks": masks, "batch_size": 8}
    (alone, losses), (weights, found) = (
        trained(workers=4, **changes),
        together(2, lambda: trained(workers=2, **changes)),
    )
    assert np.ravel(found) == pytest.approx(np.ravel(losses), rel=1e-9)
    for name, w in alone.items():
        np.testing.assert_allclose(weights[name], w, rtol=1e-7, atol=1e-12, err_msg=name)


def test_a_bad_operation_in_the_part_of_another_process_is_found():
    model, (ids, targets) = new_model(tie_weights=False), np.zeros((2, 2, BLOCK), int)
    ids[1] = 10
    model.transformer.wte.weight.data[10] = math.nan

    def first():
        with Workers(model, LanguageModeling(None), 1) as opened, detect_anomaly():
            opened.repeat((ids[:1], targets[:1]))  # of process 0
            with pytest.raises(AnomalyError, match=r"embedding has NaN in its output, .*GPT\.transformer\.wte"):
                opened.repeat((ids, targets))

    together(2, first)


def test_each_process_measures_its_threads_on_its_share_of_the_rows(monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "_seconds", lambda model, task, batch, threads: asked.append(len(batch[0])) or 1.0)
    with working_with(SimpleNamespace(size=3, cores=8)):
        assert fastest_threads(new_model(), text_task()) == 3
    assert asked == [3, 3]  # of 7 rows
    with working_with(SimpleNamespace(size=3, cores=1)):
        assert fastest_threads(new_model(), text_task()) == 1


# ---- when it goes wrong ----------------------------------------------------------------------------------------------


def test_an_error_between_gradients_lets_the_others_end():
    world = World(3)

    def first():
        trained(steps=1, warmup=0)
        raise ConfigError("the mistake")

    with pytest.raises(ConfigError, match="the mistake"):
        together(3, first, world=world)
    assert world.status is None


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(MemoryError(), 2, "not enough memory"), (KeyboardInterrupt(), 130, ""), (ZeroDivisionError("x\ny"), 1, "x y")],
    ids=repr,
)
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_a_gradient_ends_all(error, status, words, failing, monkeypatch, capsys):
    loss = LanguageModeling.loss

    def broken(*args):
        if processes().rank == failing:
            raise error
        return loss(*args)

    def others(own):
        try:
            serve(own)
        except Aborted:
            raise
        except BaseException as found:
            own.abort(found)

    monkeypatch.setattr(LanguageModeling, "loss", broken)
    world = World(3)
    with pytest.raises(Aborted):
        together(3, trained, others, world)
    assert world.status == status
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"rank {failing} of 3: ")]
    assert line.startswith(f"rank {failing} of 3: {type(error).__name__}")
    assert words in line


def test_one_process_alone_sends_nothing():
    with Processes() as own:
        own.order("anything")
        assert (own.rank, own.size) == (0, 1)
        array = np.ones(3)
        own.share([array])
        assert own.add([array], {"x": 2.0}) == {"x": 2.0}
        np.testing.assert_array_equal(array, 1)
        own.abort(MemoryError())
    assert launch(lambda: 7) == 7


# ---- finding each other ----------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    for name in MPI_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def change(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3"}, (3, 4)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2)),
        ({"PMIX_RANK": "2"}, (2, 0)),
        ({"PMI_RANK": "0"}, (0, 1)),
        ({"PMI_RANK": "x", "PMI_SIZE": "2"}, (0, 1)),
    ],
    ids=str,
)
def test_the_environment_shows_mpiexec(variables, expected, environment):
    environment(**variables)
    assert started() == expected


def test_mpi4py_is_not_imported_without_mpiexec(environment, monkeypatch):
    monkeypatch.setattr(mpi, "importlib", None)
    with connected() as team:
        assert team is ALONE
    environment(PMI_RANK="0", PMI_SIZE="1")
    with connected() as team:
        assert team is ALONE


def no_module(name):
    raise ModuleNotFoundError(f"No module named {name!r}")


def no_library(name):
    raise RuntimeError("cannot load MPI library")


def other_library(name):
    return SimpleNamespace(COMM_WORLD=SimpleNamespace(rank=0, size=1))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (no_module, "pip install 'tinygrad_llm[mpi]'"),
        (no_library, "finds no MPI library"),
        (other_library, "has started 2 processes, and mpi4py knows of 1"),
    ],
)
def test_a_missing_library_is_reported_in_one_line(module, words, environment, monkeypatch, capsys):
    monkeypatch.setattr(mpi, "importlib", SimpleNamespace(import_module=module))
    environment(PMI_RANK="0", PMI_SIZE="2")
    with pytest.raises(LaunchError), connected():
        pass
    monkeypatch.setenv(OFF, "0")
    assert main(["train", "--out", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_another_rank_waits_until_rank_0_has_reported_the_error(environment, monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(mpi, "ERROR_SECONDS", 7)
    monkeypatch.setattr(mpi.time, "sleep", slept.append)
    monkeypatch.setattr(mpi, "importlib", SimpleNamespace(import_module=no_module))
    monkeypatch.setenv(OFF, "0")
    for rank, waits in (("0", []), ("1", [7])):  # by then a launcher has ended it
        environment(OMPI_COMM_WORLD_RANK=rank, OMPI_COMM_WORLD_SIZE="2")
        assert main(["train", "--out", "nowhere"]) == 2
        assert "pip install 'tinygrad_llm[mpi]'" in capsys.readouterr().err
        assert slept == waits


@pytest.mark.parametrize("module", [no_module, no_library])
def test_rank_0_continues_alone_with_a_warning_if_the_number_is_unknown(module, environment, monkeypatch):
    monkeypatch.setattr(mpi, "importlib", SimpleNamespace(import_module=module))
    environment(PMIX_RANK="0")  # srun -n 1
    with pytest.warns(LaunchWarning, match="PMIX_RANK"), connected() as team:
        assert team is ALONE
    environment(PMIX_RANK="1")  # then there are two at least
    with pytest.raises(LaunchError, match="pip install"), connected():
        pass


@pytest.mark.filterwarnings("default::tinygrad_llm.training.mpi.LaunchWarning")
def test_the_warning_is_one_line(environment, monkeypatch, capsys):
    monkeypatch.setattr(mpi, "importlib", SimpleNamespace(import_module=no_module))
    monkeypatch.setenv(OFF, "0")
    environment(PMIX_RANK="0")
    assert main(["train", "--corpus", "absent.txt", "--out", "nowhere"]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("tinygrad-llm train: warning: PMIX_RANK is set")
    assert "absent.txt" in error


@pytest.mark.parametrize(
    ("placed", "limit", "shares"),
    [
        ([{0, 1, 2, 3}, {0, 1, 2, 3}], None, [2, 2]),
        ([{0, 1}, {2, 3}], None, [2, 2]),  # mpiexec has parted them already
        ([{0}, {0}, {0}], None, [1, 1, 1]),
        ([{0, 1, 2}, {0, 1, 2}], None, [1, 1]),
        ([{0, 1, 2, 3}, {2, 3}], None, [3, 1]),
        ([set(range(9))] * 3, None, [3, 3, 3]),
        ([set(range(64))] * 2, 5.0, [2, 2]),
        ([{5000}], None, [1]),
    ],
)
def test_processes_share_the_cores_of_a_machine(placed, limit, shares, monkeypatch):
    monkeypatch.setattr(mpi, "quota", lambda: limit)
    everyone = []

    def look(found):  # the first time to see where all are placed, the second to share out
        class Node:
            size = len(placed)

            def Allreduce(self, mine, users):
                everyone.append(mine.copy())
                users[...] = found

        return Node()

    def share_of(cores, found):
        monkeypatch.setattr(mpi.os, "sched_getaffinity", lambda process: cores, raising=False)
        monkeypatch.setattr(mpi, "affinity", lambda: len(cores))
        return mpi._share_of_cores(look(found))

    for cores in placed:
        share_of(cores, 1.0)
    users = sum(everyone)
    assert [share_of(cores, users) for cores in placed] == shares
    assert math.fsum(shares) <= max(len(set.union(*placed)), len(placed))
