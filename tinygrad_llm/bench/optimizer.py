"""An update alone: clipping and AdamW, on parameters of GPT-2's shapes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.limits import FLOAT
from tinygrad_llm.bench.measure import OURS, Case, Cases
from tinygrad_llm.bench.train import SETTINGS
from tinygrad_llm.bench.work import Work, numpy_facts
from tinygrad_llm.kernels import Array
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import AdamW, clip_scale, decay_groups, grad_norm
from tinygrad_llm.runtime import cores, peak_memory

THEIRS = ("torch",)
SUBJECTS = {OURS: f"{__name__}:updating", "torch": "tinygrad_llm.bench.against_torch:updating"}
TOLERANCE = 5e-3  # PyTorch sums the squares of a norm in float32; over 38 million of them, its error is 0.1 %
PASSES = 8  # over memory: g is read for the norm; p, g, m and v are read, and p, m and v written


def cases(config: GPTConfig = GPTConfig()) -> Cases:  # noqa: B008 (it cannot be changed)
    """Parameters of GPT-2's shapes."""
    shapes = [list(shape) for _, shape in config.shapes()]
    traffic = PASSES * FLOAT * config.num_parameters
    name = f"{config.num_parameters / 1e6:.0f}M parameters"
    yield Case(name, SUBJECTS, {"shapes": shapes}, TOLERANCE, traffic=traffic)


def values(shapes: Sequence[Sequence[int]]) -> list[Array]:
    """The parameters. Each is also its own gradient (of ½‖p‖²). Its norm is above 1, so the gradient is clipped."""
    return [np.linspace(-0.1, 0.1, int(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in shapes]


def sample(parameters: Sequence[Array]) -> list[float]:
    """A few elements of each parameter."""
    return [float(x) for p in parameters for x in p.ravel()[:: max(1, p.size // 3) | 1]]


def answer(norm: float, before: Sequence[float], after: Sequence[float]) -> list[float]:
    """The norm, and how far elements moved, in units of the learning rate."""
    return [norm, *((y - x) / SETTINGS.lr for x, y in zip(before, after, strict=True))]


# ---- in the worker -----------------------------------------------------------------------------------------------


def updating(shapes: Sequence[Sequence[int]]) -> Subject:
    """Clipping and an update, as in training."""
    imported = peak_memory()
    pool = ThreadPoolExecutor(cores())
    parameters = [Parameter(array) for array in values(shapes)]
    gradients = [np.empty_like(p.data) for p in parameters]
    named = [(str(i), p) for i, p in enumerate(parameters)]
    optimizer = AdamW(decay_groups(named, SETTINGS.weight_decay), SETTINGS.lr, SETTINGS.betas, SETTINGS.eps)

    def prepare() -> None:
        for p, g in zip(parameters, gradients, strict=True):
            np.copyto(g, p.data)
            p.grad = g

    def do() -> float:
        norm = grad_norm(gradients, pool.map)
        optimizer.step(clip_scale(norm, SETTINGS.clip), pool.map)
        return norm

    def first() -> list[float]:
        prepare()
        before = sample([p.data for p in parameters])
        return answer(do(), before, sample([p.data for p in parameters]))

    return Work(first, do, imported, numpy_facts, prepare)
