"""The data of a fine-tuning run: a base model and examples. They do for `Run` what `RunData` does."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.datasets import (
    DataError,
    Entry,
    Message,
    balance,
    cut_parts,
    question,
    read_instructions,
    read_messages,
    read_preferences,
    repeated,
    split_messages,
)
from tinygrad_llm.datasets.instructions import Example
from tinygrad_llm.datasets.public import example_file
from tinygrad_llm.finetuning import (
    STYLES,
    Classification,
    Instructions,
    PaddedExamples,
    Preference,
    balanced_weights,
    classify,
    encode_entries,
    encode_pairs,
    in_batches,
    pad,
    refuse_special,
    with_reference,
)
from tinygrad_llm.finetuning.classifier import confusion_matrix, encode_messages, ends_for, scores_by_class
from tinygrad_llm.finetuning.settings import FineTuneSettings, choose_trained
from tinygrad_llm.models import GPT, Encoder, EncoderClassifier, GPTClassifier
from tinygrad_llm.models.heads import Classifier
from tinygrad_llm.nn import Dropout
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.answers import Taught, answers, score_answers, taught
from tinygrad_llm.runs.config import RunConfig
from tinygrad_llm.storage.files import show
from tinygrad_llm.tokenizer import AnyTokenizer, TokenizerError, vocabulary_hash
from tinygrad_llm.training import ConfigError, Task
from tinygrad_llm.training.memory import check_memory
from tinygrad_llm.weights import model_at, tokenizer_for
from tinygrad_llm.weights.adapters import save_adapter, state_hash

PARTS = ("training", "held-out", "test")

Model = GPT | Classifier
Arrays = dict[str, NDArray[Any]]


class Subject(Protocol):
    """What a `Run` trains on: `RunData`, `TranslationData`, or one of the classes below."""

    heading: ClassVar[str]  # of a sample: what the model does there

    @property
    def tokenizer(self) -> AnyTokenizer: ...
    @property
    def identity(self) -> dict[str, Any]: ...
    @property
    def summary(self) -> str: ...
    def make_task(self, config: RunConfig, rng: Generator) -> tuple[Task, int]: ...
    def make_model(self, config: RunConfig, rng: Generator, batch_size: int) -> Any: ...
    def sample(self, model: Any, max_new_tokens: int, seed: int) -> str: ...
    def results(self, model: Any) -> dict[str, Any] | None: ...
    def save(self, model: Any, folder: Path) -> None: ...
    def command(self, folder: str) -> list[str]:
        """The command of `tinygrad-llm`, with its arguments, that tries the trained model in this folder."""
        ...


@dataclass(frozen=True)
class FineTuneData:
    """A base model and encoded examples.

    Args:     training, held_out: arrays for `PaddedExamples`. size: examples in the file. digest: its SHA-256.
              notes: what was left out or cut, for the user.
    """

    settings: FineTuneSettings
    base: Any  # a GPT; for a classifier, also an Encoder
    base_hash: str  # before it is trained
    tokenizer: AnyTokenizer
    training: Arrays
    held_out: Arrays
    size: int
    digest: str
    notes: list[str]

    heading: ClassVar[str] = "It answers"

    @property
    def identity(self) -> dict[str, Any]:
        """Base, examples and tokenizer of a checkpoint; only with the same ones can it be resumed."""
        return {
            "corpus": [{"examples": self.size, "sha256": self.digest}],
            "tokenizer": {"tokens": self.tokenizer.n_vocab, "sha256": vocabulary_hash(self.tokenizer)},
            "base": {"sha256": self.base_hash},
        }

    @property
    def summary(self) -> str:
        """The lines before the first step."""
        counts = len(self.training["lengths"]), len(self.held_out["lengths"]), self.test_size
        named = ", ".join(f"{count:,} {part}" for count, part in zip(counts, PARTS, strict=True))
        return "\n".join([*self.notes, f"{self.size:,} examples: {named}"])

    @property
    def test_size(self) -> int:
        raise NotImplementedError

    def make_task(self, config: RunConfig, rng: Generator) -> tuple[Task, int]:
        """The task, and the number of batches in an epoch."""
        batches = PaddedExamples(self.training, config.training.batch_size, rng, self._grouped)
        held_out = in_batches(self.held_out, config.training.batch_size)[: config.training.eval_batches]
        return self._task(batches, held_out), batches.batches_per_epoch

    @property
    def _grouped(self) -> bool:
        """Whether texts of similar length make a batch."""
        return False

    def sample(self, model: Any, max_new_tokens: int, seed: int) -> str:
        """What the model can do now, in a few lines."""
        raise NotImplementedError

    def results(self, model: Any) -> dict[str, Any]:
        """The figures of the test after the last step."""
        raise NotImplementedError

    def command(self, folder: str) -> list[str]:
        return ["chat", folder]

    def _task(self, batches: PaddedExamples, held_out: list[dict[str, Any]]) -> Task:
        raise NotImplementedError

    def make_model(self, config: RunConfig, rng: Generator, batch_size: int) -> Model:
        """The model to train, on the weights of the base."""
        model = self._model(rng)
        model.recompute = config.training.recompute
        choose_trained(model, self.settings, rng)
        about = (*self.trained(model), self.rows, isinstance(model, GPT))
        check_memory(self.base.config, config.training, self.rows * batch_size, *about)
        return model

    @property
    def rows(self) -> int:
        """How many texts of an example the model reads in a step."""
        return 1

    def trained(self, model: Model) -> tuple[list[str], dict[str, int]]:
        """What a step trains, as `training.memory` asks for it: `frozen` and `beside`."""
        trained = {name: p.data.size for name, p in model.named_parameters() if p.requires_grad}
        shapes, beside = [name for name, _ in self.base.config.shapes()], dict[str, int]()
        for name, size in trained.items():
            weight = f"{name.partition('.lora_')[0]}.weight" if ".lora_" in name else name
            if name not in shapes:
                beside[weight] = beside.get(weight, 0) + size
        return [name for name in shapes if name not in trained], beside

    def _model(self, rng: Generator) -> Model:
        base: GPT = self.base
        return base

    def save(self, model: Model, folder: Path) -> None:
        """Write the model; of a model with adapters, those alone."""
        if self.settings.layers != "lora":
            model.save_pretrained(folder)
            return
        base = str(Path(self.settings.base).absolute()) if Path(self.settings.base).exists() else self.settings.base
        if isinstance(model, GPTClassifier):
            save_adapter(model, folder, base, self.base_hash, ("score",), model.config.labels)
        else:
            save_adapter(model, folder, base, self.base_hash)


@dataclass(frozen=True)
class MessageData(FineTuneData):
    """Messages with labels, for a classifier. test: their ids, and the numbers of their labels."""

    labels: tuple[str, ...]
    test: tuple[list[list[int]], NDArray[Any]]
    texts: list[str]  # of the first held-out messages, for samples

    heading: ClassVar[str] = "It classifies"

    @property
    def test_size(self) -> int:
        return len(self.test[0])

    def _task(self, batches: PaddedExamples, held_out: list[dict[str, Any]]) -> Task:
        labels = self.training["labels"]
        weights = balanced_weights(labels, len(self.labels)) if self.settings.class_weights else None
        return Classification(batches, held_out, weights)

    def command(self, folder: str) -> list[str]:
        return ["classify", folder, self.texts[0]]

    def _model(self, rng: Generator) -> Classifier:
        if isinstance(self.base, Encoder):
            return EncoderClassifier.from_encoder(self.base, self.labels, rng)
        return GPTClassifier.from_gpt(self.base, self.labels, rng)

    def sample(self, model: Classifier, max_new_tokens: int, seed: int) -> str:
        """What the model says of three held-out messages."""
        ends = ends_for(model, self.tokenizer)
        rows, _ = encode_messages(self.texts, self.tokenizer, model.block_size, ends=ends)
        found = classify(model, rows)
        names = [f"{self.labels[k]} {p:.0%}" for k, p in zip(found.argmax(axis=1), found.max(axis=1), strict=True)]
        return "\n".join(f"{name:<12} {text[:60]}" for name, text in zip(names, self.texts, strict=True))

    def results(self, model: Classifier) -> dict[str, Any]:
        """Accuracy on all parts; on the test part, counts and figures by class."""
        rows, labels = self.test
        predicted = classify(model, rows).argmax(axis=1)
        confusion = confusion_matrix(labels, predicted, len(self.labels))
        parts = {}
        for part, arrays in zip(PARTS, (self.training, self.held_out), strict=False):
            ids = [row[:n].tolist() for row, n in zip(arrays["ids"], arrays["lengths"], strict=True)]
            parts[part] = float((classify(model, ids).argmax(axis=1) == arrays["labels"]).mean())
        return {
            "accuracy": {**parts, "test": float((predicted == labels).mean())},
            "labels": list(self.labels),
            "confusion": confusion.tolist(),
            **{name: figures.tolist() for name, figures in scores_by_class(confusion).items()},
        }


@dataclass(frozen=True)
class AnswerData(FineTuneData):
    """Instructions with answers, for an assistant."""

    test: list[Entry]

    @property
    def _grouped(self) -> bool:
        return self.settings.grouped

    @property
    def test_size(self) -> int:
        return len(self.test)

    def _task(self, batches: PaddedExamples, held_out: list[dict[str, Any]]) -> Task:
        return Instructions(batches, held_out)

    def sample(self, model: GPT, max_new_tokens: int, seed: int) -> str:
        """The model's answers to three test entries, beside the expected ones."""
        some = self.test[:3]
        said, _ = answers(model, self.tokenizer, some, self.settings.style, max_new_tokens)
        return "\n".join(
            f"{entry.instruction} {entry.input}".strip() + f"\n  → {text or '(nothing)'}   [{entry.output}]"
            for entry, text in zip(some, said, strict=True)
        )

    def results(self, model: GPT) -> dict[str, Any]:
        """Exact match and token F1 of the answers to the test entries, by kind of task."""
        return score_answers(model, self.tokenizer, self.test, self.settings.style)


