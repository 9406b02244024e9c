"""Chapter 4: a GPT, built from its parts. Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    python scripts/book/ch04_gpt.py          the parts, and a small model
    python scripts/book/ch04_gpt.py --all    also the model of 163 million parameters: 0.7 GB of memory

Each step prints the book's numbers beside its own. The finished model is tinygrad_llm/models/gpt.py.
With --pictures FOLDER, pictures are saved as PNG files, too.

Shapes: B texts, T tokens, C channels, V words in the vocabulary.
"""

# %% Text in, numbers out
import itertools

import numpy as np

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor, Tokenizer
from tinygrad_llm import functional as F
from tinygrad_llm.models.gpt import MLP, Block
from tinygrad_llm.nn import GELU, LayerNorm, Linear, MultiHeadAttention, Sequential
from tinygrad_llm.study.book.ch04 import PROMPTS, book_config
from tinygrad_llm.study.book.lesson import bars, beside

tokenizer = Tokenizer.gpt2()
ids = np.array([tokenizer.encode(text) for text in PROMPTS])  # (B, T) = (2, 4)
beside("ch04-02", ids)
# The book's model differs from GPT-2 in four settings: its head is a matrix of its own, the queries, keys and values
# have no bias, dropout is 0.1, and the first weights are PyTorch's.
for name, value in vars(book_config()).items():
    if value != getattr(GPTConfig(), name):
        print(f"  {name:<18} the book: {value!s:<6} GPT-2: {getattr(GPTConfig(), name)}")
print()

# %% Layer normalization, step by step
# A layer works best if its inputs have mean 0 and variance 1, whatever came before. Here is a layer whose outputs have
# other means and variances in each row.
rng = Generator(123)
rows = Tensor(rng.randn((2, 5)))
x = Linear(5, 6, rng=rng)(rows).relu()  # (2, 6)
beside("ch04-04", x)
mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True)  # (2, 1) each
beside("ch04-05", mean, variance)
# Subtract the mean, divide by the root of the variance: done.
normal = (x - mean) / variance.sqrt()
beside("ch04-06", normal, normal.mean(-1), normal.var(-1))

# %% Layer normalization as a module
# Two details differ. It divides by n, not by n − 1, in the variance; and it adds 0.00001 to it, so that a row of equal
# numbers does not divide by 0. So the variance comes out a little below 1. A weight and a bias, which are learned,
# let the model undo it all where that helps.
y = LayerNorm(6)(x)
beside("ch04-07", y.mean(-1), y.var(-1, correction=0))

# %% GELU, a bend without a corner
# ReLU is 0 for all negative numbers, and so is its gradient. GELU lets small negative numbers through.
points = Tensor(np.array([-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3], np.float32))
for name, values in (("x", points), ("ReLU", points.relu()), ("GELU", GELU()(points))):
    print(f"  {name:<5}" + "".join(f"{value:7.3f}" for value in values.data))
print()
beside("ch04-10")

# %% The feed-forward part: four times as wide inside
# It transforms each token by itself: C → 4C → GELU → C.
config, rng = book_config(), Generator(123)
mlp = MLP(config, rng)
attention = MultiHeadAttention(768, 12, 0.1, False, rng=rng)
beside("ch04-11", mlp.num_parameters(), attention.num_parameters())
assert mlp.num_parameters() == (768 * 3072 + 3072) + (3072 * 768 + 768)

# %% The shortcut experiment: why a deep network needs a way around each layer
# Five small layers, each with a GELU. With shortcuts, a layer's input is added to its output, wherever both have the
# same size. How large is the gradient of each weight?


def gradients(shortcut):
    """The mean absolute gradient of the weight of each layer."""
    rng = Generator(123)  # both networks start with the same weights
    sizes = [3, 3, 3, 3, 3, 1]
    layers = [Sequential(Linear(n, m, rng=rng), GELU()) for n, m in itertools.pairwise(sizes)]
    x = Tensor(np.array([[1.0, 0.0, -1.0]], np.float32))
    for layer in layers:
        y = layer(x)
        x = x + y if shortcut and x.shape == y.shape else y
    loss = F.mse_loss(x, np.zeros((1, 1), np.float32))  # how far the output is from 0
    loss.backward()
    return [abs(layer[0].weight.grad).mean() for layer in layers]


names = [f"layer {i}" for i in range(5)]
without = gradients(shortcut=False)
print("without shortcuts: the nearer to the input, the less gradient is left")
bars(names, without, low=1e-5, high=10)
beside("ch04-08", without)

# %% With shortcuts
with_them = gradients(shortcut=True)
print("with shortcuts: the first layer has as much gradient as the others")
bars(names, with_them, low=1e-5, high=10)
print(f"the first layer's gradient is {with_them[0] / without[0]:,.0f} times as large\n")
# Why: d(x + f(x))/dx = 1 + f'(x). The 1 passes the whole gradient on to the layers below, even where f' is small.

# %% The block: attention mixes tokens, the feed-forward part transforms each
# Both normalize their input first, and both add their output to the stream that they read: two shortcuts.
block = Block(config, rng)
x = Tensor(rng.rand((2, 4, 768)))  # (B, T, C)
beside("ch04-01", block.mlp(x[:, :3]).shape, block(x).shape)

# %% How large is the whole?
# Counted without making the models: shapes are enough.
beside("ch04-13")
beside("ch04-14")
beside("ch04-19")

# %% A small GPT, whole
# Token vectors plus position vectors, blocks one after another, a last normalization, and a head that scores each of
# the V tokens. These scores, the logits, are what all the rest is for.
small = GPT(book_config(n_layer=2, n_head=2, n_embd=32), Generator(123)).eval()
logits = small(ids)  # (B, T) → (B, T, V)
print("logits", logits.shape, "  parameters", f"{small.num_parameters():,}\n")

# %% Generating text: the likeliest token, again and again
beside("ch04-15", start := tokenizer.encode("Hello, I am"))
text = start
for _ in range(6):
    scores = small(np.array([text])).data[0, -1]  # (V,): of the last position alone
    text = [*text, int(scores.argmax())]
print(repr(tokenizer.decode(text)), "\nis nonsense, because the model is not trained yet.")
# `generate` does the same, and keeps the keys and values of earlier tokens in place of computing them again.
assert list(small.generate(start, 6, temperature=0)) == text

# %% The model of 163 million parameters
# The book prints these logits while dropout is active, so even its masks must come out the same.
beside("ch04-03")
beside("ch04-12")
beside("ch04-18")  # greedy text with and without a cache of keys and values
