"""What ranks tell each other, with threads in place of processes; and how a process finds the others."""

import contextlib
import copy
import dataclasses
import math
import queue
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.autograd import grad
from tinygrad_llm.cli import main
from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import OFF
from tinygrad_llm.training import (
    ConfigError,
    Trainer,
    TrainSettings,
    ranks,
    validation_batches,
)
from tinygrad_llm.training import (
    workers as parallel,
)
from tinygrad_llm.training.ranks import ALONE, BATCH, END, Ranks, RanksError, RanksWarning, connected, started
from tinygrad_llm.training.workers import IGNORE_INDEX, Gradients, serve

BLOCK, VOCAB = 6, 11
IDS = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 10, 0, 7, 8]), 30)
SETTINGS = TrainSettings(steps=5, batch_size=5, lr=1e-2, warmup=1, eval_every=4, eval_batches=1, workers=1, seed=5)
MPI_VARIABLES = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "PMIX_RANK")


class Aborted(Exception):
    """What Abort raises in every thread, where MPI would end the process."""


class World:
    """Communicators of threads: messages are copies in queues, one for each pair and direction."""

    def __init__(self, size):
        self.size = size
        self.messages = {(a, b): queue.Queue() for a in range(size) for b in range(size)}
        self.status = None
        self.sent = []  # the sizes in bytes of what rank 0 has broadcast
        self.communicators = [Communicator(self, rank) for rank in range(size)]


class Communicator:
    def __init__(self, world, rank):
        self.world, self.rank, self.size = world, rank, world.size

    def Bcast(self, buf, root=0):
        if self.rank == root:
            self.world.sent.append(buf.nbytes)
            for other in range(1, self.size):
                self.Send(buf, other)
        else:
            self.Recv(buf, root)

    def Send(self, buf, dest):
        assert buf.flags.c_contiguous
        self.world.messages[self.rank, dest].put(buf.copy())

    def Recv(self, buf, source):
        received = self.world.messages[source, self.rank].get(timeout=30)
        if received is None:
            raise Aborted
        assert (received.shape, received.dtype) == (buf.shape, buf.dtype)
        buf[...] = received

    def Abort(self, errorcode=0):
        self.world.status = self.world.status or errorcode  # the first, as the process is gone then
        for messages in self.world.messages.values():
            messages.put(None)
        raise Aborted


def together(size, first, others=serve, world=None):
    """What first(ranks) returns in rank 0, while the others do others(ranks); all have ended."""
    world = world or World(size)
    ended, threads = [], []
    for communicator in world.communicators[1:]:

        def work(communicator=communicator):
            with contextlib.suppress(Aborted):
                others(Ranks(communicator, 1))
                ended.append(communicator.rank)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
    try:
        with Ranks(world.communicators[0], 1) as team:
            result = first(team)
    finally:
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert sorted(ended) == list(range(1, size))
    return result


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Processes set each its own BLAS, threads would each other's; and no launcher reads what they say."""
    monkeypatch.setattr(parallel, "blas_threads", lambda number: contextlib.nullcontext(True))
    monkeypatch.setattr(ranks, "_READ", 0)
    monkeypatch.setattr(ranks, "_HEARD", 0)


def new_model(dtype=np.float64, **changes):
    sizes = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 1, "n_head": 2, "n_embd": 8}
    return GPT(GPTConfig(**sizes | changes), Generator(1)).to(dtype)


# ---- arrays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 10))
def test_arrays_are_added_in_pairs(size):
    rng = np.random.default_rng(size)
    parts = [[rng.standard_normal((3, 4), np.float32), rng.standard_normal(5)] for _ in range(size)]
    given = copy.deepcopy(parts)

    def pairs(arrays):
        return arrays[0] if len(arrays) == 1 else pairs([sum(arrays[i : i + 2]) for i in range(0, len(arrays), 2)])

    together(size, lambda team: team.add(parts[0]), lambda team: (team.add(parts[team.rank]), team.asked()))
    for i in range(2):
        assert parts[0][i].tobytes() == pairs([part[i] for part in given]).tobytes()


