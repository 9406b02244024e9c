"""Text from a model: ids become pieces of text while they are generated."""

from collections.abc import Iterator

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
) -> Iterator[str]:
    """Continue ids as text: yields one piece per token, and ends at the end-of-text token.

    A piece is empty while its character is incomplete. Ids that the tokenizer does not have are never drawn.

    Raises:   ValueError: as `generation.stream`; raised by the call itself.
    """
    new = stream(model, ids, max_new_tokens, sampling, rng, n_vocab=tokenizer.n_vocab)
    decoder = StreamDecoder(tokenizer)

    def pieces() -> Iterator[str]:
        for token in new:
            if token[0] == tokenizer.eot_token:
                break
            yield decoder.push(int(token[0]))
        yield decoder.finish()

    return pieces()
