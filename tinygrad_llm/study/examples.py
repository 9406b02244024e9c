"""First lessons: small functions whose whole backward pass can be read number by number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm import optim
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.models.gpt import Block
from tinygrad_llm.nn import Parameter
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.text import nearest
from tinygrad_llm.study.trace import Trace, trace, trace_function


@dataclass(frozen=True)
class Example:
    """A first lesson."""

    name: str
    summary: str
    make: Callable[[Generator], Trace]


def example(name: str, seed: int = 0) -> Trace:
    """Trace a first lesson.

    Args:     seed: of its random numbers.
    Raises:   ValueError: there is none of this name; the nearest is named, or all are.
    """
    if name not in EXAMPLES:
        raise ValueError(f"no example is named {name!r}{nearest(name, EXAMPLES)}")
    return EXAMPLES[name].make(Generator(seed))


def _scalar(rng: Generator) -> Trace:
    """L = tanh(a·b + c) · a, where a is used twice."""
    a, b, c = (Parameter(np.float32(x)) for x in (0.5, -1.5, 1.0))

    def function() -> Tensor:
        product = a * b
        total = product + c
        y = total.tanh()
        L = y * a
        return L

    return trace_function(
        function,
        {"a": a, "b": b, "c": c},
        title="a scalar expression",
        intro="L = tanh(a · b + c) · a. Each operation knows only its own derivative. The chain rule multiplies them "
        "on the way back, and a, which is used twice, gets the sum of two gradients.",
        example="scalar",
    )


def _xor(rng: Generator) -> Trace:
    """A network with two layers that learns XOR, in the middle of its training."""
    x = Tensor(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32))
    target = np.array([[0], [1], [1], [0]], np.float32)
    W1, b1, W2, b2 = (Parameter(rng.randn(s, np.float32)) for s in ((3, 2), (3,), (1, 3), (1,)))

    def function() -> Tensor:
        hidden = F.linear(x, W1, b1).tanh()
        y = F.linear(hidden, W2, b2).sigmoid()
        error = y - target
        loss = (error * error).mean()
        return loss

    _learn(function, [W1, b1, W2, b2], 40, 0.05)
    return trace_function(
        function,
        {"x": x, "target": target, "W1": W1, "b1": b1, "W2": W2, "b2": b2},
        sizes={"B": 4, "in": 2, "hidden": 3, "out": 1},
        title="a network with two layers, on XOR",
        intro="Four inputs, three hidden units, one output, after 40 steps of training. Each row of a weight's "
        "gradient belongs to one unit: the sum over the four inputs of what the unit did wrong, times what it saw.",
        example="xor",
    )


def _cross_entropy(rng: Generator) -> Trace:
    """Softmax, the probability of the target, its logarithm."""
    logits = Parameter(np.round(rng.randn((3, 4), np.float32), 2))
    targets = np.array([0, 2, 1])

    def function() -> Tensor:
        probs = logits.softmax(-1)
        right = probs[np.arange(3), targets]
        logs = right.log()
        loss = -logs.mean()
        return loss

    return trace_function(
        function,
        {"logits": logits, "targets": targets},
        sizes={"B": 3, "V": 4},
        title="softmax and cross-entropy",
        intro="Three rows of four logits, and the right class of each. Step by step, the gradient looks complicated. "
        "At its end, that of the logits is simply (probabilities − one-hot of the target) / 3: compare the numbers.",
        example="cross_entropy",
    )


def _layer_norm(rng: Generator) -> Trace:
    """Layer norm in its single operations: the mean and the variance depend on every x of the row."""
    x = Tensor(np.round(rng.randn((2, 5), np.float32), 2), requires_grad=True)
    weight, bias = (Parameter(np.round(rng.randn((5,), np.float32), 2)) for _ in range(2))
    direction = np.round(rng.randn((2, 5), np.float32), 2)

    def function() -> Tensor:
        mean = x.mean(-1, keepdim=True)
        centered = x - mean
        var = (centered * centered).mean(-1, keepdim=True)
        rstd = (var + 1e-5) ** -0.5
        xhat = centered * rstd
        y = xhat * weight + bias
        L = (y * direction).sum()
        return L

    return trace_function(
        function,
        {"x": x, "weight": weight, "bias": bias, "direction": direction},
        sizes={"B": 2, "C": 5},
        title="layer norm, operation by operation",
        intro="Two rows of five channels. Each x moves its own output, the mean and the variance of its row: three "
        "paths, whose gradients are added. The sum of dx over a row is 0, because adding a number to a row changes "
        "nothing. `tinygrad-llm explain layer_norm` derives the formula that does all of this at once.",
        example="layer_norm",
    )


WORDS = ("the", "fox", "saw", "a", "hen")


def _attention(rng: Generator) -> Trace:
    """One attention head with its residual connection."""
    T, C, D = len(WORDS), 6, 4
    x = Tensor(rng.randn((T, C), np.float32), requires_grad=True)
    Wq, Wk, Wv = (Parameter(0.6 * rng.randn((D, C), np.float32)) for _ in range(3))
    Wo = Parameter(0.6 * rng.randn((C, D), np.float32))
    target = rng.randn((T, C), np.float32)
    later = ~np.tri(T, dtype=bool)

    def function() -> Tensor:
        q = F.linear(x, Wq)
        k = F.linear(x, Wk)
        v = F.linear(x, Wv)
        scores = q @ k.mT * (1 / math.sqrt(D))
        masked = scores.masked_fill(later, -math.inf)
        weights = masked.softmax(-1)
        head = weights @ v
        out = F.linear(head, Wo)
        y = x + out
        error = y - target
        loss = (error * error).mean()
        return loss

    made = trace_function(
        function,
        {"x": x, "Wq": Wq, "Wk": Wk, "Wv": Wv, "Wo": Wo, "target": target, "later": later},
        sizes={"T": T, "C": C, "D": D},
        title="one attention head",
        intro="Five words. Each looks back at those before it: its query meets their keys (scores), the mask hides "
        "what comes later, the softmax makes weights that sum to 1, and the weights mix the values. What the head "
        "found is added to x: the residual connection.",
        example="attention",
    )
    made.data["meta"]["tokens"] = [list(WORDS)]
    return made


def _block(rng: Generator) -> Trace:
    """One block of a GPT: attention and an MLP, each behind a layer norm and added to the stream."""
    T, C = len(WORDS), 8  # T is not D, so that each axis has a letter of its own
    block = Block(GPTConfig(vocab_size=2, block_size=T, n_layer=1, n_head=2, n_embd=C, initializer_range=0.3), rng)
    x = Tensor(rng.randn((1, T, C), np.float32), requires_grad=True)
    target = rng.randn((1, T, C), np.float32)

    def function() -> Tensor:
        y: Tensor = block(x, fused=False)
        error = y - target
        loss = (error * error).mean()
        return loss

    made = trace_function(
        function,
        {"x": x, "target": target},
        root=block,
        sizes={"B": 1, "T": T, "C": C, "H": 2, "D": C // 2},
        title="one block of a GPT",
        intro="x passes two residual connections: x + attention(norm(x)), then x + mlp(norm(x)). On the way back, the "
        "gradient of each sum goes past the layer unchanged and through it, and the two are added.",
        example="block",
    )
    made.data["meta"]["tokens"] = [list(WORDS)]
    return made


TEXT = "a fox and a hen and a dog and a fox and a hen "


def _one_page(rng: Generator) -> Trace:
    """The model of scripts/one_page.py in small sizes: a GPT whose matrices alone are trained."""
    characters = sorted(set(TEXT))
    ids = np.array([[characters.index(c) for c in TEXT]])
    T = 12
    model = one_page_model(len(characters), T, rng)
    starts = np.arange(ids.shape[1] - T)[:, None] + np.arange(T + 1)
    windows = ids[0][starts]
    parameters = [p for p in model.parameters() if p.requires_grad]
    _learn(lambda: model.loss(windows[:, :-1], windows[:, 1:]), parameters, 60, 0.01)
    return trace(
        model,
        windows[:1, :-1],
        windows[:1, 1:],
        decode=characters.__getitem__,
        title="the model of scripts/one_page.py",
        intro="A whole GPT that reads characters, after 60 steps on a few words: embeddings, two blocks, and a head "
        "that is the embedding itself. Watch the embedding's gradient: it is the sum of the lookup's and the head's.",
        example="one_page",
    )


def one_page_model(vocab_size: int, block_size: int, rng: Generator) -> GPT:
    """A GPT with the parameters of scripts/one_page.py: no biases, and norms that are not trained."""
    config = GPTConfig(vocab_size, block_size, 2, 2, 8, qkv_bias=False, initializer_range=0.3)
    model = GPT(config, rng=rng)
    for p in model.parameters():
        if p.ndim == 1:  # biases are 0, and the norms' scales are 1
            p.requires_grad = False
    return model


def _learn(loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int, lr: float) -> None:
    """A few steps of AdamW, so that there is something to see."""
    optimizer = optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    optimizer.zero_grad()


EXAMPLES = {
    e.name: e
    for e in (
        Example("scalar", "a scalar expression, in which one number is used twice", _scalar),
        Example("xor", "a network with two layers, on XOR", _xor),
        Example("cross_entropy", "softmax and cross-entropy, operation by operation", _cross_entropy),
        Example("layer_norm", "layer norm, operation by operation: three paths back", _layer_norm),
        Example("attention", "one attention head, with its mask and its residual connection", _attention),
        Example("block", "one block of a GPT", _block),
        Example("one_page", "the model of scripts/one_page.py: a whole GPT on characters", _one_page),
    )
}