def test_arrays_of_any_order_are_shared():
    array = np.arange(24.0).reshape(2, 3, 4)
    got = [np.zeros((4, 2, 3)).transpose(1, 2, 0), np.zeros((2, 3, 4)), np.zeros((2, 6, 4))[:, ::2]]

    def others(team):
        team.share([got[team.rank - 1]])
        assert team.asked()[0] == END

    together(4, lambda team: team.share([array.transpose(2, 1, 0).transpose(2, 1, 0)]), others)
    for found in got:
        np.testing.assert_array_equal(found, array)


# ---- gradients -------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 6),
    size=st.integers(1, 5),
    workers=st.integers(1, 2),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    ignored=st.sampled_from([0.0, 0.8]),
    seed=st.integers(0, 99),
)
def test_any_number_of_ranks_gives_the_gradient_of_one(rows, size, workers, label_smoothing, ignored, seed):
    rng = np.random.default_rng(seed)
    inputs, targets = rng.integers(0, VOCAB, (2, rows, BLOCK))
    targets[rng.random(targets.shape) < ignored] = IGNORE_INDEX
    targets[-1, 0] = 3
    model = new_model()
    expected = model.loss(inputs, targets, label_smoothing)
    expected_grads = grad(expected, list(model.parameters()))

    def first(team):
        with Gradients(model, list(model.parameters()), workers, label_smoothing, team) as gradients:
            return [gradients.of(inputs, targets) for _ in range(2)]

    (loss, grads), (again, grads_again) = together(size, first)
    assert loss == again == pytest.approx(expected.item(), rel=1e-13)
    for g, same, h in zip(grads, grads_again, expected_grads, strict=True):
        np.testing.assert_array_equal(g, same)
        np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-15)


def trained(team, dtype=np.float64, **changes):
    """The weights and losses of a training on these ranks."""
    model, settings = new_model(dtype), dataclasses.replace(SETTINGS, **changes)
    batches = BatchStream([IDS], BLOCK, settings.batch_size, Generator(settings.seed))
    trainer = Trainer(model, batches, validation_batches([IDS], BLOCK, 4, 1), settings, team)
    losses = [step.loss for step in trainer.run()]
    return {name: array.copy() for name, array in model.state_dict().items()}, losses


@pytest.mark.parametrize("changes", [{}, {"accumulation": 3, "label_smoothing": 0.1}, {"batch_size": 2}], ids=str)
def test_training_on_several_ranks_is_training_on_one(changes):
    alone, losses = trained(ALONE, **changes)
    weights, found = together(3, lambda team: trained(team, **changes))
    assert found == pytest.approx(losses, rel=1e-9)
    for name, w in alone.items():
        np.testing.assert_allclose(weights[name], w, rtol=1e-7, atol=1e-12, err_msg=name)


def test_the_same_ranks_give_the_same_bits():
    (one, losses), (two, same) = (together(3, lambda team: trained(team, np.float32)) for _ in range(2))
    assert losses == same
    assert {name: w.tobytes() for name, w in one.items()} == {name: w.tobytes() for name, w in two.items()}


def test_weights_are_sent_where_they_have_changed():
    world = World(2)
    together(2, lambda team: trained(team, np.float32, steps=3, accumulation=4), world=world)
    # One row of 8 is the position table: no other array is of its size.
    assert world.sent.count(4 * BLOCK * 8) == 3


def test_one_team_trains_one_model_after_another():
    def first(team):
        return trained(team), trained(team)

    (one, _), (two, _) = together(2, first)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_recomputing_holds_for_all_ranks():
    seen = []
    model = new_model()
    model.recompute = True

    class Noted(GPT):
        def __init__(self, *args, recompute=False):
            seen.append(recompute)
            super().__init__(*args, recompute=recompute)

    def first(team):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parallel, "GPT", Noted)
            with Gradients(model, list(model.parameters()), 1, ranks=team) as gradients:
                return gradients.of(IDS[None, :6], IDS[None, 1:7])

    together(2, first)
    assert seen == [True]


def test_dropout_with_several_ranks_is_refused():
    model = new_model(dropout=0.1)
    batches = BatchStream([IDS], BLOCK, 4, Generator(1))
    with pytest.raises(ConfigError, match="takes one process, not 2"):
        together(2, lambda team: Trainer(model, batches, [], SETTINGS, team))


