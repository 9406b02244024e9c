"""tinygrad_llm: a large language model built from scratch, in NumPy.

Read from the bottom up, the package is the curriculum: kernels → autograd → functional → nn, optim → models → training.
"""

from tinygrad_llm import runtime  # first of all: it chooses BLAS kernels, which must precede NumPy

runtime.prepare()

from tinygrad_llm import functional, nn, optim  # noqa: E402
from tinygrad_llm.autograd import AnomalyError, Tensor, detect_anomaly, grad, no_grad  # noqa: E402
from tinygrad_llm.models import GPT, GPTConfig  # noqa: E402
from tinygrad_llm.random import Generator  # noqa: E402
from tinygrad_llm.tokenizer import Tokenizer  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "AnomalyError",
    "GPTConfig",
    "Generator",
    "Tensor",
    "Tokenizer",
    "detect_anomaly",
    "functional",
    "grad",
    "nn",
    "no_grad",
    "optim",
]
