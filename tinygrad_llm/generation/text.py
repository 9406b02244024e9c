"""Text from a model: ids become pieces of text as they are generated."""

from collections.abc import Iterator

from tinygrad_llm.generation.sampling import LanguageModel, stream
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import AnyTokenizer, StreamDecoder, TokenizerError


def start_ids(tokenizer: AnyTokenizer) -> list[int]:
    """What a new text begins after: the end-of-text token, or a newline; [] for a tokenizer that knows neither."""
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
