"""Text from a model: ids become pieces of text while they are generated."""

from collections.abc import Iterable, Iterator, Sequence

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


def write(
    model: LanguageModel,
    tokenizer: AnyTokenizer,
    ids: list[int],
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    rng: Generator | None = None,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Continue ids as text: yields one piece per token, and ends at the end-of-text token.

    A piece is empty while its character is incomplete. Ids that the tokenizer does not have are never drawn.

    Args:     stop: the text ends before the first of these strings. A piece is held back while it may begin one.
    Raises:   ValueError: as `generation.stream`, or an empty stop string; raised by the call itself.
    """
    _check_stop(stop)
    new = stream(model, ids, max_new_tokens, sampling, rng, n_vocab=tokenizer.n_vocab, eos_id=tokenizer.eot_token)
    pieces = _pieces((int(token[0]) for token in new), tokenizer)
    return _before(pieces, stop) if stop else pieces


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
    return ["".join(_before(_pieces((column[i] for column in columns), tokenizer), stop)) for i in range(len(rows))]


def _check_stop(stop: Sequence[str]) -> None:
    if not all(stop):
        raise ValueError("a stop string must not be empty")


def _pieces(ids: Iterable[int], tokenizer: AnyTokenizer) -> Iterator[str]:
    """The text of each id up to the end of text, and a last piece."""
    decoder = StreamDecoder(tokenizer)
    for token in ids:
        if token == tokenizer.eot_token:
            break
        yield decoder.push(token)
    yield decoder.finish()


def _before(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of the stop strings, one out for each one in, and a last one."""
    held = ""
    for piece in pieces:
        held += piece
        found = min((place for place in map(held.find, stop) if place >= 0), default=len(held) + 1)
        # A stop string that has begun earlier may still be completed, and would then be the first.
        open_ends = (i for i in range(len(held)) for end in stop if end.startswith(held[i:]) and end != held[i:])
        begun = min(open_ends, default=len(held))
        if found <= begun:
            yield held[:found]
            return
        yield held[:begun]
        held = held[begun:]
    yield held[: min((place for place in map(held.find, stop) if place >= 0), default=len(held))]
