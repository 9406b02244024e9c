"""The proof: gradient checks that are exact to rounding, and the table of everything they cover.

On your own functions and modules:

    import numpy as np
    from tinygrad_llm import Generator, functional as F, nn
    from tinygrad_llm.gradcheck import gradcheck, hessian, hvp, jvp

    layer = nn.MultiHeadAttention(8, 2, rng=Generator(0))
    x = np.random.randn(2, 3, 8)
    assert gradcheck(layer, [x])                                       # the input and every parameter
    y, dy = jvp(lambda x: F.softmax(x, dim=-1), [x], [np.ones_like(x)])
    H = hessian(lambda x: (x * x * x).sum(), [np.array([1.0, 2.0])])   # diag(6, 12)
    (Hv,) = hvp(lambda x: F.gelu(x).sum(), [x], [np.ones_like(x)])     # H v, without computing H

A plain NumPy function with a hand-written gradient needs no Tensors: see `check_gradient`.

On the command line: `tinygrad-llm gradcheck` proves everything, `--mutants` plants wrong gradients, `--mutants --method
central` shows which of them ordinary differences miss, and `--curve NAME` plots the error of each method over its step.
When a training run fails, `tinygrad_llm.detect_anomaly` names the operation and the layer of the first NaN or infinity,
and `nn.learning_report` lists parameters without a gradient and parameters that do not move.
"""

from tinygrad_llm.gradcheck.cases import Case
from tinygrad_llm.gradcheck.checkers import gradcheck
from tinygrad_llm.gradcheck.ledger import Row, run, uncovered
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.model_cases import all_cases, gpt_problem
from tinygrad_llm.gradcheck.plain import check_gradient
from tinygrad_llm.gradcheck.result import TOLERANCE, GradcheckResult
from tinygrad_llm.gradcheck.second_order import hessian, hvp, jvp

__all__ = [
    "TOLERANCE", "Case", "GradcheckError", "GradcheckResult", "Row", "all_cases", "check_gradient",
    "gpt_problem", "gradcheck", "hessian", "hvp", "jvp", "run", "uncovered",
]  # fmt: skip
