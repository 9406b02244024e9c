"""The data of a run: a text or token files, a tokenizer, ids for training, and ids that are held out."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.datasets import BatchStream, DataError, TokenFile, corpus_hash, load_corpus
from tinygrad_llm.generation import Sampling, start_ids, write
from tinygrad_llm.generation.fill import END, HIDDEN, around, fill, missing_tokens
from tinygrad_llm.kernels import Array
from tinygrad_llm.models import GPT, Encoder
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import DataSettings, RunConfig
from tinygrad_llm.tokenizer import (
    AnyTokenizer,
    CharTokenizer,
    Tokenizer,
    TokenizerError,
    WordPieceTokenizer,
    encode_text,
    load_tokenizer,
    vocabulary_hash,
)
from tinygrad_llm.tokenizer.bpe import END_OF_TEXT
from tinygrad_llm.training import ConfigError, LanguageModeling, Task, held_out_windows
from tinygrad_llm.training.masked_words import Hiding, MaskedWords
from tinygrad_llm.training.memory import check_memory

TRAIN_FRACTION = 0.9  # of each text or file; the rest is held out
LEARNED = ("char", "bpe", "wordpiece")  # tokenizers that are learned from the text, and so are kept with the run

_HELD_OUT = 17  # the seed of the words that are hidden in the held-out part
_SHOWN = 14  # tokens of a text in a sample
_STRETCH = 1 << 24  # ids hashed at a time


@dataclass(frozen=True)
class Source:
    """The input of a run: a text, or else files of token ids, with files to measure on if there are any."""

    text: str
    files: list[TokenFile]
    held_out_files: list[TokenFile]

    @property
    def all_files(self) -> list[TokenFile]:
        return self.files + self.held_out_files

    @functools.cached_property
    def identity(self) -> list[dict[str, Any]]:
        """Size and SHA-256 of the text, or of each file; all of it is read for that."""
        if self.all_files:
            return [{"tokens": len(file), "sha256": _hash(file.ids)} for file in self.all_files]
        return [{"characters": len(self.text), "sha256": corpus_hash(self.text)}]


@dataclass(frozen=True)
class RunData:
    """The token ids of a source: for each text or file one array to train on, and one that is held out."""

    source: Source
    tokenizer: AnyTokenizer
    names: list[str]  # of the texts or files that `training` is from, for messages
    training: list[NDArray[Any]]
    held_out: list[NDArray[Any]]

    outside: ClassVar[int] = 0  # tokens of a block that are not from the text
    heading: ClassVar[str] = "It writes"

    @property
    def identity(self) -> dict[str, Any]:
        """The corpus and tokenizer of a checkpoint, by size and SHA-256; only with the same ones can it be resumed."""
        return identity(self.source, self.tokenizer)

    # ---- what a Run asks of its subject: see `runs.finetune.Subject` -------------------------------------------------

    def make_task(self, config: RunConfig, rng: Generator) -> tuple[Task, int]:
        batches = make_batches(config, self, rng)
        return make_task(config, self, batches), batches.batches_per_epoch

    def make_model(self, config: RunConfig, rng: Generator, batch_size: int) -> Any:
        sizes = dataclasses.replace(config.model, vocab_size=self.tokenizer.n_vocab)
        check_memory(sizes, config.training, batch_size)
        return GPT(sizes, rng, recompute=config.training.recompute)

    def sample(self, model: Any, max_new_tokens: int, seed: int) -> str:
        """A text from the end-of-text token up to the next one; else from a newline, or from the first token.

        Where the model ends the text at once, which shows nothing, it begins again, up to ten times.
        """
        start, rng, text = start_ids(self.tokenizer) or [int(self.training[0][0])], Generator(seed), ""
        for _ in range(10):
            text = "".join(write(model, self.tokenizer, start, max_new_tokens, Sampling(0.8), rng))
            if text.strip():
                break
        return text

    def results(self, model: Any) -> None:
        """There is no test: the held-out loss says all."""

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def command(self, folder: str) -> list[str]:
        """With a prompt that the tokenizer surely knows; where there is an end-of-text token, none is needed."""
        text = self.source.text or self.tokenizer.decode(self.training[0][:100].tolist())
        word = (text.split() or [text])[0][:10]
        prompt = [] if self.tokenizer.eot_token is not None else [f"--prompt={word}"]
        return ["generate", folder, *prompt, "--seed", "1"]

    @property
    def summary(self) -> str:
        tokens = [sum(map(len, part)) for part in (self.training, self.held_out)]
        text = f"{len(self.source.text):,} characters, " if self.source.text else ""
        return f"{text}{tokens[0]:,} + {tokens[1]:,} tokens (vocabulary {self.tokenizer.n_vocab})"


@dataclass(frozen=True)
class MaskedData(RunData):
    """As `RunData`, for an encoder: each window stands between [CLS] and [SEP], and hides words.

    Raises:   ConfigError: the tokenizer lacks one of these tokens.
    """

    outside: ClassVar[int] = 2
    heading: ClassVar[str] = "It guesses, with the true word in brackets"

    def __post_init__(self) -> None:
        if lost := missing_tokens(self.tokenizer):
            raise ConfigError(
                f"data.tokenizer: an encoder needs {', '.join(lost)}, which this one lacks: take wordpiece, or another "
                "tokenizer that has them"
            )

    def make_task(self, config: RunConfig, rng: Generator) -> tuple[MaskedWords, int]:
        if config.model.block_size <= self.outside:
            raise ConfigError(
                f"model.block_size: an encoder needs at least {self.outside + 1}, for [CLS], a word and [SEP]; got "
                f"{config.model.block_size}"
            )
        batches, tokenizer = make_batches(config, self, rng), self.tokenizer
        mask = tokenizer.special_tokens[HIDDEN]
        hiding = Hiding(mask, tokenizer.n_vocab, self._special, around(tokenizer))
        fixed = Generator(_HELD_OUT)  # the same words are hidden in every held-out loss
        held_out = [hiding(ids, fixed, (1.0, 0.0)) for ids, _ in held_out_part(config, self)]
        task = MaskedWords(batches, held_out, hiding, config.training.label_smoothing)
        if not any(map(task.count, held_out)):
            raise DataError(f"{self.names[0]}: the held-out part has no word to hide: give a longer text")
        return task, batches.batches_per_epoch

    @property
    def _special(self) -> list[int]:
        return list(self.tokenizer.special_tokens.values())

    def make_model(self, config: RunConfig, rng: Generator, batch_size: int) -> Encoder:
        sizes = dataclasses.replace(config.model, vocab_size=self.tokenizer.n_vocab)
        check_memory(sizes, config.training, batch_size)
        return Encoder(sizes, rng, recompute=config.training.recompute)

    def sample(self, model: Encoder, max_new_tokens: int, seed: int) -> str:
        """The beginning of the held-out text with a hidden word, and what the model guesses there."""
        lines, token = [], self.tokenizer.special_tokens[HIDDEN]
        ids = [i for i in self.held_out[0].tolist() if i not in self._special]
        for start in range(0, min(len(ids), 3 * _SHOWN), _SHOWN):
            part = ids[start : start + min(_SHOWN, model.block_size - 2)]
            place = len(part) // 2
            hidden = [*part[:place], token, *part[place + 1 :]]
            ((guess, p),) = fill(model, self.tokenizer, hidden, 1)[0]
            word, true = (self.tokenizer.decode([i]) for i in (guess, part[place]))
            lines.append(f"{self.tokenizer.decode(hidden)}\n    {word} {p:.0%} ({true})")
        return "\n".join(lines)

    def results(self, model: Encoder) -> None:
        """There is no test: the held-out loss says all."""

    def command(self, folder: str) -> list[str]:
        ids = [i for i in self.training[0][:100].tolist() if i not in self._special][:8]
        words = self.tokenizer.decode(ids).split()
        return ["fill", folder, " ".join([HIDDEN, *words[1:6]])]


# What the kinds of models learn from that read one long text; others are in `runs.run.SUBJECTS`.
TEXTS: dict[str, type[RunData]] = {"gpt": RunData, "encoder": MaskedData}


def read_source(data: DataSettings) -> Source:
    """Read the text, or open the token files.

    Raises:   DataError: one of them cannot be used.
    """
    if not data.files:
        return Source(load_corpus(data.corpus, data.keep_newlines), [], [])
    dtype = data.dtype or None
    held_out = [TokenFile.open(data.held_out, dtype)] if data.held_out else []
    return Source("", [TokenFile.open(file, dtype) for file in data.files], held_out)


def make_tokenizer(data: DataSettings, source: Source) -> AnyTokenizer:
    """Learn the tokenizer from the whole text, or load it.

    Raises:   ConfigError: token files without the tokenizer that made them. TokenizerError: it cannot be loaded.
    """
    if source.files and data.tokenizer in LEARNED:
        raise ConfigError("token files are encoded already: name their tokenizer: --tokenizer gpt2, FILE or RUN")
    if data.tokenizer == "char":
        return CharTokenizer.train(source.text)
    if data.tokenizer in ("bpe", "wordpiece"):
        kind = Tokenizer if data.tokenizer == "bpe" else WordPieceTokenizer
        try:
            return kind.train(_with_ends(source.text, data.tokenizer == "wordpiece"), data.vocab_size)
        except TokenizerError as error:
            raise TokenizerError(f"{data.corpus}: {error}") from None
    return Tokenizer.gpt2() if data.tokenizer == "gpt2" else load_tokenizer(data.tokenizer)


def tokenize(config: RunConfig, source: Source, tokenizer: AnyTokenizer) -> RunData:
    """Cut the source into ids, and hold out the last tenth of it, or use the files that were named for that.

    Raises:   DataError: a part is shorter than one block with its target; token files of another tokenizer.
    """
    names = held_out_names = [str(file.path) for file in source.files] or [config.data.corpus]
    for file in source.all_files:
        file.check(tokenizer)
    training: list[NDArray[Any]] = [file.ids for file in source.files]
    held_out: list[NDArray[Any]] = [file.ids for file in source.held_out_files]
    if held_out:
        held_out_names = [str(file.path) for file in source.held_out_files]
    elif training:
        cuts = [int(TRAIN_FRACTION * len(ids)) for ids in training]
        held_out = [ids[cut:] for ids, cut in zip(training, cuts, strict=True)]
        training = [ids[:cut] for ids, cut in zip(training, cuts, strict=True)]
    else:
        text = _with_ends(source.text, END in tokenizer.special_tokens)
        cut = int(TRAIN_FRACTION * len(text))
        first, second = text[:cut], text[cut:]
        starts = ((first, 0), (second, len(first.encode())))
        ids = [np.array(encode_text(tokenizer, part, "allow", names[0], at), np.int32) for part, at in starts]
        training, held_out = ids[:1], ids[1:]
    _check_length(config.model.block_size, "training", names, training)
    _check_length(config.model.block_size, "held-out", held_out_names, held_out)
    return TEXTS[config.model.kind](source, tokenizer, names, training, held_out)


def _with_ends(text: str, has_sep: bool) -> str:
    """The text; where it is for BERT's tokens, [SEP] takes the place of <|endoftext|>."""
    return text.replace(END_OF_TEXT, END) if has_sep else text


