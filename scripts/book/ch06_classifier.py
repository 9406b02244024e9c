"""Chapter 6: a GPT that tells spam from ham. Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    tinygrad-llm download sms-spam
    python scripts/book/ch06_classifier.py          with small models
    tinygrad-llm download gpt2
    python scripts/book/ch06_classifier.py --all    with OpenAI's weights too: hours

Each step prints the book's numbers beside its own. A command does it all: `tinygrad-llm finetune classify --help`.
"""

# %% The messages
import numpy as np

from tinygrad_llm import GPT, Generator
from tinygrad_llm.models import GPTClassifier
from tinygrad_llm.nn import Linear
from tinygrad_llm.optim import AdamW
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ch06 import (
    END,
    LABELS,
    PROBE,
    accuracy,
    classification_loss,
    five_rows,
    freeze_all_but_the_end,
    loaders,
    longest,
    messages,
    numbers,
    parts,
    small_classifier,
)
from tinygrad_llm.study.book.lesson import bars, beside, need
from tinygrad_llm.study.book.material import Loaders, gpt2, train

need("sms-spam")
ham, spam = numbers("ham"), numbers("spam")
beside("ch06-01", len(messages()), len(ham), len(spam))
for row in (ham[0], spam[0]):
    print(f"  {messages()[row].label:<5} {messages()[row].text[:60]} …")
print()

# %% As many of each, shuffled, in three parts
# A model that always says "ham" would be right in 87 % of all messages. So only as much ham is kept as there is spam;
# then a blind guess is right in 50 %.
beside("ch06-03", [len(rows) for rows in parts()])
beside("ch06-03+")

# %% Messages of one length
# A batch is an array, so its rows need one length: that of the longest message. Shorter ones are padded at the end.
beside("ch06-04", length := longest())
beside("ch06-05", END)
rng = Generator(123)
three = loaders(rng, length)
ids, labels = next(iter(three.train))
beside("ch06-06", [len(loader) for loader in three], ids.shape, labels.shape)
print("the end of a row:", ids[0, -4:], "and its label:", LABELS[labels[0]], "\n")

# %% Two outputs in place of 50257
# The body of a GPT has read much, and what it knows about words is of use here too. Only the head is new: C → 2.
beside("ch06-10", gpt2().encode(PROBE))
head = Linear(768, 2, rng=Generator(123))
beside("ch06-11+", head.weight[0, :4], head.bias)
# Which position decides? Attention looks back only, so the last position alone has read the whole message.
model = small_classifier(Generator(123))
x = model.transformer(ids)  # (B, T) → (B, T, C) = (8, 120, 12)
scores = model.score(x[:, -1])  # (B, C) → (B, 2)
print("body", x.shape, "scores", scores.shape)
print("equal to the model's:", np.allclose(scores.data, model(ids).data), "\n")

# %% What is trained: the last block, the last norm, the head
freeze_all_but_the_end(model)
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"{trained:,} of {model.num_parameters():,} parameters are trained\n")

# %% Five steps of a small model, on five messages
# Seed 123 comes three times: before the model, before the head, before training.
rng = Generator(123)
both = five_rows(rng)
model = small_classifier(rng)  # seeds again before its head
freeze_all_but_the_end(model)
rng.manual_seed(123)
optimizer = AdamW(model.parameters(), lr=5e-5, weight_decay=0.0)
log = train(model, both, optimizer, 5, every=1, batches=1, loss=classification_loss)
beside("ch06-18", [pair for _, *pair in log])

# %% A small model of our own, from nothing
# Without OpenAI's weights it must learn the words too, so all of it is trained. It still learns to tell most of them.
base = GPT(book_config(block_size=120, n_embd=16, n_layer=1, n_head=2, dropout=0.0), rng)
model = GPTClassifier.from_gpt(base, LABELS, rng)
optimizer = AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
right = []


def measure():
    right.append(accuracy(model, three.val))


both = Loaders(three.train, three.val)
list(train(model, both, optimizer, 3, every=1000, batches=1, loss=classification_loss, after_pass=measure))
bars([f"pass {i + 1}" for i in range(3)], right, low=40, high=100)
print(f"right in the test: {accuracy(model, three.test):.1f} %; the book, with GPT-2 small: 95.67 %\n")

# %% With OpenAI's weights
# First what GPT-2 says without training; then the scores and losses of a new head; then fine-tuning.
for id in ("ch06-08", "ch06-09", "ch06-11", "ch06-12", "ch06-13", "ch06-14", "ch06-15", "ch06-16", "ch06-17"):
    beside(id)
