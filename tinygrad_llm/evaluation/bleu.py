"""BLEU: how much of translations is also in their references, counted in runs of one to four words."""

import math
import re
from collections import Counter
from collections.abc import Sequence

LONGEST = 4  # words in a run


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """The BLEU of all translations together, from 0 to 100, as sacrebleu computes it by default.

        BLEU = 100 · min(1, exp(1 − r / c)) · (p_1 p_2 p_3 p_4)^¼

    p_n: the share of the translations' runs of n words that their reference has, each as often as there. Where none
    has, the share is 1 / (2^k · the number of runs) for the k-th such n. c and r: words of translations and references.

    Args:     translations, references: sentences, one reference for each translation.
    Raises:   ValueError: unequal numbers of them, or none.
    Source:   Papineni et al. 2002, doi:10.3115/1073083.1073135; Post 2018, arXiv:1804.08771 (sacrebleu).
    """
    if len(translations) != len(references) or not translations:
        raise ValueError(f"got {len(translations)} translations and {len(references)} references: give one for each")
    right, runs, lengths = [0] * LONGEST, [0] * LONGEST, [0, 0]
    for pair in zip(translations, references, strict=True):
        said, wanted = map(words, pair)
        lengths = [lengths[0] + len(said), lengths[1] + len(wanted)]
        for i in range(LONGEST):
            own = _runs(said, i + 1)
            right[i] += (own & _runs(wanted, i + 1)).total()
            runs[i] += own.total()
    if not any(right) or not all(runs):
        return 0.0
    total, zeros = 0.0, 0
    for matched, all_runs in zip(right, runs, strict=True):
        zeros += not matched
        total += math.log(matched / all_runs if matched else 1 / (2**zeros * all_runs))
    brevity = min(0.0, 1 - lengths[1] / lengths[0])
    return 100 * math.exp(brevity + total / LONGEST)


def words(text: str) -> list[str]:
    """The words and signs of a sentence, by the rules of mteval-v13a, sacrebleu's default.

    Signs of ASCII stand alone, but apostrophes and hyphens belong to words; points and commas stand alone except
    between digits, and a hyphen does after a digit.
    """
    for name, sign in (("<skipped>", ""), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(name, sign)
    text = f" {text} ".replace("\n", " ")
    text = re.sub(r"([!-&(-+/:-@[-`{-~])", r" \1 ", text)
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])-", r"\1 - ", text).split()


def _runs(words: list[str], n: int) -> "Counter[tuple[str, ...]]":
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
