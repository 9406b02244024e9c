"""What the tests of runs share: a text, a toy configuration, and runs on it."""

import pytest

from tinygrad_llm.models import GPTConfig
from tinygrad_llm.runs.config import DataSettings, RunConfig
from tinygrad_llm.runs.run import Run
from tinygrad_llm.training import TrainSettings

TEXT = "The cat sat on the mat, und die Katze saß dort.\n" * 12


@pytest.fixture(scope="session")
def text():
    return TEXT


@pytest.fixture(scope="session")
def config():
    """Nine steps of a model of one layer, on one thread; with dropout, so that every random stream counts."""
    return RunConfig(
        data=DataSettings(tokenizer="char"),
        model=GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, dropout=0.2),
        training=TrainSettings(
            steps=9, batch_size=4, lr=1e-2, min_lr=1e-3, warmup=2, eval_every=4, eval_batches=2, workers=1, seed=3
        ),
    )


@pytest.fixture
def new(tmp_path, config):
    """A function: folder, changes → a new Run on TEXT in that folder of tmp_path."""
    corpus = tmp_path / "text.txt"
    corpus.write_text(TEXT, encoding="utf-8")

    def make(folder="run", **changes):
        return Run.new(config.changed({"corpus": str(corpus), **changes}), tmp_path / folder)

    return make


@pytest.fixture
def contents():
    """A function: folder → {path: bytes} of every file below it."""

    def read(folder):
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return read
