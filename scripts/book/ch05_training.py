"""Chapter 5: training a GPT, and choosing its words. Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    tinygrad-llm download the-verdict
    python scripts/book/ch05_training.py          in about ten seconds, with a small model
    python scripts/book/ch05_training.py --all    also the book's model of 163 million parameters: half an hour or more

Each step prints the book's numbers beside its own. A training loop for real use is tinygrad_llm/training/loop.py.
"""

# %% A text, and a model that knows nothing
import math

import numpy as np

from tinygrad_llm import GPT, Generator, Tensor
from tinygrad_llm import functional as F
from tinygrad_llm.optim import AdamW
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ch05 import INPUTS, PROMPT, TARGETS, V
from tinygrad_llm.study.book.lesson import bars, beside, need
from tinygrad_llm.study.book.material import gpt2, mean_loss, verdict, verdict_ids, verdict_loaders

need("the-verdict")
tokenizer = gpt2()
rng = Generator(123)
model = GPT(book_config(block_size=12, n_embd=32, n_head=4, n_layer=2), rng)

# %% How good is a guess?
# After each token, the model gives every token of the vocabulary a probability. A good model gives much to the token
# that comes. The loss is −ln of that probability, on average: 0 if the model is sure and right.
logits = model.eval()(INPUTS)  # (B, T) = (2, 3) → (B, T, V) = (2, 3, 50257)
probabilities = logits.softmax(-1).gather(-1, TARGETS[..., None])  # those of the targets
loss = -probabilities.log().mean()
print("probabilities of the right tokens", " ".join(f"{p:.0e}" for p in probabilities.flatten(0).data))
print(f"loss {loss.item():.4f}, and as one operation {F.cross_entropy(logits.flatten(0, 1), TARGETS.reshape(-1)):.4f}")
print(f"blind guessing costs ln 50257 = {math.log(50257):.4f}")
print(f"perplexity, exp(loss): as unsure as among {math.exp(loss.item()):,.0f} tokens\n")
# The book does this with the model of 163 million parameters.
for id in ("ch05-02", "ch05-03", "ch05-04", "ch05-06"):
    beside(id)

# %% A part to learn from, and a part to be tested with
beside("ch05-07", len(verdict()), len(verdict_ids()))
beside("ch05-08")
beside("ch05-09")  # the shuffled order of the windows
beside("ch05-10")  # the large model's losses before training

# %% Training: four lines, again and again
# Forward, backward, a step of the optimizer; and now and then a look at both losses. `material.train` has the same
# loop. Each look draws a new order of the batches from the same stream, so even the number of looks changes all that
# follows.
model.train()
optimizer = AdamW(model.parameters(), lr=5e-4, weight_decay=0.1)
loaders = verdict_loaders(rng, block_size=12)
log = []
for step, (x, y) in enumerate(loaders.train):
    optimizer.zero_grad()
    model.loss(x, y).backward()
    optimizer.step()
    if step % 5 == 0:
        log.append([mean_loss(model, loader, 1) for loader in loaders])
beside("ch05-24", len(log))
beside("ch05-25", log[:6], log[-2:], len(log), model.num_parameters())
bars([f"step {5 * i}" for i in range(0, 39, 4)], [train for train, _ in log[::4]], low=6, high=12)

# %% The book's training: 10 passes of 9 steps
# The losses, the text after the first pass and at the end, and a pass more after saving and loading.
for id in ("ch05-11", "ch05-12", "ch05-12+", "ch05-20", "ch05-30"):
    beside(id)

# %% Choosing the next token: not always the likeliest
# Nine words and their logits, after "every effort moves you". A draw by probability gives different texts each time.
words = ["closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you"]
beside("ch05-13", V.argmax(), Generator(123).multinomial(Tensor(V).softmax(-1).data))


def thousand(temperature):
    """How often each word comes in 1000 draws."""
    p = Tensor(V / np.float32(temperature)).softmax(-1).data
    rng = Generator(123)
    return np.bincount([int(rng.multinomial(p)[0]) for _ in range(1000)], minlength=len(V))


# %% Temperature: divide the logits before softmax
# Below 1, the likeliest gets likelier; above 1, all get more alike.
beside("ch05-14", thousand(1.0))
beside("ch05-15", thousand(0.1))
beside("ch05-17", Tensor(V / 5).softmax(-1)[6])  # exercise 5.1: pizza, at temperature 5
print("temp.", "".join(f"{word:>8}" for word in words))
for temperature in (0.1, 1, 5):
    p = Tensor(V / np.float32(temperature)).softmax(-1).data
    print(f"{temperature:>5}", "".join(f"{x:8.3f}" for x in p))
print()

# %% Top-k: only among the best
# All other logits become −∞, so their probability is exactly 0.
best = np.argsort(-V)[:3]
kept = np.full_like(V, -np.inf)
kept[best] = V[best]
beside("ch05-18", V[best], best, Tensor(kept).softmax(-1))
ids = model.generate(tokenizer.encode(PROMPT), 8, temperature=1.4, top_k=25, rng=Generator(123))
print("the small model, which has read the story once:", repr(tokenizer.decode(ids)[len(PROMPT) :]), "\n")
# The book's model, after ten passes:
beside("ch05-19")

# %% OpenAI's weights
# `GPT.from_pretrained` reads them.
for id in ("ch05-29", "ch05-21", "ch05-22", "ch05-23", "ch05-27", "ch05-28"):
    beside(id)
