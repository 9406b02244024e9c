"""The book's numbers, fact by fact: Raschka 2024, "Build a Large Language Model (From Scratch)".

Each module holds the facts of one chapter: what the book prints, and a few lines of this package that compute it.
`tinygrad-llm book ch03` shows them side by side. `Generator(123)` draws what `torch.manual_seed(123)` draws, so the
digits agree to the last one printed.

    from tinygrad_llm.study.book import FACTS, check
    check(FACTS["ch03-12"]).status        # "pass"
"""

from tinygrad_llm.study.book import appendix_a, ch03, ch04
from tinygrad_llm.study.book.ledger import FACTS, Fact, Result, check, compare

CHAPTERS = {"ch03": ch03, "ch04": ch04, "apA": appendix_a}

__all__ = ["CHAPTERS", "FACTS", "Fact", "Result", "check", "compare"]
