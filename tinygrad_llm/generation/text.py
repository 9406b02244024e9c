"""Text from a model: ids become pieces of text while they are generated."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from tinygrad_llm.generation.loop import LanguageModel, stream
from tinygrad_llm.generation.sampling import Sampling
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import AnyTokenizer, StreamDecoder, TokenizerError


def start_ids(tokenizer: AnyTokenizer) -> list[int]:
    """Return the ids that a new text follows: end of text, or a newline; [] if the tokenizer has neither."""
    if tokenizer.eot_token is not None:
        return [tokenizer.eot_token]
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        return []


def crop(
    ids: list[int], longest: int, refuse: bool = False, keep: Literal["last", "first"] = "last", what: str = "the text"
) -> list[int]:
    """Cut the ids of a text to what a model reads: every command does it here, and says so.

    Args:     refuse: raise instead. keep: the last ids, which what comes next depends on most; or the first.
              what: the text's name in the error.
    Raises:   ValueError: there are more than `longest` ids, and they are refused.
    """
    if len(ids) > longest and refuse:
        raise ValueError(
            f"{what} has {len(ids)} tokens, and the model reads at most {longest} of it: shorten it, or leave "
            "--no-crop out, so that it is cropped"
        )
    return ids[:longest] if keep == "first" else ids[max(0, len(ids) - longest) :]


def words_cropped(count: int, of: int, longest: int, part: str = "beginning") -> str:
    """The words for texts that lost a part, because the model reads only `longest` tokens."""
    what = f"{count} of {of} texts are" if of > 1 else "the text is"
    left_out = f"the {part} of each is" if of > 1 else f"its {part} is"
    return f"{what} longer than the {longest} tokens that the model reads at once: {left_out} left out"


class Written(Iterator[str]):
    """The pieces of a text while it is written.

    `ended` tells, once all pieces have come, whether the text ended by itself: at the end of text, or before a stop
    string.
    """

    def __init__(self, ids: Iterable[int], tokenizer: AnyTokenizer, stop: Sequence[str]) -> None:
        self.ended = False
        pieces = self._decoded(ids, tokenizer)
        self._pieces = self._before(pieces, stop) if stop else pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def _decoded(self, ids: Iterable[int], tokenizer: AnyTokenizer) -> Iterator[str]:
        """The text of each id up to the end of text, and a last piece."""
        decoder = StreamDecoder(tokenizer)
        for token in ids:
            if token == tokenizer.eot_token:
                self.ended = True
                break
            yield decoder.push(token)
        yield decoder.finish()

    def _before(self, pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
        """The pieces up to the first of the stop strings, one out for each one in, and a last one."""
        held = ""
        for piece in pieces:
            held += piece
            found = _first(held, stop)
            # A stop string that has begun earlier may still be completed, and would then be the first.
            open_ends = (i for i in range(len(held)) for end in stop if end.startswith(held[i:]) and end != held[i:])
            begun = min(open_ends, default=len(held))
            if found is not None and found <= begun:
                self.ended = True
                yield held[:found]
                return
            yield held[:begun]
            held = held[begun:]
        found = _first(held, stop)
        self.ended = self.ended or found is not None
        yield held[:found]


def _first(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the stop strings begins."""
    return min((place for place in map(text.find, stop) if place >= 0), default=None)


def write(
    model: LanguageModel,
    tokenizer: AnyTokenizer,
    ids: list[int],
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    rng: Generator | None = None,
    stop: Sequence[str] = (),
) -> Written:
    """Continue ids as text: yields one piece per token, and ends at the end-of-text token.

    A piece is empty while its character is incomplete. Ids that the tokenizer does not have are never drawn.

    Args:     stop: the text ends before the first of these strings. A piece is held back while it may begin one.
    Raises:   ValueError: as `generation.stream`, or an empty stop string; raised by the call itself.
    """
    _check_stop(stop)
    new = stream(model, ids, max_new_tokens, sampling, rng, n_vocab=tokenizer.n_vocab, eos_id=tokenizer.eot_token)
    return Written((int(token[0]) for token in new), tokenizer, stop)


def write_all(
    model: LanguageModel,
    tokenizer: AnyTokenizer,
    rows: Sequence[list[int]],
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    rngs: Sequence[Generator] | None = None,
    stop: Sequence[str] = (),
) -> list[str]:
    """Continue rows of ids, all at the same time: the texts that `write` gives with each alone.

    The weights are read once per token for all texts, so this takes less time than one text after another.

    Args:     rngs: one generator for each row; None: Generator(0) for each.
    Raises:   ValueError: as `write`.
    """
    _check_stop(stop)
    rngs = [Generator(0) for _ in rows] if rngs is None else rngs
    new = stream(model, rows, max_new_tokens, sampling, rngs, n_vocab=tokenizer.n_vocab, eos_id=tokenizer.eot_token)
    columns = [column.tolist() for column in new]
    return ["".join(Written((column[i] for column in columns), tokenizer, stop)) for i in range(len(rows))]


def _check_stop(stop: Sequence[str]) -> None:
    if not all(stop):
        raise ValueError("a stop string must not be empty")