def _check_length(block_size: int, part: str, names: list[str], rows: list[NDArray[Any]]) -> None:
    for name, ids in zip(names, rows, strict=True):
        if len(ids) <= block_size:
            raise DataError(
                f"{name}: its {part} part has {len(ids)} tokens, and one block of {block_size} with its target needs "
                f"{block_size + 1}: give a longer text"
            )


def load_data(config: RunConfig) -> RunData:
    """Source, tokenizer and ids of a new run, one after another.

    Raises:   ConfigError, DataError, TokenizerError: as the three functions above.
    """
    source = read_source(config.data)
    return tokenize(config, source, make_tokenizer(config.data, source))


def make_batches(config: RunConfig, data: RunData, rng: Generator, batch_size: int | None = None) -> BatchStream:
    """The training batches, as the settings say.

    Args:     rng: shuffles the windows. batch_size: replaces that of the settings.
    """
    s, size = config.training, config.training.batch_size if batch_size is None else batch_size
    block_size, weights = config.model.block_size - data.outside, config.data.weights
    return BatchStream(data.training, block_size, size, rng, s.stride or None, s.order, weights, data.names)


def make_task(config: RunConfig, data: RunData, batches: BatchStream) -> LanguageModeling:
    """Language modeling on these batches, with held-out windows as the settings say."""
    return LanguageModeling(batches, held_out_part(config, data), config.training.label_smoothing)


