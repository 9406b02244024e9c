"""Chapter 3: attention as a staircase, one idea a step. Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    python scripts/book/ch03_attention.py

Each step prints the book's numbers beside its own. The finished modules are in tinygrad_llm/nn/attention_steps.py.
With --pictures FOLDER, pictures are saved as PNG files, too.

Shapes: T = 6 tokens; each token is a vector of C = 3 numbers (channels). Rows are tokens.
"""

# %% Step 0. A text of six tokens, as six vectors
import math

import numpy as np

from tinygrad_llm import Generator, Tensor
from tinygrad_llm import functional as F
from tinygrad_llm.nn import Dropout, Linear, MultiHeadAttention
from tinygrad_llm.nn.attention_steps import CausalAttention, MultiHeadWrapper, SelfAttention
from tinygrad_llm.study.book.ch03 import X
from tinygrad_llm.study.book.lesson import beside, shades

words = ["Your", "journey", "starts", "with", "one", "step"]
print(X)  # (T, C) = (6, 3): the book's vectors

# %% Step 1. How similar are two tokens? Their dot product says so
# "journey" asks. Its vector is the query, and the dot product with each token is a score: large for vectors that point
# the same way.
query = X[1]  # (3,)
scores = X @ query  # (6, 3) @ (3,) → (6,)
beside("ch03-01", scores, X[0] @ query)

# %% Step 2. Scores become weights that sum to 1
# Dividing by the sum would do, as long as no score is negative ...
beside("ch03-02", scores / scores.sum())
# ... but softmax always gives weights above 0: it takes exp of each score first.
weights = scores.softmax(-1)  # (6,)
beside("ch03-03", weights)

# %% Step 3. The context vector is a mixture of all tokens
# This is the output of attention for "journey": 14 % of the first token, 24 % of the second, and so on.
context = weights @ X  # (6,) @ (6, 3) → (3,)
beside("ch03-04", context)

# %% Step 4. All six queries at once: one matrix product in place of a loop
scores = X @ X.T  # (6, 3) @ (3, 6) → (6, 6); row = query, column = key
beside("ch03-05", scores)
weights = scores.softmax(-1)  # each row sums to 1
beside("ch03-06", weights)
beside("ch03-07", weights @ X)  # (6, 6) @ (6, 3) → (6, 3)
# Dark: much weight. Without learned matrices, the picture is all that the vectors themselves can say.
shades(weights, words)

# %% Step 5. Learned matrices: what a token looks for, offers, and passes on
# Three matrices turn each token into a query, a key and a value. Training will change them; here they are random, in
# the book's order, from the stream that `torch.manual_seed(123)` starts.
rng = Generator(123)
W_query, W_key, W_value = (Tensor(rng.rand((3, 2))) for _ in range(3))  # (d_in, d_out) each
query = X[1] @ W_query  # (2,)
beside("ch03-08", query)
keys, values = X @ W_key, X @ W_value  # (6, 2) each
scores = query @ keys.T  # (6,)
beside("ch03-09", query @ keys[1], scores)

# %% Step 6. Why the scores are divided by √d
# A dot product of d random terms grows as √d. Large scores make softmax choose one token with weight 1, and then its
# gradient is almost 0. Divided by √d, scores stay near 1 for every d.
d = keys.shape[-1]
weights = (scores / math.sqrt(d)).softmax(-1)
beside("ch03-10", weights, weights @ values)
for size in (2, 64, 1024):
    rng = Generator(0)
    many, long_keys = (Tensor(rng.randn((n, size))) for n in (500, 6))  # 500 random queries, 6 random keys
    raw = many @ long_keys.T  # (500, 6)
    plain, divided = (s.softmax(-1).max(-1)[0].mean().item() for s in (raw, raw / math.sqrt(size)))
    print(f"d = {size:<5} the largest of 6 weights, on average: {plain:.2f}; after the division: {divided:.2f}")
print()

# %% Step 7. The whole of it is three lines
q, k, v = X @ W_query, X @ W_key, X @ W_value
weights = (q @ k.T / math.sqrt(d)).softmax(-1)  # (6, 6)
beside("ch03-11", weights @ v)

