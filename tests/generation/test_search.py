"""Greedy and beam search: the definitions, computed by trying every target."""

import itertools

import numpy as np
import pytest

from tinygrad_llm.generation import search
from tinygrad_llm.generation.search import attention_of, beam_search, greedy_search, translate
from tinygrad_llm.models import Translator, TranslatorConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

END, MOST = 3, 4
CONFIG = TranslatorConfig(vocab_size=4, block_size=MOST, n_layer=1, n_head=2, n_embd=8, dropout=0.0)
SOURCES, LENGTHS = np.random.default_rng(1).integers(0, 4, (3, 4)), np.array([4, 2, 1])


def shaken(seed):
    model, noise = Translator(CONFIG, Generator(seed)).to(np.float64), np.random.default_rng(seed)
    for p in model.parameters():
        p.data = p.data + 0.5 * noise.standard_normal(p.shape)
    return model


TARGETS = [ids for n in range(MOST + 1) for ids in itertools.product(range(END), repeat=n)]


def every_target(model, row):
    """The log-probability of every possible target of a source, from logits without a cache, and its tokens."""
    source = SOURCES[row : row + 1, : LENGTHS[row]].repeat(len(TARGETS), axis=0)
    given = np.array([[END, *ids, *[0] * MOST][:MOST] for ids in TARGETS])  # what follows the end changes nothing
    with model.evaluating():
        logits = model(source, given).data
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    outs = [[*ids, END][:MOST] for ids in TARGETS]
    return [
        (sum(own[t, token] for t, token in enumerate(out)), len(out)) for own, out in zip(log_probs, outs, strict=True)
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_beam_of_width_1_is_greedy_and_a_wide_one_is_exhaustive(seed):
    model = shaken(seed)
    greedy = greedy_search(model, SOURCES, LENGTHS, END, END)
    narrow = beam_search(model, SOURCES, LENGTHS, END, END, width=1)
    assert [[list(h.ids) for h in own] for own in narrow] == [[ids] for ids in greedy]
    found = [every_target(model, row) for row in range(3)]
    for alpha in (0.0, 0.6, 2.0):
        wide = beam_search(model, SOURCES, LENGTHS, END, END, width=1000, length_penalty=alpha)
        for log_probs, own in zip(found, wide, strict=True):
            scores = {ids: p / ((5 + n) / 6) ** alpha for ids, (p, n) in zip(TARGETS, log_probs, strict=True)}
            assert own[0].ids == max(scores, key=scores.get)
            assert [h.score for h in own] == sorted((h.score for h in own), reverse=True)
            assert all(abs(h.score - scores[h.ids]) < 1e-12 for h in own)
            assert len({h.ids for h in own}) == len(own)


def test_greedy_takes_the_likeliest_token_at_each_step_and_no_batch_changes_it():
    model = shaken(5)
    together = greedy_search(model, SOURCES, LENGTHS, END, END)
    for row, found in enumerate(together):
        source, ids = SOURCES[row : row + 1, : LENGTHS[row]], [END]
        while len(ids) <= MOST:
            with model.evaluating():
                token = int(model(source, np.array([ids])).data[0, -1].argmax())
            if token == END:
                break
            ids.append(token)
        assert found == ids[1:] == greedy_search(model, source, None, END, END)[0]


class Fixed:
    """A model whose probabilities do not depend on the source: from the last token to the next."""

    block_size = 6

    def __init__(self, table):
        self.logits = np.log(table)

    def evaluating(self):
        return np.errstate()

    def begin(self, source, lengths=None):
        return self

    def select(self, rows):
        pass

    def next_logits(self, ids, state):
        return self.logits[ids]


def test_a_beam_finds_what_greedy_misses_and_the_penalty_prefers_longer_targets():
    # From the start (2): 0 with 0.6, 1 with 0.4. After 0, everything is equally likely; after 1, the end is sure.
    model = Fixed([[1 / 3, 1 / 3, 1 / 3], [1e-9, 1e-9, 1 - 2e-9], [0.6, 0.4 - 1e-9, 1e-9]])
    one = np.zeros((1, 1), int)
    assert greedy_search(model, one, None, 2, 2, 2) == [[0, 0]]
    ((best, *_),) = beam_search(model, one, None, 2, 2, width=2, length_penalty=0.0)
    assert best.ids == (1,)
    assert best.score == pytest.approx(np.log(0.4), rel=1e-6)
    # Here the end has 0.5 after every token: short targets are likelier, and long ones win with a large penalty.
    model = Fixed([[0.5, 1e-9, 0.5 - 1e-9]] * 3)
    lengths = [len(beam_search(model, one, None, 2, 2, 50, alpha)[0][0].ids) for alpha in (0.0, 5.0)]
    assert lengths == [0, 6]


def plain_beam(model, width, alpha):
    """(ids, score) of the best hypothesis of a beam that is never left early."""
    beam, done = [((), 0.0)], []
    for n in range(1, model.block_size + 1):
        longer = []
        for ids, score in beam:
            row = model.logits[ids[-1] if ids else END]
            longer += [((*ids, t), score + row[t] - np.log(np.exp(row).sum())) for t in range(len(row))]
        longer = sorted(longer, key=lambda one: -one[1])[: width - len(done)]
        ended = [one for one in longer if one[0][-1] == END or n == model.block_size]
        done += [(tuple(t for t in ids if t != END), score / ((5 + n) / 6) ** alpha) for ids, score in ended]
        beam = [one for one in longer if one not in ended]
    return max(done, key=lambda one: one[1])


def test_a_beam_that_is_left_early_has_found_the_best_that_it_would_find():
    one, rng = np.zeros((1, 1), int), np.random.default_rng(0)
    for _ in range(20):
        model = Fixed(rng.dirichlet([1, 1, 1, 2], 4))
        for width, alpha in itertools.product((2, 3, 5), (0.0, 0.6, 3.0)):
            ids, score = plain_beam(model, width, alpha)
            best = beam_search(model, one, None, END, END, width, alpha)[0][0]
            assert (best.ids, round(best.score, 9)) == (ids, round(score, 9))


def test_attention_between_words_is_that_of_their_tokens():
    """The mean of layers and heads; added over the tokens of a source word, averaged over those of a target word."""
    tokenizer, rng = Tokenizer([]), np.random.default_rng(0)
    asked = []

    class Looking:
        block_size = 40

        def attention_to_source(self, source, target):
            asked.append((source.tolist(), target.tolist()))
            return WEIGHTS[:, :, : target.shape[1], : source.shape[1]]

    WEIGHTS = rng.dirichlet(np.ones(9), (2, 3, 5))
    looks = attention_of(Looking(), tokenizer, " ab é, x", "no s")
    end = tokenizer.eot_token
    source, target = [*tokenizer.encode("ab é, x"), end], tokenizer.encode("no s")
    assert asked == [([source], [[end, *target[:-1]]])]
    assert (looks.source, looks.target) == (["ab", "é", ",", "x", "end"], ["no", "s"])
    mean = WEIGHTS.mean(axis=1).mean(axis=0)[:4]
    columns, rows = [(0, 2), (2, 5), (5, 6), (6, 8), (8, 9)], [(0, 2), (2, 4)]  # a space belongs to the word after it
    expected = [[mean[a:b, c:d].sum(axis=1).mean() for c, d in columns] for a, b in rows]
    np.testing.assert_allclose(looks.weights, expected, rtol=1e-12)


def test_arguments_out_of_range_are_refused():
    model, one = Fixed([[0.5, 0.5], [0.5, 0.5]]), np.zeros((1, 1), int)
    for options, message in [
        ({"width": 0}, "a width ≥ 1"),
        ({"length_penalty": -1.0}, "length_penalty ≥ 0"),
        ({"length_penalty": np.inf}, "finite length_penalty"),
        ({"max_new_tokens": 7}, "max_new_tokens must lie in 1 … 6, got 7"),
    ]:
        with pytest.raises(ValueError, match=message):
            beam_search(model, one, None, 1, 1, **options)
    assert max(len(h.ids) for h in beam_search(model, one, None, 1, 1, max_new_tokens=1)[0]) == 1
    with pytest.raises(ValueError, match="NaN"):
        greedy_search(Fixed([[np.nan, 0.5]] * 2), one, None, 1, 1)


def test_letters_beyond_ascii_are_of_one_word():
    tokenizer = Tokenizer([])  # one token for each byte: Ā is C4 80
    words, places = search._words(tokenizer, [*tokenizer.encode("ĀĀ7 b!"), tokenizer.eot_token])
    assert words == ["ĀĀ7", "b", "!", "end"]
    assert places == [0, 0, 0, 0, 0, 1, 1, 2, 3]


def test_texts_are_translated_in_their_order_whatever_the_batch(monkeypatch):
    tokenizer = Tokenizer.train("a fox sees a ball " * 9, 260)
    config = TranslatorConfig(vocab_size=tokenizer.n_vocab, block_size=12, n_layer=1, n_head=2, n_embd=8)
    model = Translator(config, Generator(3)).to(np.float64)
    texts = ["a fox", "a", "ball", " a fox \n"]
    found = translate(model, tokenizer, texts)
    assert found == [translate(model, tokenizer, [text])[0] for text in texts]
    assert found == translate(model, tokenizer, texts, batch_size=2)
    assert found == translate(model, tokenizer, texts, width=1, batch_size=3)
    assert len(set(translate(model, tokenizer, texts, width=3))) > 1
    asked = []
    monkeypatch.setattr(search, "beam_search", lambda *args: asked.append(args[5:]) or beam_search(*args))
    translate(model, tokenizer, ["a fox"], 3, 0.0)
    assert asked == [(3, 0.0)]
    for text, message in [("", "the sentence is empty"), ("x" * 12, "the sentence has 13 tokens with its end, .* 12")]:
        with pytest.raises(ValueError, match=message):
            translate(model, tokenizer, [text])
    with pytest.raises(ValueError, match=r"^sentence 2 is empty$"):
        translate(model, tokenizer, ["a", " "])
    with pytest.raises(ValueError, match=r"^line 7 is empty$"):
        translate(model, tokenizer, ["a", " "], names=["line 5", "line 7"])
    with pytest.raises(ValueError, match="a tokenizer with an end-of-text token"):
        translate(model, CharTokenizer("ab"), ["a"])
