"""A GPT on one page: a language model, its gradient, its training and its writing, in NumPy alone.

    python scripts/one_page.py               learn to write children's stories (from data/stories.txt)
    python scripts/one_page.py names.txt     learn from your own file: names, one per line, or any other text

A GPT reads a text and guesses the next character. The guess depends on about 100,000 numbers, the parameters, which
are random at first. Training repeats four steps. Guess. Measure how wrong the guess was: the loss. Compute how the loss
changes with each parameter: the gradient. Move each parameter a little, in the direction in which the loss falls.

Sizes: B texts are read at a time, T characters of each. Inside the model, each character is C numbers. H attention
heads share these, D = C / H numbers each. V is the number of different characters.
"""
import argparse
import math
import os
import sys
import textwrap
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # with matrices this small, threads mostly wait for each other
import numpy as np

B, T, C, H, LAYERS = 8, 48, 64, 4, 2

# ---- 1. The tape: every operation notes its result, its inputs, and how a gradient passes from one to the other. -----

tape = []  # one (result, [(input, rule), ...]) per operation, in the order of computing
def record(array, *rules):
    """Note an operation. Each of its rules turns g, the gradient of the result, into the gradient of one input."""
    result = Tensor(array)
    tape.append((result, rules))
    return result

def backward(loss):
    """The chain rule: walk the tape from its end to its start, and pass every gradient on to the inputs."""
    loss.grad = np.ones_like(loss.data)  # the loss changes one to one with itself
    while tape:
        result, rules = tape.pop()
        for x, rule in rules:
            g = rule(result.grad)
            g = g.sum(axis=tuple(range(g.ndim - x.data.ndim)))  # NumPy used x several times (one matrix for B texts)
            x.grad = x.grad + g  # the model used x several times: each use adds its gradient

class Tensor:
    """An array, and the gradient of the loss with respect to it. Four operations are all the algebra of a GPT."""
    def __init__(self, data):
        self.data, self.grad = data, 0.0

    def __add__(self, other):
        return record(self.data + other.data, (self, lambda g: g), (other, lambda g: g))

    def __matmul__(self, other):  # a product of matrices; with more than two axes, of the matrices in the last two
        x, y = self.data, other.data
        return record(x @ y, (self, lambda g: g @ y.swapaxes(-1, -2)), (other, lambda g: x.swapaxes(-1, -2) @ g))

    def swapaxes(self, i, j):
        return record(self.data.swapaxes(i, j), (self, lambda g: g.swapaxes(i, j)))

    def reshape(self, *shape):
        return record(self.data.reshape(shape), (self, lambda g: g.reshape(self.data.shape)))

# ---- 2. Four functions, each with its derivative. --------------------------------------------------------------------

def gelu(x):
    """A smooth bend: about 0 for negative numbers, about x for positive. Without a bend, two layers equal one."""
    a, k = x.data, math.sqrt(2 / math.pi)
    t = np.tanh(k * (a + 0.044715 * a * a * a))
    slope = 0.5 * (1 + t) + 0.5 * a * (1 - t * t) * k * (1 + 3 * 0.044715 * a * a)  # product rule; tanh' = 1 − tanh²
    return record(0.5 * a * (1 + t), (x, lambda g: g * slope))

def normalize(x):
    """Shift and scale the C numbers of each character to mean 0 and variance 1, so that no layer sees extremes."""
    def mean(a): return a.mean(-1, keepdims=True)
    centered = x.data - mean(x.data)
    scale = 1 / np.sqrt(mean(centered * centered) + 1e-5)
    y = centered * scale  # each number also moves the mean and the variance of its row: the two terms subtracted below
    return record(y, (x, lambda g: scale * (g - mean(g) - y * mean(g * y))))

def causal_softmax(x, scale):
    """Scores (..., T, T) become weights: each row sums to 1, and characters further right have weight 0."""
    scores = np.where(np.tri(x.data.shape[-1]), x.data * scale, -np.inf)  # np.tri is 1 up to the diagonal, then 0
    e = np.exp(scores - scores.max(-1, keepdims=True))  # the shift cancels below, and keeps exp from overflowing
    y = e / e.sum(-1, keepdims=True)
    return record(y, (x, lambda g: scale * y * (g - (g * y).sum(-1, keepdims=True))))

def cross_entropy(x, targets):
    """The loss: −log of the probability of the right character, on average. Blind guessing costs log V."""
    shifted = x.data - x.data.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    right = one_hot(targets, x.data.shape[-1])
    loss = -(log_probs * right).sum() / targets.size
    return record(loss, (x, lambda g: g * (np.exp(log_probs) - right) / targets.size))  # the guess minus the truth

def one_hot(ids, n):
    """Each id as n numbers: 1 at its own place, 0 elsewhere. Times a matrix, this picks the row with that number."""
    return (ids[..., None] == np.arange(n)).astype(np.float32)

# ---- 3. The model: GPT-2 on a small scale. Its parameters are matrices; biases and scales are left out. --------------