# %% Step 8. Linear layers in place of bare matrices
# A Linear layer holds its weight transposed, (d_out, d_in), and starts with smaller numbers of both signs, with which
# training goes better. `SelfAttention` is Step 7 with three of them.
attention = SelfAttention(3, 2, rng=Generator(789))
beside("ch03-12", attention(X))
# Exercise 3.1: the same weights, transposed, give the same result in Step 7.
beside("ch03-22")

# %% Step 9. No looking ahead: the causal mask
# A language model predicts the next token, so no token may see a later one. First idea: cut the weights above the
# diagonal, and divide each row by its new sum.
weights = attention.scores(X).softmax(-1)  # (6, 6)
cut = weights.tril()
beside("ch03-14", cut / cut.sum(-1, keepdim=True))
shades(cut / cut.sum(-1, keepdim=True), words)

# %% Step 10. The same in one step: a score of −∞
# exp(−∞) is 0. So mask the scores before softmax, and each row sums to 1 at once.
later = ~np.tri(6, dtype=bool)  # True where the key comes after the query
scores = attention.scores(X) * math.sqrt(2)  # the book prints them before the division by √2
masked = scores.masked_fill(later, -math.inf)
causal = (masked / math.sqrt(2)).softmax(-1)
beside("ch03-15", masked[~later], causal[~later])  # both without the upper triangle
print(f"both ways differ by {abs(causal - cut / cut.sum(-1, keepdim=True)).max().item():.1e}\n")

# %% Step 11. Dropout of weights
# While training, each weight is set to 0 with probability p, and the others are divided by 1 − p, so that the mean
# stays the same. No token can then rely on a single other one. Here p is a half: what is kept is doubled.
beside("ch03-16", Dropout(0.5, rng=Generator(123))(Tensor(np.ones((6, 6), np.float32))))
beside("ch03-17", Dropout(0.5, rng=Generator(123))(causal))

# %% Step 12. A module for batches
# Two texts at once: (B, T, C) = (2, 6, 3). Matrix products work on the last two axes, so nothing else changes.
batch = F.stack([X, X])
attention = CausalAttention(3, 2, context_length=6, dropout=0.0, rng=Generator(123))
beside("ch03-18", attention(batch), attention(batch).shape)

# %% Step 13. Several heads, side by side
# Each head has its own three matrices, so each can look for something else. Their outputs stand next to each other.
heads = MultiHeadWrapper(3, 2, context_length=6, dropout=0.0, num_heads=2, rng=Generator(123))
beside("ch03-19", heads(batch), heads(batch).shape)

# %% Step 14. All heads in one product
# The loop over heads is slow. The matrices of all heads, stacked, give all queries at once: (B, T, H · D). Reshaped to
# (B, H, T, D), one batched product computes the scores of every head.
A = Tensor(Generator(0).rand((1, 2, 3, 4)))  # (B, H, T, D)
per_head = [A[0, h] @ A[0, h].T for h in range(2)]
print("one batched product equals a loop over heads:", np.allclose((A @ A.mT)[0].data, F.stack(per_head).data))
beside("ch03-21")
together = heads.as_multi_head(rng=Generator(0))  # the same matrices in one module
print(f"two heads in one module: largest difference {abs(together(batch) - heads(batch)).max().item():.1e}\n")

# %% Step 15. Multi-head attention, as GPT-2 has it
# The last idea: an output layer mixes the heads. The heads share the d_out channels here, so each has only 1.
attention = MultiHeadAttention(2, n_head=2, qkv_bias=False, d_in=3, rng=Generator(123))
beside("ch03-20", attention(batch), attention(batch).shape)

# %% And the size of GPT-2's: 12 heads of 64 channels
attention = MultiHeadAttention(768, n_head=12, qkv_bias=False, rng=Generator(123))
print(f"{attention.num_parameters():,} parameters: 3 · 768² + 768² + 768 = {4 * 768**2 + 768:,}")
assert isinstance(attention.c_attn, Linear)  # queries, keys and values of all heads come from this one layer
