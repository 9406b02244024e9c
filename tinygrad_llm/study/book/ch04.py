"""Chapter 4: the GPT, from a normalized row to 163 million parameters."""

import itertools
import math
from functools import cache
from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.models.gpt import MLP, Block
from tinygrad_llm.nn import GELU, Dropout, Embedding, LayerNorm, Linear, MultiHeadAttention, Sequential
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ledger import ARITHMETIC, NOTEBOOK, fact
from tinygrad_llm.study.book.material import gpt2


def book_config(**changes: Any) -> GPTConfig:
    """GPT-2 small as the book builds it: an untied head, Q, K and V without bias, and first weights as in PyTorch."""
    settings = {"dropout": 0.1, "qkv_bias": False, "tie_weights": False, "initializer_range": None}
    return GPTConfig(**{**settings, **changes})


PROMPTS = ("Every effort moves you", "Every day holds a")


def prompt_ids() -> np.ndarray[Any, Any]:
    """The ids of the two prompts."""
    return np.array([gpt2().encode(text) for text in PROMPTS])  # (B, T) = (2, 4)


def corners(logits: Tensor) -> Tensor:
    """The first three and the last three logits of each position: what PyTorch prints."""
    return F.cat([logits[..., :3], logits[..., -3:]], -1)


# ---- layers ----------------------------------------------------------------------------------------------------------


@fact("ch04-01", "2 3 768 / 2 4 768")
def shapes_stay() -> list[Any]:
    """Shapes after the feed-forward part (2, 3, 768), and after a block (2, 4, 768)."""
    rng = Generator(123)
    x = Tensor(rng.uniform(0, 1, (2, 3, 768)))
    block = Block(book_config(), rng)
    return [block.mlp(x).shape, block(Tensor(rng.uniform(0, 1, (2, 4, 768)))).shape]


@fact("ch04-02", "6109 3626 6100 345 / 6109 1110 6622 257")
def two_prompts() -> Any:
    """The ids of two prompts."""
    return prompt_ids()


def two_rows() -> Any:
    """Seed 123: a linear layer and a ReLU, applied to two random rows, (2, 5) → (2, 6)."""
    rng = Generator(123)
    x = Tensor(rng.normal(0, 1, (2, 5)))
    return Linear(5, 6, rng=rng)(x).relu()


@fact("ch04-04", "0.2260 0.3470 0.0000 0.2216 0.0000 0.0000 / 0.2133 0.2394 0.0000 0.5198 0.3297 0.0000")
def layer_output() -> Any:
    """Seed 123; normal rows (2, 5) through Linear(5, 6) and ReLU."""
    return two_rows()


@fact("ch04-05", "0.1324 0.2170 / 0.0231 0.0398")
def mean_and_variance() -> list[Tensor]:
    """Mean and variance of these rows."""
    x = two_rows()
    return [x.mean(-1), x.var(-1)]  # the variance divides by n − 1, PyTorch's default


@fact(
    "ch04-06",
    "0.6159 1.4126 -0.8719 0.5872 -0.8719 -0.8719 / -0.0189 0.1121 -1.0876 1.5173 0.5647 -1.0876 / 0.0000 0.0000 / "
    "1.0000 1.0000",
)
def normalized_by_hand() -> list[Tensor]:
    """The rows minus their mean, divided by the root of their variance; the new means and variances."""
    x = two_rows()
    y = (x - x.mean(-1, keepdim=True)) / x.var(-1, keepdim=True).sqrt()
    return [y, y.mean(-1), y.var(-1)]


@fact("ch04-07", "0.0000 0.0000 / 0.9995 0.9997")
def normalized_by_layer() -> list[Tensor]:
    """LayerNorm(6) of these rows: mean and variance (÷ n) of the result."""
    y = LayerNorm(6)(two_rows())  # eps = 1e-5 in the root makes the variance a little smaller than 1
    return [y.mean(-1), y.var(-1, correction=0)]


