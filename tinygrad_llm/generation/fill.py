"""The words that an encoder would put where a text says [MASK]."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tinygrad_llm.kernels import Array, softmax
from tinygrad_llm.tokenizer import AnyTokenizer, TokenizerError

BEGIN, END, HIDDEN = "[CLS]", "[SEP]", "[MASK]"  # BERT's tokens around a text, and for a hidden word


class MaskedModel(Protocol):
    """What `fill` asks of a model: ids (B, T) → logits (B, T, V)."""

    @property
    def block_size(self) -> int: ...
    def evaluating(self) -> Any: ...
    def __call__(self, ids: Any) -> Any: ...


def missing_tokens(tokenizer: AnyTokenizer) -> list[str]:
    """The tokens that an encoder needs and the tokenizer does not have."""
    return [token for token in (BEGIN, END, HIDDEN) if token not in tokenizer.special_tokens]


def around(tokenizer: AnyTokenizer) -> tuple[int, int]:
    """The ids of [CLS] and [SEP], which stand before and after each text.

    Raises:   TokenizerError: the tokenizer does not have them.
    """
    if lost := {BEGIN, END} & {*missing_tokens(tokenizer)}:
        raise TokenizerError(f"an encoder needs {' and '.join(sorted(lost))}, and its tokenizer has no such token")
    return tokenizer.special_tokens[BEGIN], tokenizer.special_tokens[END]


def fill(model: MaskedModel, tokenizer: AnyTokenizer, ids: Sequence[int], count: int) -> list[list[tuple[int, float]]]:
    """The likeliest tokens for each [MASK] of a text, each [MASK] for itself.

    Args:     ids: of the text, without [CLS] and [SEP]. count: how many tokens for each [MASK].
    Returns:  for each [MASK] in order: (id, probability) pairs, the likeliest first.
    Raises:   ValueError: no [MASK] in the text; more tokens than the model reads; logits that are NaN or infinite.
    """
    first, last = around(tokenizer)
    places = [i for i, token in enumerate(ids, 1) if token == tokenizer.special_tokens[HIDDEN]]
    if not places:
        raise ValueError(f"there is no {HIDDEN} in the text: write it in the place of the word to guess")
    if len(ids) + 2 > model.block_size:
        raise ValueError(
            f"the text has {len(ids)} tokens, and the model reads at most {model.block_size - 2}: shorten it"
        )
    with model.evaluating(), np.errstate(all="ignore"):
        logits: Array = model(np.array([[first, *ids, last]])).data[0, places].astype(np.float64)  # (N, V)
    if not np.isfinite(logits).all():
        raise ValueError("the model's logits are NaN or infinite: its weights are damaged")
    probabilities = softmax(logits[:, : tokenizer.n_vocab])[0]
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return [[(int(i), float(p[i])) for i in row] for row, p in zip(best, probabilities, strict=True)]
