"""The proof: gradient checks exact to rounding, and the table of everything they cover."""

from tinygrad_llm.gradcheck.cases import Case
from tinygrad_llm.gradcheck.checkers import TOLERANCE, GradcheckResult, gradcheck
from tinygrad_llm.gradcheck.ledger import Row, run, uncovered
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.model_cases import all_cases, gpt_problem
from tinygrad_llm.gradcheck.second_order import hessian, hvp, jvp

__all__ = [
    "TOLERANCE",
    "Case",
    "GradcheckError",
    "GradcheckResult",
    "Row",
    "all_cases",
    "gpt_problem",
    "gradcheck",
    "hessian",
    "hvp",
    "jvp",
    "run",
    "uncovered",
]