@fact("ch04-10", "0.000000", origin=ARITHMETIC)
def gelu() -> float:
    """GELU: largest difference from ½x(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    x = np.linspace(-3, 3, 100, dtype=np.float32)
    formula = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return float(np.abs(GELU()(Tensor(x)).data - formula).max())


# ---- the shortcut experiment -----------------------------------------------------------------------------------------


def gradients(shortcut: bool) -> list[float]:
    """Seed 123: the mean absolute gradient of each of five layers, 3-3-3-3-3-1, each with a GELU.

    With shortcuts, a layer's input is added to its output, where both have the same size.
    """
    rng = Generator(123)
    sizes = [3, 3, 3, 3, 3, 1]
    layers = [Sequential(Linear(n, m, rng=rng), GELU()) for n, m in itertools.pairwise(sizes)]
    x = Tensor(np.array([[1.0, 0.0, -1.0]], np.float32))
    for layer in layers:
        y = layer(x)
        x = x + y if shortcut and x.shape == y.shape else y
    F.mse_loss(x, np.zeros((1, 1), np.float32)).backward()
    weights = [next(layer.parameters()) for layer in layers]
    return [float(abs(weight.grad).mean()) for weight in weights if weight.grad is not None]


@fact("ch04-08", "2.0173587836e-4 1.2011159561e-4 7.1520399069e-4 1.3988736318e-3 5.0496454351e-3", relative=2e-6)
def gradients_without_shortcuts() -> list[float]:
    """Seed 123; mean |gradient| of five layers with GELU, without shortcuts, the first layer first."""
    return gradients(shortcut=False)


# ---- sizes -----------------------------------------------------------------------------------------------------------


@fact("ch04-11", "4,722,432 2,360,064")
def parts() -> list[int]:
    """Parameters of the feed-forward part, and of attention without QKV bias."""
    rng = Generator(0)
    return [MLP(book_config(), rng).num_parameters(), MultiHeadAttention(768, 12, 0.1, False, rng=rng).num_parameters()]


def sizes(config: GPTConfig) -> list[float]:
    """Parameters, parameters with a tied head, and megabytes of float32."""
    total = config.num_parameters
    return [total, total - config.vocab_size * config.n_embd, total * 4 / 2**20]


@fact("ch04-13", "163,009,536 124,412,160 621.83")
def small() -> list[float]:
    """GPT-2 small: parameters, with a tied head, megabytes."""
    return sizes(book_config())


@fact(
    "ch04-14", "406,212,608 354,749,440 1549.58 / 838,220,800 773,891,840 3197.56 / 1,637,792,000 1,557,380,800 6247.68"
)
def larger() -> list[list[float]]:
    """The same of the three larger sizes."""
    larger_ones = [(1024, 24, 16), (1280, 36, 20), (1600, 48, 25)]
    return [sizes(book_config(n_embd=C, n_layer=layers, n_head=H)) for C, layers, H in larger_ones]


@fact("ch04-19", "5.1e+11 1.4e+12 3.2e+12 6.4e+12", origin=NOTEBOOK)
def operations() -> list[float]:
    """Operations of the linear layers for 2 · 1024 tokens, the four sizes."""
    widths = [(768, 12, 12), (1024, 24, 16), (1280, 36, 20), (1600, 48, 25)]
    configs = [book_config(n_embd=C, n_layer=layers, n_head=H) for C, layers, H in widths]
    # A linear layer multiplies each token by each of its weights once, and adds.
    return [2.0 * 2 * 1024 * sum(math.prod(shape) for _, shape in matrices(config)) for config in configs]


def matrices(config: GPTConfig) -> list[tuple[str, tuple[int, ...]]]:
    """The names and shapes, (out, in), of the weights of all linear layers."""
    embeddings = ("transformer.wte.weight", "transformer.wpe.weight")
    return [(name, shape) for name, shape in config.shapes() if len(shape) == 2 and name not in embeddings]


# ---- the whole model -------------------------------------------------------------------------------------------------


@fact(
    "ch04-03",
    "-1.2034 0.3201 -0.7130 -1.5548 -0.2390 -0.4667 / -0.1192 0.4539 -0.4432 0.2392 1.3469 1.2430 / "
    "0.5307 1.6720 -0.4695 1.1966 0.0111 0.5835 / 0.0139 1.6754 -0.3388 1.1586 -0.0435 -1.0400 / "
    "-1.0908 0.1798 -0.9484 -1.6047 0.2439 -0.4530 / -0.7860 0.5581 -0.0610 0.4835 -0.0077 1.6621 / "
    "0.3567 1.2698 -0.6398 -0.0162 -0.1296 0.3717 / -0.2407 -0.7349 -0.5102 2.0057 -0.3694 0.1814",
    tier="large",
    units=0.6,
)
def model_without_blocks() -> Tensor:
    """Seed 123; a model without blocks, with dropout 0.1; the first and last logits of each position."""
    rng = Generator(123)
    tokens, positions = Embedding(50257, 768, rng=rng), Embedding(1024, 768, rng=rng)
    dropout, head = Dropout(0.1, rng=rng), Linear(768, 50257, bias=False, rng=rng)
    with no_grad():
        return corners(head(dropout(tokens(prompt_ids()) + positions(np.arange(4)))))


@cache
def untrained_gpt() -> tuple[GPT, dict[str, Any]]:
    """Seed 123: the model of 163 million parameters, and the state of its generator after drawing them."""
    rng = Generator(123)
    return GPT(book_config(), rng), rng.get_state()


@fact(
    "ch04-12",
    "0.3613 0.4222 -0.0711 0.3483 0.4661 -0.2838 / -0.1792 -0.5660 -0.9485 0.0477 0.5181 -0.3168 / "
    "0.7120 0.0332 0.1085 0.1018 -0.4327 -0.2553 / -1.0076 0.3418 -0.1190 0.7195 0.4023 0.0532 / "
    "-0.2564 0.0900 0.0335 0.2659 0.4454 -0.6806 / 0.1230 0.3653 -0.2074 0.7705 0.2710 0.2246 / "
    "1.0558 1.0318 -0.2800 0.6936 0.3205 -0.3178 / -0.1565 0.3926 0.3288 1.2630 -0.1858 0.0388",
    tier="large",
    units=0.6,
)
def logits() -> Tensor:
    """Seed 123; the whole model, with dropout 0.1; the first and last logits of each position."""
    model, state = untrained_gpt()
    model.transformer.drop.rng.set_state(state)  # all dropout of the model draws from this generator
    model.train()
    with no_grad():
        return corners(model(prompt_ids()))


@fact("ch04-15", "15496 11 314 716")
def greeting() -> list[int]:
    """The ids of a greeting."""
    return gpt2().encode("Hello, I am")


@fact("ch04-18", "0", origin=NOTEBOOK, tier="slow")
def cached_and_uncached() -> int:
    """Seed 123; greedy, 30 tokens after the greeting: how many ids differ with a cache of keys and values."""
    model, _ = untrained_gpt()
    model.eval()
    cached, uncached = (model.generate(greeting(), 30, temperature=0, use_cache=use) for use in (True, False))
    return int((np.asarray(cached) != np.asarray(uncached)).sum())