def test_each_rank_gets_a_share_of_the_rows_to_choose_its_workers_by(monkeypatch):
    asked = []
    monkeypatch.setattr(parallel, "_seconds", lambda model, rows, *_: asked.append(rows) or 1.0)
    team = SimpleNamespace(size=3, cores=8)
    assert parallel.default_workers(new_model(), 7, team) == 3
    assert asked == [3, 3]
    assert parallel.default_workers(new_model(), 7, SimpleNamespace(size=3, cores=1)) == 1


# ---- when it goes wrong ----------------------------------------------------------------------------------------


def test_an_error_between_gradients_lets_the_others_go():
    world = World(3)

    def first(team):
        trained(team, steps=1)
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
    part = Gradients._part

    def broken(gradients, *args):
        if gradients.ranks.rank == failing:
            raise error
        return part(gradients, *args)

    def others(team):
        try:
            serve(team)
        except Aborted:
            raise
        except BaseException as found:
            team.abort(found)

    monkeypatch.setattr(Gradients, "_part", broken)
    world = World(3)
    with pytest.raises(Aborted):
        together(3, trained, others, world)
    assert world.status == status
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"rank {failing} of 3: ")]
    assert line.startswith(f"rank {failing} of 3: {type(error).__name__}")
    assert words in line


def test_alone_nobody_is_told():
    with Ranks() as team:
        team.ask(BATCH, 1, 2, True)
        assert (team.rank, team.size) == (0, 1)
        array = np.ones(3)
        team.add(team.share([array]))
        np.testing.assert_array_equal(array, 1)
        team.abort(MemoryError())


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
def test_the_environment_tells_of_mpiexec(variables, expected, environment):
    environment(**variables)
    assert started() == expected


def test_without_mpiexec_mpi4py_is_not_asked_for(environment, monkeypatch):
    monkeypatch.setattr(ranks, "importlib", None)
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
def test_what_is_missing_is_told_once(module, words, environment, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "importlib", SimpleNamespace(import_module=module))
    environment(PMI_RANK="0", PMI_SIZE="2")
    with pytest.raises(RanksError), connected():
        pass
    monkeypatch.setenv(OFF, "0")
    assert main(["train", "--out", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_another_rank_lets_rank_0_say_it_first(environment, monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(ranks, "_HEARD", 7)
    monkeypatch.setattr(ranks.time, "sleep", slept.append)
    monkeypatch.setattr(ranks, "importlib", SimpleNamespace(import_module=no_module))
    monkeypatch.setenv(OFF, "0")
    for rank, waits in (("0", []), ("1", [7])):  # by then a launcher has ended it
        environment(OMPI_COMM_WORLD_RANK=rank, OMPI_COMM_WORLD_SIZE="2")
        assert main(["train", "--out", "nowhere"]) == 2
        assert "pip install 'tinygrad_llm[mpi]'" in capsys.readouterr().err
        assert slept == waits


@pytest.mark.parametrize("module", [no_module, no_library])
def test_where_the_number_is_not_told_rank_0_goes_on_alone_with_a_warning(module, environment, monkeypatch):
    monkeypatch.setattr(ranks, "importlib", SimpleNamespace(import_module=module))
    environment(PMIX_RANK="0")  # srun -n 1
    with pytest.warns(RanksWarning, match="PMIX_RANK"), connected() as team:
        assert team is ALONE
    environment(PMIX_RANK="1")  # then there are two at least
    with pytest.raises(RanksError, match="pip install"), connected():
        pass


@pytest.mark.filterwarnings("default::tinygrad_llm.training.ranks.RanksWarning")
def test_the_warning_is_one_line(environment, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "importlib", SimpleNamespace(import_module=no_module))
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
def test_the_cores_of_a_machine_are_shared_out(placed, limit, shares, monkeypatch):
    monkeypatch.setattr(ranks, "quota", lambda: limit)
    everyone = []

    def look(found):  # the first time to see where all are placed, the second to share out
        class Node:
            size = len(placed)

            def Allreduce(self, mine, users):
                everyone.append(mine.copy())
                users[...] = found

        return Node()

    def share_of(cores, found):
        monkeypatch.setattr(ranks.os, "sched_getaffinity", lambda process: cores, raising=False)
        monkeypatch.setattr(ranks, "affinity", lambda: len(cores))
        return ranks._share(look(found))

    for cores in placed:
        share_of(cores, 1.0)
    users = sum(everyone)
    assert [share_of(cores, users) for cores in placed] == shares
    assert math.fsum(shares) <= max(len(set.union(*placed)), len(placed))
