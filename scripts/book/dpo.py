"""Preferences (a bonus of chapter 7): of two answers, make the better one likelier. Run all, or cell by cell (# %%).

    python scripts/book/dpo.py

Each step prints the book's numbers beside its own. A command does it all: `tinygrad-llm finetune prefer --help`.
"""

# %% The probability of an answer
# The logarithm of a text's probability is the sum over its tokens. Cross-entropy is its negative mean: pick the
# log-probability of each target, and average.
import math

import numpy as np

from tinygrad_llm import GPT, Generator, Tensor
from tinygrad_llm import functional as F
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.lesson import beside

logits, targets = Tensor(np.array([[2.0, 1.0, 0.1], [0.5, 2.5, 0.3]], np.float32)), np.array([0, 2])
picked = logits.log_softmax(-1).gather(-1, targets[:, None])  # (2, 1)
beside("dpo-01", -picked.mean(), F.cross_entropy(logits, targets))
beside("dpo-02")  # what `gather` does

# %% The loss
# Two models: the policy is trained, the reference stays. The margin says by how much more the policy prefers the
# chosen answer than the reference does; the loss −ln σ(β · margin) rewards a larger one.
beta = 0.1
for margin in (-20, 0, 20):
    z = beta * margin
    print(f"  margin {margin:>4} nats: loss {math.log1p(math.exp(-z)):.4f}, slope {-beta / (1 + math.exp(z)):+.4f}")
print()

# %% Before training, policy and reference are the same
# The margin is 0, so the loss is ln 2, for every model and every text.
model = GPT(book_config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=8), Generator(123)).eval()
ids = np.arange(12).reshape(2, 6)
chosen, rejected = (model.log_probs(row[None, :-1], row[None, 1:]).detach() for row in ids)
loss, margin = F.dpo_loss(chosen, rejected, chosen.data, rejected.data, beta=beta)
beside("dpo-06", loss, chosen - chosen.data, rejected - rejected.data)

# %% The data: instructions with two answers each
# Only the answer counts: prompt and padding are masked. Both answers of a batch get one common length.
beside("dpo-03")
beside("dpo-04")

# %% Training on them: the tuned model of chapter 7
# The margin of the rewards grows, and the loss falls below ln 2.
beside("dpo-07")
