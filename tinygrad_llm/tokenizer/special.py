"""Special tokens in a text from outside: the one rule that the command line, token files and scores follow.

`<|endoftext|>` in a text may mean the end of a text, or its author only wrote about it. Only the user knows. So it is
an error until the user decides: `Special` is that decision.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.wordpiece import WordPieceTokenizer

# A special token in a text raises, becomes its own id, or is encoded as the characters that it is written in.
Special: TypeAlias = Literal["error", "allow", "plain"]


def encode_text(
    tokenizer: Tokenizer | CharTokenizer | WordPieceTokenizer,
    text: str,
    special: Special = "error",
    where: str = "the text",
    start: int = 0,
) -> list[int]:
    """Encode a text from outside.

    Args:     special: what a special token in the text becomes. where: the text's name in errors. start: the text's
              first byte, if it is a part of something longer.
    Raises:   TokenizerError: a special token, if special is "error"; a character the tokenizer cannot encode. The
              message begins with `where`.
    """
    if special == "error":
        refuse_special(tokenizer, text, where, start)
    try:
        return tokenizer.encode(text, allowed_special="all" if special == "allow" else (), disallowed_special=())
    except TokenizerError as error:
        raise TokenizerError(f"{where}, after byte {start}: {error}" if start else f"{where}: {error}") from None


def refuse_special(
    tokenizer: Tokenizer | CharTokenizer | WordPieceTokenizer, text: str, where: str, start: int = 0
) -> None:
    """Raise for a special token in a text.

    Args:     as `encode_text`.
    Raises:   TokenizerError: names the token, its byte and the two ways to mend it.
    """
    for token in tokenizer.special_tokens:
        before, found, _ = text.partition(token)
        if found:
            place = start + len(before.encode(errors="surrogatepass"))
            raise TokenizerError(
                f"{where}: holds the special token {token!r} at byte {place}: add --allow-special to read it as that "
                'token (special="allow"), or --plain-special to read it as plain text (special="plain")'
            )
