"""BLEU: sacrebleu's numbers, stored and, where it is installed, of random sentences."""

import random

import pytest

from tinygrad_llm.evaluation.bleu import bleu, words

# (translations, references, what sacrebleu 2.6.0 gives)
STORED = [
    (["the little fox finds a red ball ."], ["The little fox finds a red ball."], 84.08964152537145),
    (
        ["Der Fuchs findet einen Ball.", "Die Maus schläft."],
        ["Der kleine Fuchs findet den Ball.", "Die Maus schläft nicht."],
        25.476157358032925,
    ),
    (["It costs 3.50, he says."], ["It costs 3.50, she said."], 43.47208719449914),
]
WORDS = "the fox a l'ours 3.5 1,000 don't x-y 5-6 &quot; <skipped> #a! $5 . , ? end. (so) é ß & &amp; a\"b 5. .5 a.b -"


@pytest.mark.parametrize(("said", "wanted", "expected"), STORED)
def test_stored_numbers_of_sacrebleu(said, wanted, expected):
    assert bleu(said, wanted) == pytest.approx(expected, rel=1e-12)


def test_each_further_length_without_a_match_counts_half_as_much():
    assert bleu(["a b c d e"], ["a v w x y"]) == pytest.approx(
        100 * (1 / 5 * 1 / (2 * 4) * 1 / (4 * 3) * 1 / (8 * 2)) ** 0.25
    )


def test_limits():
    text = ["A fox sees a ball.", "It sleeps."]
    assert bleu(text, text) == pytest.approx(100)
    assert bleu(["nothing is like it at all"], text[:1]) == 0
    assert bleu([""], text[:1]) == bleu(["A fox"], text[:1]) == 0
    assert bleu(["A fox sees a"], text[:1]) < 100  # too short
    with pytest.raises(ValueError, match="got 1 translations and 2 references"):
        bleu(text[:1], text)
    with pytest.raises(ValueError, match="got 0 translations and 0 references"):
        bleu([], [])


def test_signs_are_words_of_their_own():
    assert words('"Yes," he said: 3.5 or 1,000 (not 5-6)?') == (
        ['"', "Yes", ",", '"', "he", "said", ":", "3.5", "or", "1,000", "(", "not", "5", "-", "6", ")", "?"]
    )
    assert words("l'ours, x-y. &quot;é&quot;") == ["l'ours", ",", "x-y", ".", '"', "é", '"']


def test_random_sentences_have_the_numbers_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    draw, known = random.Random(1), WORDS.split()

    def sentence(least):
        return " ".join(draw.choice(known[: draw.randint(2, len(known))]) for _ in range(draw.randint(least, 12)))

    for _ in range(200):
        wanted = [sentence(1) for _ in range(draw.randint(1, 4))]
        said = [text if draw.random() < 0.3 else sentence(0) for text in wanted]
        assert bleu(said, wanted) == pytest.approx(sacrebleu.corpus_bleu(said, [wanted]).score, abs=1e-9)