def held_out_part(config: RunConfig, data: RunData) -> list[tuple[Array, Array]]:
    """Windows of the held-out part, as many as the settings say."""
    s, block_size = config.training, config.model.block_size - data.outside
    weights = () if data.source.held_out_files else config.data.weights
    return held_out_windows(data.held_out, block_size, s.batch_size, s.eval_batches, weights)


def identity(source: Source, tokenizer: AnyTokenizer) -> dict[str, Any]:
    """Sizes and SHA-256 of corpus and tokenizer."""
    about = {"tokens": tokenizer.n_vocab, "sha256": vocabulary_hash(tokenizer)}
    return {"corpus": source.identity, "tokenizer": about}


def data_differences(
    before: Mapping[str, Any], source: Source, tokenizer: AnyTokenizer, corpus_name: str, tokenizer_name: str
) -> list[str]:
    """How corpus and tokenizer differ from those with the identity `before`, for a message; [] where they do not.

    Raises:   KeyError, TypeError: `before` is not such an identity.
    """
    now = identity(source, tokenizer)
    names = [f"the token file {file.path}" for file in source.all_files] or [f"the corpus {corpus_name}"]
    if len(before["corpus"]) != len(names):
        return [f"the corpus: {len(before['corpus'])} files before, {len(names)} now"]
    pairs = [*zip(names, before["corpus"], now["corpus"], strict=True)]
    pairs.append((f"the tokenizer {tokenizer_name}", before["tokenizer"], now["tokenizer"]))
    return [f"{name}: {_difference(old, new)}" for name, old, new in pairs if old != new]


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How two texts, token files or tokenizers differ, each given by its size and its SHA-256."""
    unit, size = next(iter(now.items()))
    if unit not in before:
        return "a text before, a token file now" if unit == "tokens" else "a token file before, a text now"
    if before[unit] != size:
        return f"{before[unit]:,} {unit} before, {size:,} now"
    return f"{size:,} {unit} as before, but different ones"


def _hash(ids: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(ids), _STRETCH):
        digest.update(ids[start : start + _STRETCH].tobytes())
    return digest.hexdigest()
