"""The proof: gradient checks exact to rounding, and the table of everything they cover."""

from tinygrad_llm.gradcheck.cases import Case, all_cases, gpt_problem
from tinygrad_llm.gradcheck.checkers import TOLERANCE, GradcheckError, GradcheckResult, check_module, gradcheck
from tinygrad_llm.gradcheck.ledger import Row, run, uncovered

__all__ = [
    "TOLERANCE",
    "Case",
    "GradcheckError",
    "GradcheckResult",
    "Row",
    "all_cases",
    "check_module",
    "gpt_problem",
    "gradcheck",
    "run",
    "uncovered",
]