@dataclass(frozen=True)
class PairData(AnswerData):
    """Pairs of answers, for training on preferences; `test` holds the chosen answers, for samples."""

    test_arrays: Arrays

    @property
    def rows(self) -> int:
        return 2

    @property
    def _grouped(self) -> bool:
        return False

    def _task(self, batches: PaddedExamples, held_out: list[dict[str, Any]]) -> Task:
        return Preference(batches, held_out, self.settings.beta)

    def results(self, model: GPT) -> dict[str, Any]:
        """On the test pairs: the loss, and how often and by how much the chosen answer is rewarded more."""
        found = Preference(None, in_batches(self.test_arrays, 16), self.settings.beta).evaluate(model)  # type: ignore[arg-type]
        return {"loss": found.loss, **found.measures}


# ---- reading -------------------------------------------------------------------------------------------------------


def load_examples(config: RunConfig) -> FineTuneData:
    """The base and the examples of a fine-tuning run.

    Raises:   LoadError, TokenizerError: the base cannot be used. DataError: the examples cannot. ConfigError: an
              example is too long, and those are refused.
    """
    s = config.finetune
    base: Any
    if model_at(s.base) == "Encoder":
        if s.task != "classifier":
            raise ConfigError(f"finetune.base: {s.base} is an encoder, and an assistant writes: give a GPT")
        base = Encoder.from_pretrained(s.base)
    else:
        base = GPT.from_pretrained(s.base)
    base = _with_dropout(base, config.model.dropout)
    tokenizer = tokenizer_for(s.base, base.config)
    path = example_file(s.data)
    common = {
        "settings": s,
        "base": base,
        "base_hash": state_hash(base),
        "tokenizer": tokenizer,
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    rng = Generator(config.training.seed)
    try:
        return {"classifier": _messages, "assistant": _answers, "preference": _pairs}[s.task](s, path, common, rng)
    except (DataError, TokenizerError) as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise DataError(f"{where}{error}") from None


def _messages(s: FineTuneSettings, path: Path, common: dict[str, Any], rng: Generator) -> MessageData:
    messages, notes = read_messages(path)
    size, labels = len(messages), tuple(sorted({message.label for message in messages}))
    if s.balance:
        messages = balance(messages, rng)
    if out := size - len(messages):
        notes.append(f"{out:,} messages are left out, so that each class has {len(messages) // len(labels):,}")
    try:
        parts = split_messages(messages, rng)
    except DataError as error:
        raise DataError("; ".join([str(error), *notes])) from None
    for label in set(labels) - {message.label for message in parts[0]}:
        raise DataError(f"no message of class {label} is in the training part: give more of them")
    notes = [*notes, *_repeated(repeated(messages), "messages")]
    longest = common["base"].block_size
    encoded = [_encoded_messages([m.text for m in part], common["tokenizer"], common["base"]) for part in parts]
    cut = sum(long for _, long in encoded)
    notes = [*notes, *_too_long(s, cut, "messages", longest)]
    arrays = [
        {"ids": pad(rows, 0), "lengths": np.array([len(row) for row in rows]), "labels": _numbers(part, labels)}
        for part, (rows, _) in zip(parts, encoded, strict=True)
    ]
    texts = [message.text for message in parts[1][:3]]
    return MessageData(
        **common, training=arrays[0], held_out=arrays[1], size=size, notes=notes, labels=labels,
        test=(encoded[2][0], arrays[2]["labels"]), texts=texts,
    )  # fmt: skip


def _encoded_messages(texts: list[str], tokenizer: AnyTokenizer, base: GPT | Encoder) -> tuple[list[list[int]], int]:
    ends = ends_for(base, tokenizer)
    return encode_messages(texts, tokenizer, base.block_size, False, lambda i: f"the message {show(texts[i])}", ends)


def _numbers(messages: Sequence[Message], labels: tuple[str, ...]) -> NDArray[Any]:
    return np.array([labels.index(message.label) for message in messages])


def _answers(s: FineTuneSettings, path: Path, common: dict[str, Any], rng: Generator) -> AnswerData:
    entries = read_instructions(path)
    refuse_special(entries, common["tokenizer"], path)
    parts, copies = cut_parts(entries, rng)
    encoded = [_encoded(s, part, common) for part in parts[:2]]
    test, seen = _unseen(s, parts[2], path)
    notes = [*_repeated(copies), *(note for _, own in encoded for note in own), *seen]
    return AnswerData(
        **common, training=encoded[0][0], held_out=encoded[1][0], size=len(entries), notes=notes, test=test
    )


def _unseen(s: FineTuneSettings, test: list[Example], path: Path) -> tuple[list[Example], list[str]]:
    """The test entries, or pairs, that the base was not trained on, and notes about the others.

    A base that learned an answer to a question was not yet told which of two answers is better: of runs before one of
    preferences, only those of preferences count.

    Raises:   DataError: it was trained on all of them.
    """
    what, only = ("pairs", s.task) if s.task == "preference" else ("entries", "")
    known: Taught = taught(s.base, path, only)
    unseen = [entry for entry in test if question(entry) not in known.questions]
    runs = " and ".join(map(str, known.runs))
    if not unseen:
        raise DataError(
            f"{runs}, from which this run starts, was trained on all {what} of the test part: set training.seed to "
            "the one of that run, or choose another base"
        )
    seen = len(test) - len(unseen)
    notes: list[str] = [f"test {what} that are left out, because {runs} was trained on them: {seen:,}"] if seen else []
    return unseen, [*known.notes, *notes]


def _encoded(s: FineTuneSettings, entries: list[Entry], common: dict[str, Any]) -> tuple[Arrays, list[str]]:
    longest = common["base"].block_size
    found = encode_entries(entries, common["tokenizer"], STYLES[s.style], longest, s.mask_prompt)
    notes = _too_long(s, len(found.cut), "answers", longest)
    if found.dropped:
        notes += _too_long(s, len(found.dropped), "prompts", longest, "left out")
    return found.examples, notes


def _pairs(s: FineTuneSettings, path: Path, common: dict[str, Any], rng: Generator) -> PairData:
    pairs = read_preferences(path)
    refuse_special(pairs, common["tokenizer"], path)
    parts, copies = cut_parts(pairs, rng)
    parts[2], seen = _unseen(s, parts[2], path)
    longest, notes, arrays = common["base"].block_size, [*_repeated(copies), *seen], []
    for part in parts:
        chosen = [Entry(x.instruction, x.input, x.chosen) for x in part]
        rejected = [Entry(x.instruction, x.input, x.rejected) for x in part]
        found, out = encode_pairs(chosen, rejected, common["tokenizer"], STYLES[s.style], longest)
        notes += _too_long(s, len(out), "pairs", longest, "left out")
        arrays.append(with_reference(common["base"], found))
    test = [Entry(x.instruction, x.input, x.chosen) for x in parts[2]]
    return PairData(
        **common, training=arrays[0], held_out=arrays[1], size=len(pairs), notes=notes, test=test, test_arrays=arrays[2]
    )


def _repeated(copies: int, what: str = "entries") -> list[str]:
    return [f"{what} that repeat another one: {copies:,}; all copies of one are in the same part"] if copies else []


def _too_long(s: FineTuneSettings, count: int, what: str, longest: int, done: str = "cut") -> list[str]:
    """A note about examples that are longer than the model reads.

    Raises:   ConfigError: there are some, and the settings refuse them.
    """
    if not count:
        return []
    text = f"{what} longer than the {longest} tokens that the model reads: {count:,}"
    if s.too_long == "refuse":
        raise ConfigError(f"{text}: set finetune.too_long=cut, or choose another base")
    return [f"{text}, {done}"]


def _with_dropout(base: GPT | Encoder, p: float) -> GPT | Encoder:
    """The model with another dropout: that of the base is of its own training."""
    for module in base.modules():
        if isinstance(module, Dropout):
            module.p = p
    base.config = dataclasses.replace(base.config, dropout=p)
    return base
