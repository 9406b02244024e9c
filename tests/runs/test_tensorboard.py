"""TensorBoard's files: what is in them, and what happens without a package that writes them."""

import math
import sys
import types
from pathlib import Path

import pytest

from tinygrad_llm.models import GPTConfig
from tinygrad_llm.runs.config import DataSettings, RunConfig
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.tensorboard import Scalars, find_writer
from tinygrad_llm.training import Step
from tinygrad_llm.training import TrainSettings

STEPS = [
    Step(0, 4.0, 0.0, 0.0, 0.0, 4.0),
    Step(1, 3.0, 0.1, 1.0, 9.0, None),
    Step(2, math.nan, 0.05, math.inf, 9.0, 2.5, skipped=True),
]
EXPECTED = {
    "val_loss": [(0, 4.0), (2, 2.5)],
    "loss": [(1, 3.0)],
    "lr": [(1, 0.1), (2, 0.05)],
    "grad_norm": [(1, 1.0)],
    "tokens_per_second": [(1, 9.0), (2, 9.0)],
}
MISSING = ("tensorboard", "tensorboard.summary", "tensorboardX")


class FakeWriter:
    """Writes what it is given, a line each, into a file of the name that the real ones choose."""

    def __init__(self, folder):
        assert isinstance(folder, str)
        Path(folder).mkdir()
        self.file = open(f"{folder}/events.out.tfevents.0", "w")  # noqa: SIM115

    def add_scalar(self, tag, value, step):
        self.file.write(f"{tag} {value} {step}\n")

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


def written(folder):
    """What a FakeWriter has been given: {tag: [(step, value), …]}."""
    found = {}
    for line in (folder / "events.out.tfevents.0").read_text().splitlines():
        tag, value, step = line.split()
        found.setdefault(tag, []).append((int(step), float(value)))
    return found


@pytest.fixture(params=["tensorboardX", "tensorboard"])
def fake(request, monkeypatch):
    """One of the two packages, and not the other."""
    for name in MISSING:
        monkeypatch.setitem(sys.modules, name, None)
    if request.param == "tensorboardX":
        monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=FakeWriter))
    else:
        monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
        monkeypatch.setitem(sys.modules, "tensorboard.summary", types.SimpleNamespace(Writer=FakeWriter))


@pytest.fixture
def new(tmp_path):
    """A function: folder → a new Run of six steps, with its model."""
    corpus = tmp_path / "text.txt"
    corpus.write_text("The cat sat on the mat, und die Katze saß dort.\n" * 12, encoding="utf-8")
    config = RunConfig(
        data=DataSettings(str(corpus), tokenizer="char"),
        model=GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8),
        training=TrainSettings(steps=6, batch_size=4, warmup=1, eval_every=2, eval_batches=2, workers=1),
    )

    def make(folder="run"):
        run = Run(config, tmp_path / folder)
        run.make_tokenizer()
        run.make_model()
        return run

    return make


def test_each_figure_has_its_steps(fake, tmp_path):
    scalars = Scalars(tmp_path / "new", STEPS[:1])
    for step in STEPS[1:]:
        scalars.write(step)
    assert written(tmp_path / "new") == EXPECTED  # before it is closed: the last has a held-out loss
    scalars.close()


@pytest.mark.parametrize("package", ["tensorboardX", "tensorboard"])
def test_tensorboard_reads_it(package, tmp_path, monkeypatch):
    pytest.importorskip(package)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    if package == "tensorboard":
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert find_writer().__module__.startswith(f"{package}.")
    Scalars(tmp_path / "new", STEPS).close()
    events = accumulator.EventAccumulator(str(tmp_path / "new"))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag in events.Tags()["tensors"]:
        found[tag] = [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
    assert found == {tag: [(step, pytest.approx(value)) for step, value in of] for tag, of in EXPECTED.items()}


def test_without_either_it_says_what_to_install(tmp_path, monkeypatch):
    for name in MISSING:
        monkeypatch.setitem(sys.modules, name, None)
    assert find_writer() is None
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        Scalars(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_run_that_goes_on_tells_of_every_step_once(fake, new, tmp_path):
    run = new()
    steps = run.train(tensorboard=True)
    for _ in range(4):  # 0 to 3; the last checkpoint is of step 2
        next(steps)
    steps.close()
    assert [step for step, _ in written(tmp_path / "run" / "tensorboard")["loss"]] == [1, 2, 3]
    resumed = Run.resume(tmp_path / "run")
    for _ in resumed.train(tensorboard=True):
        pass
    assert tmp_path / "run" / "tensorboard" in resumed.save()
    assert written(tmp_path / "run" / "tensorboard")["loss"] == [(s.step, s.loss) for s in resumed.steps[1:]]


@pytest.mark.parametrize("again", [True, False])
def test_it_moves_with_a_run_that_takes_the_place_of_another(fake, again, new, tmp_path):
    old = new()
    list(old.train(tensorboard=True))
    old.save()
    before = written(tmp_path / "run" / "tensorboard")
    for name in ("tensorboard", "checkpoints"):
        (tmp_path / "run" / name / "my own.txt").touch()
    run = new()
    list(run.train(tensorboard=again))
    assert written(tmp_path / "run" / "tensorboard") == before
    run.save()
    names = {path.name for path in (tmp_path / "run" / "tensorboard").iterdir()}
    assert names == {"my own.txt"} | ({"events.out.tfevents.0"} if again else set())
    assert Run.resume(tmp_path / "run", more=1).trainer.step == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "text.txt"]
    if again:
        assert written(tmp_path / "run" / "tensorboard")["loss"] == [(s.step, s.loss) for s in run.steps[1:]]