def initialize(V, rng):
    """All parameters by name, as small random numbers."""
    shapes = {"wte": (V, C), "wpe": (T, C)}  # C numbers for each character, and C for each position
    for i in range(LAYERS):
        shapes |= {f"{i}.{name}": (C, C) for name in ("query", "key", "value", "out")}
        shapes |= {f"{i}.up": (C, 4 * C), f"{i}.down": (4 * C, C)}
    return {name: Tensor(rng.normal(0, 0.08, shape).astype(np.float32)) for name, shape in shapes.items()}

def gpt(p, ids):
    """Characters (B, T) become logits (B, T, V): at each place, a score for every character that may come next."""
    x = Tensor(one_hot(ids, len(p["wte"].data))) @ p["wte"]  # (B, T, C): what each character is
    x = x + Tensor(one_hot(np.arange(ids.shape[1]), T)) @ p["wpe"]  # and where it stands
    for i in range(LAYERS):  # x is like a notebook: each part reads all of it, and adds what it found
        x = x + attention(normalize(x), *(p[f"{i}.{name}"] for name in ("query", "key", "value", "out")))
        x = x + gelu(normalize(x) @ p[f"{i}.up"]) @ p[f"{i}.down"]  # work on what each character has gathered
    return normalize(x) @ p["wte"].swapaxes(0, 1)  # which character is x most like?

def attention(x, query, key, value, out):
    """Each character looks back: the better its query fits an earlier one's key, the more of that value it takes."""
    b, t, _ = x.data.shape
    q, k, v = ((x @ w).reshape(b, t, H, C // H).swapaxes(1, 2) for w in (query, key, value))  # (B, H, T, D) each
    weights = causal_softmax(q @ k.swapaxes(2, 3), 1 / math.sqrt(C // H))  # (B, H, T, T): who looks at whom
    return (weights @ v).swapaxes(1, 2).reshape(b, t, C) @ out  # the heads side by side, then mixed

# ---- 4. Training and writing. ----------------------------------------------------------------------------------------

def train_step(p, moments, step, ids, targets, lr):
    """Guess, measure, compute the gradient, move. Returns the loss."""
    loss = cross_entropy(gpt(p, ids), targets)
    backward(loss)
    adamw(p, moments, step, lr)
    return float(loss.data)

def adamw(p, moments, step, lr, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1):
    """Move each parameter against m, the recent mean of its gradient, divided by √v, the gradient's usual size."""
    for name, x in p.items():
        m, v = moments.get(name, (0.0, 0.0))
        m = beta1 * m + (1 - beta1) * x.grad
        v = beta2 * v + (1 - beta2) * x.grad * x.grad
        moments[name] = m, v
        m, v = m / (1 - beta1**step), v / (1 - beta2**step)  # both start at 0, so the first means are too small
        x.data = x.data * (1 - lr * decay) - lr * m / (np.sqrt(v) + eps)
        x.grad = 0.0

def write(p, chars, length, rng, temperature=0.7):
    """Draw one character after another, with the probabilities that the model gives; begin at the start of a line."""
    ids = [chars.index("\n")]
    for _ in range(length):
        logits = gpt(p, np.array([ids[-T:]])).data[0, -1].astype(float)  # only the guess at the last place counts
        tape.clear()  # nothing is learned here
        probs = np.exp((logits - logits.max()) / temperature)  # below 1, likely characters become even more likely
        ids.append(int(rng.choice(len(chars), p=probs / probs.sum())))
    return "".join(chars[i] for i in ids[1:])

def main():
    parser = argparse.ArgumentParser(description="Train a small GPT on a text, and let it write.")
    stories = Path(__file__).resolve().parents[1] / "data" / "stories.txt"
    parser.add_argument("file", nargs="?", type=Path, default=stories, help="a UTF-8 text (default: data/stories.txt)")
    parser.add_argument("--steps", type=int, default=1200, help="how long to train (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other numbers (default: %(default)s)")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    try:
        text = "\n" + args.file.read_text(encoding="utf-8").replace("<|endoftext|>\n", "")
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"{args.file}: {getattr(error, 'strerror', None) or error}")
    if len(text) <= T:
        parser.error(f"{args.file}: got {len(text) - 1} characters, give at least {T}")
    if args.steps < 1:
        parser.error(f"--steps: got {args.steps}, give at least 1")
    if args.seed < 0:
        parser.error(f"--seed: got {args.seed}, give at least 0")
    chars = sorted(set(text))  # a character's place in this list is its id
    ids = np.searchsorted(chars, list(text))
    rng = np.random.default_rng(args.seed)
    p, moments = initialize(len(chars), rng), {}
    print(f"{sum(x.data.size for x in p.values()):,} parameters; blind guessing costs {math.log(len(chars)):.2f}")
    for step in range(1, args.steps + 1):
        windows = ids[rng.integers(0, len(ids) - T, (B, 1)) + np.arange(T + 1)]  # B texts, each from a random place
        lr = 0.004 * (1 - step / (args.steps + 1))  # smaller and smaller moves
        loss = train_step(p, moments, step, windows[:, :-1], windows[:, 1:], lr)  # the target: the next character
        if step == 1 or step % max(1, args.steps // 10) == 0:
            print(f"step {step:4}  loss {loss:.2f}  {write(p, chars, 40, rng)!r}", flush=True)
    print("\n" + "\n".join(textwrap.fill(line, 80) for line in write(p, chars, 500, rng).split("\n")))

if __name__ == "__main__":
    main()
