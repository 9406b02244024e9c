"""The data of a translator: pairs of sentences. It does for `Run` what `RunData` does."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from tinygrad_llm.datasets import DataError, Translated, read_translations, split_translations
from tinygrad_llm.datasets.public import example_file
from tinygrad_llm.evaluation.bleu import bleu
from tinygrad_llm.generation.search import encode_source, end_of, translate
from tinygrad_llm.models import Translator
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import RunConfig
from tinygrad_llm.runs.data import LEARNED
from tinygrad_llm.tokenizer import AnyTokenizer, Tokenizer, load_tokenizer, vocabulary_hash
from tinygrad_llm.training import ConfigError, Translation, encode_translations
from tinygrad_llm.training.translation import TranslationExamples, measuring_batches

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TranslationData:
    """Pairs in three parts: encoded ones to train on and to measure on, and test pairs, which are translated."""

    tokenizer: AnyTokenizer
    training: Arrays
    held_out: Arrays
    test: list[Translated]
    size: int
    digest: str  # SHA-256 of the file and of the columns' names

    heading: ClassVar[str] = "It translates"

    @property
    def identity(self) -> dict[str, Any]:
        """Pairs and tokenizer of a checkpoint; only with the same ones can it be resumed."""
        return {
            "corpus": [{"pairs": self.size, "sha256": self.digest}],
            "tokenizer": {"tokens": self.tokenizer.n_vocab, "sha256": vocabulary_hash(self.tokenizer)},
        }

    @property
    def summary(self) -> str:
        counts = len(self.training["lengths"]), len(self.held_out["lengths"]), len(self.test)
        parts = ", ".join(f"{n:,} {part}" for n, part in zip(counts, ("training", "held-out", "test"), strict=True))
        return f"{self.size:,} pairs: {parts} (vocabulary {self.tokenizer.n_vocab})"

    def make_task(self, config: RunConfig, rng: Generator) -> tuple[Translation, int]:
        s = config.training
        batches = TranslationExamples(self.training, s.batch_size, rng)
        held_out = measuring_batches(self.held_out, s.batch_size)[: s.eval_batches]
        return Translation(batches, held_out, end_of(self.tokenizer), s.label_smoothing), batches.batches_per_epoch

    def make_model(self, config: RunConfig, rng: Generator, batch_size: int) -> Translator:
        return Translator(dataclasses.replace(config.model, vocab_size=self.tokenizer.n_vocab), rng)

    def sample(self, model: Translator, max_new_tokens: int, seed: int) -> str:
        """Translations of three test sentences, beside the expected ones."""
        some = self.test[:3]
        said = translate(model, self.tokenizer, [pair.source for pair in some])
        lines = [f"{pair.source}\n  → {text}   [{pair.target}]" for pair, text in zip(some, said, strict=True)]
        return "\n".join(lines)

    def results(self, model: Translator) -> dict[str, Any]:
        """On the test pairs: the share of exact translations and BLEU, greedily and with a beam of 4."""
        sources, targets = [pair.source for pair in self.test], [pair.target for pair in self.test]
        found: dict[str, Any] = {"sentences": len(self.test)}
        for name, width in (("greedy", 1), ("beam", 4)):
            said = translate(model, self.tokenizer, sources, width)
            exact = sum(a == b for a, b in zip(said, targets, strict=True)) / len(said)
            found[name] = {"exact": exact, "bleu": bleu(said, targets)}
        return found

    def save(self, model: Translator, folder: Path) -> None:
        model.save_pretrained(folder)

    def command(self, folder: str) -> list[str]:
        return ["translate", folder, self.test[0].source]


def load_translations(config: RunConfig) -> TranslationData:
    """The pairs and the tokenizer of a run.

    Raises:   DataError: the file cannot be used, or a sentence is longer than the model. ConfigError, TokenizerError:
              the tokenizer cannot be used.
    """
    data = config.data
    path = example_file(data.pairs)
    pairs = read_translations(path, data.source, data.target)
    tokenizer = _tokenizer(config, pairs)
    try:
        parts = split_translations(pairs, Generator(config.training.seed))
        end = end_of(tokenizer)
        _check_lengths(pairs, tokenizer, config.model.block_size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"data.tokenizer: {error}") from None
    training, held_out = (encode_translations(part, tokenizer, end) for part in parts[:2])
    digest = hashlib.sha256("\t".join([data.source, data.target]).encode() + path.read_bytes()).hexdigest()
    return TranslationData(tokenizer, training, held_out, parts[2], len(pairs), digest)


def _tokenizer(config: RunConfig, pairs: Sequence[Translated]) -> AnyTokenizer:
    """One tokenizer for both languages."""
    data, texts = config.data, [text for pair in pairs for text in pair]
    if data.tokenizer == "bpe":
        return Tokenizer.train(texts, data.vocab_size)
    if data.tokenizer in LEARNED:
        raise ConfigError(f"data.tokenizer: a translator takes bpe, gpt2 or a tokenizer file, got {data.tokenizer!r}")
    return Tokenizer.gpt2() if data.tokenizer == "gpt2" else load_tokenizer(data.tokenizer)


def _check_lengths(pairs: Sequence[Translated], tokenizer: AnyTokenizer, longest: int) -> None:
    """Refuse sentences that the model cannot read.

    Raises:   DataError: names how many, and the longest of them.
    """
    sizes = {text: len(encode_source(tokenizer, text, 0)) for pair in pairs for text in pair}
    long = {text: size for text, size in sizes.items() if size > longest}
    if long:
        text = max(long, key=long.__getitem__)
        raise DataError(
            f"sentences longer than the {longest} tokens that the model reads: {len(long)}; the longest has "
            f"{long[text]} with its end: {text[:40]!r}: set block_size={long[text]}, or remove them"
        )
