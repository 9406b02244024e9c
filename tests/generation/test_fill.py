"""The words for each [MASK]: those of its own position, without rows that no token has."""

import contextlib

import numpy as np
import pytest

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation.fill import around, fill, missing_tokens
from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, WordPieceTokenizer

TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"])
MASK = TOKENIZER.special_tokens["[MASK]"]
SCORES = np.random.default_rng(0).standard_normal((9, TOKENIZER.n_vocab + 2))  # of each position; two rows are padding
SCORES[:, TOKENIZER.n_vocab :] = 50


class Fixed:
    """A model whose logits depend on the position alone; it keeps what it reads."""

    block_size = 9

    def evaluating(self):
        return contextlib.nullcontext()

    def __call__(self, ids):
        self.read = ids.tolist()
        return Tensor(SCORES[None, : ids.shape[1]])


def test_each_mask_gets_the_likeliest_tokens_of_its_own_place():
    model, ids = Fixed(), [MASK, 5, MASK, 6, MASK]
    found = fill(model, TOKENIZER, ids, 3)
    assert model.read == [[2, *ids, 3]]  # between [CLS] and [SEP]
    assert len(found) == 3
    for place, words in zip((1, 3, 5), found, strict=True):
        scores = SCORES[place, : TOKENIZER.n_vocab]
        p = np.exp(scores) / np.exp(scores).sum()
        assert [token for token, _ in words] == np.argsort(-p)[:3].tolist()
        assert [q for _, q in words] == pytest.approx(sorted(p, reverse=True)[:3])


def test_a_text_without_a_mask_or_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match=r"there is no \[MASK\] in the text"):
        fill(Fixed(), TOKENIZER, [5], 1)
    assert len(fill(Fixed(), TOKENIZER, [MASK] * 7, 1)) == 7
    with pytest.raises(ValueError, match="the text has 8 tokens, and the model reads at most 7"):
        fill(Fixed(), TOKENIZER, [MASK] * 8, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_nan_or_infinite_are_refused(bad, monkeypatch):
    monkeypatch.setattr(Fixed, "__call__", lambda self, ids: Tensor(np.full((1, ids.shape[1], 10), bad)))
    with pytest.raises(ValueError, match="the model's logits are NaN or infinite: its weights are damaged"):
        fill(Fixed(), TOKENIZER, [MASK], 1)


def test_the_tokens_that_are_missing_are_named():
    assert missing_tokens(Tokenizer([])) == ["[CLS]", "[SEP]", "[MASK]"]
    with pytest.raises(TokenizerError, match=r"an encoder needs \[SEP\], and its tokenizer has no such token"):
        around(WordPieceTokenizer(["[UNK]", "[CLS]"]))
