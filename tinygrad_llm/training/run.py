"""A training run: from a text to a folder with everything that came of it.

The folder holds model.safetensors (weights and sizes), tokenizer.json, run.json (what was asked for), metrics.jsonl
(a line a step), samples.txt and, with matplotlib, loss.png.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np

from tinygrad_llm.datasets import DataError, corpus_hash, load_corpus
from tinygrad_llm.formats import LoadError
from tinygrad_llm.generation import stream
from tinygrad_llm.models import GPT, WEIGHTS, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, StreamDecoder, Tokenizer, TokenizerError, load_tokenizer
from tinygrad_llm.training.loop import Step, TrainSettings, default_workers, train
from tinygrad_llm.training.picture import save_loss_curve
from tinygrad_llm.training.presets import Preset

AnyTokenizer: TypeAlias = Tokenizer | CharTokenizer
TOKENIZER = "tokenizer.json"
FILES = (TOKENIZER, "run.json", "metrics.jsonl", "samples.txt", "loss.png", WEIGHTS)
TRAIN_FRACTION = 0.9


class Run:
    """One model on one text, before, while and after it is trained.

    Args:     corpus: a name or a path (`datasets.load_corpus`). preset: sizes and settings. folder: where all goes.
              settings: instead of the preset's.
    Raises:   DataError: the corpus cannot be used.
    """

    def __init__(self, corpus: str, preset: Preset, folder: Path, settings: TrainSettings | None = None) -> None:
        self.corpus = corpus
        self.preset = preset
        self.folder = folder
        self.settings = settings or preset.training
        self.text = load_corpus(corpus)
        self.steps: list[Step] = []
        self.samples: list[tuple[int, str]] = []

    def make_tokenizer(self, progress: Callable[[int, int], None] | None = None) -> AnyTokenizer:
        """Train the tokenizer on the whole text, and cut the text's ids into training and held-out parts."""
        if self.preset.tokenizer == "char":
            self.tokenizer: AnyTokenizer = CharTokenizer.train(self.text)
        else:
            self.tokenizer = Tokenizer.train(self.text, self.preset.vocab_size, progress=progress)
        cut = int(TRAIN_FRACTION * len(self.text))
        parts = self.text[:cut], self.text[cut:]
        self.ids, self.val_ids = (np.array(self.tokenizer.encode(p, allowed_special="all"), np.int32) for p in parts)
        block_size = self.preset.model["block_size"]
        for name, ids in (("training", self.ids), ("held-out", self.val_ids)):
            if len(ids) <= block_size:
                raise DataError(
                    f"{self.corpus}: its {name} part has {len(ids)} tokens, and one block of {block_size} with its "
                    f"target needs {block_size + 1}: give a longer text"
                )
        return self.tokenizer

    def make_model(self) -> GPT:
        """A new model of the preset's sizes; its weights come from the settings' seed."""
        config = GPTConfig(vocab_size=self.tokenizer.n_vocab, **self.preset.model)
        self.rng = Generator(self.settings.seed)
        self.model = GPT(config, self.rng)
        # Noted in run.json: the same workers give the same run.
        workers = self.settings.workers or default_workers(self.model)
        self.settings = dataclasses.replace(self.settings, workers=workers)
        return self.model

    def train(self) -> Iterator[Step]:
        """Train, and tell of every step."""
        for step in train(self.model, self.ids, self.val_ids, self.settings, self.rng):
            self.steps.append(step)
            yield step

    def sample(self, max_new_tokens: int = 120, seed: int = 1) -> str:
        """Let the model write: from the end-of-text token up to the next, or from a newline, or, where the text has
        none, from its first character."""
        start = start_ids(self.tokenizer) or self.tokenizer.encode(self.text[0])
        rng = Generator(seed)
        text = "".join(write(self.model, self.tokenizer, start, max_new_tokens, temperature=0.8, rng=rng))
        self.samples.append((self.steps[-1].step if self.steps else 0, text))
        return text

    def save(self) -> list[Path]:
        """Write everything into the folder, and return what was written.

        Files take their places only when all of them are whole: a save that fails leaves an earlier run as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=self.folder) as temporary:
            names = self._write(Path(temporary))
            for name in FILES:
                if name in names:
                    os.replace(Path(temporary) / name, self.folder / name)
                else:  # an earlier run's picture does not belong to this one
                    (self.folder / name).unlink(missing_ok=True)
        return [self.folder / name for name in names]

    def _write(self, folder: Path) -> list[str]:
        about = {
            "corpus": self.corpus,
            "corpus_sha256": corpus_hash(self.text),
            "preset": dataclasses.asdict(self.preset),
            "settings": dataclasses.asdict(self.settings),
            "steps_done": self.steps[-1].step if self.steps else 0,
        }
        metrics = "".join(json.dumps(dataclasses.asdict(step)) + "\n" for step in self.steps)
        samples = "\n".join(f"--- step {step} ---\n{text.strip()}\n" for step, text in self.samples)
        self.tokenizer.save(folder / TOKENIZER)
        for name, content in (
            ("run.json", json.dumps(about, indent=2) + "\n"),
            ("metrics.jsonl", metrics),
            ("samples.txt", samples),
        ):
            (folder / name).write_text(content, encoding="utf-8", newline="\n")
        drawn = save_loss_curve(self.steps, folder / "loss.png")
        self.model.save_pretrained(folder)
        return [name for name in FILES if drawn or name != "loss.png"]


def holds_run(folder: Path) -> bool:
    """Whether anything lies there that saving a run would write over."""
    return any((folder / name).exists() for name in FILES)


def about_run(folder: Path) -> dict[str, Any]:
    """What run.json says of a run; {} where there is none that can be read."""
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def start_ids(tokenizer: AnyTokenizer) -> list[int]:
    """What a new text begins after: the end-of-text token, or a newline; [] for a tokenizer that knows neither."""
    if tokenizer.eot_token is not None:
        return [tokenizer.eot_token]
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        return []


def load_run(folder: str | Path) -> tuple[GPT, AnyTokenizer]:
    """The model and tokenizer of a saved run.

    Raises:   LoadError, TokenizerError: one of the two is missing or damaged, or they do not belong together.
    """
    model = GPT.from_pretrained(folder)
    place = Path(folder)
    file = (place if place.is_dir() else place.parent) / TOKENIZER
    if not file.exists():
        raise LoadError(
            f"{folder}: {TOKENIZER} is missing, which belongs beside {WEIGHTS}: copy it there, or train again"
        )
    tokenizer = load_tokenizer(file)
    if tokenizer.n_vocab != model.config.vocab_size:
        raise LoadError(
            f"{folder}: the tokenizer has {tokenizer.n_vocab} tokens and the model {model.config.vocab_size}: "
            "they do not belong together"
        )
    return model, tokenizer


def write(
    model: GPT,
    tokenizer: AnyTokenizer,
    ids: list[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Generator | None = None,
) -> Iterator[str]:
    """Continue ids, as pieces of text, until max_new_tokens or the end-of-text token. No piece ends in half a
    character.

    Raises:   ValueError: as `generation.stream`, at the call.
    """
    new = stream(model, ids, max_new_tokens, temperature, top_k, top_p, rng)
    decoder = StreamDecoder(tokenizer)

    def pieces() -> Iterator[str]:
        for token in new:
            if token[0] == tokenizer.eot_token:
                break
            yield decoder.push(int(token[0]))
        yield decoder.finish()

    return pieces()
