"""Chapter 2: from text to vectors. Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    tinygrad-llm download the-verdict
    python scripts/book/ch02_text.py          --all: also the byte pairs that are learned from the story

Each step prints the book's numbers beside its own. The tokenizers are in tinygrad_llm/tokenizer/.
"""

# %% A short story
from textwrap import fill

import numpy as np

from tinygrad_llm import Generator, Tokenizer
from tinygrad_llm.datasets import DataLoader, SlidingWindows
from tinygrad_llm.nn import Embedding, Linear
from tinygrad_llm.study.book.lesson import beside, need
from tinygrad_llm.study.book.material import verdict
from tinygrad_llm.tokenizer import SimpleTokenizerV1, SimpleTokenizerV2, TokenizerError

need("the-verdict")
text = verdict()
print(repr(text[:70]), "\n")
beside("ch02-01", len(text))

# %% Words and punctuation
# A model reads numbers, so a text is cut into pieces, and each piece gets a number. The first tokenizer cuts at white
# space and at punctuation marks, and keeps the marks.
beside("ch02-02", SimpleTokenizerV1.split("Hello, world. Is this-- a test?"))
pieces = SimpleTokenizerV1.split(text)
beside("ch02-03", len(pieces), len(set(pieces)))

# %% A vocabulary: the sorted pieces, numbered
tokenizer = SimpleTokenizerV1.train(text)
beside("ch02-04", [tokenizer.words[i] for i in (0, 6, 11, 38, 44, 50)])
remark = text[8928:9006]
ids = tokenizer.encode(remark)
beside("ch02-05", ids)
print(f"text  {remark[:30]!r}\nback  {tokenizer.decode(ids)[:30]!r}\n")  # white space is not kept as it was

# %% Words that are not in the story
# The first tokenizer must refuse them. The second has two more tokens: one for unknown words, and one for the end of a
# text.
try:
    tokenizer.encode("Hello, do you like tea?")
except TokenizerError as error:
    print(fill(str(error), 80), "\n")
tokenizer = SimpleTokenizerV2.train(text)
beside("ch02-06", tokenizer.n_vocab, tokenizer.words[-5:])
question = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
ids = tokenizer.encode(question)
beside("ch02-07", ids, 1)  # 1: it was refused before
print(fill(tokenizer.decode(ids), 80), "\n")

# %% Byte pairs: no word is unknown
# GPT-2's tokenizer starts from the 256 bytes. Its training joined the most frequent pair of tokens into a new token,
# 50,000 times. Frequent words are one token now, and rare words are several.
gpt2 = Tokenizer.gpt2()
strange = gpt2.encode("Akwirw ier")
beside("ch02-09", strange)
print([gpt2.decode([i]) for i in strange], "\n")
beside("ch02-10", gpt2.encode("Hello, world. Is this-- a test?"), gpt2.n_vocab)
beside("ch02-08")
beside("ch02-11")
ids = gpt2.encode(text)
beside("ch02-12", len(ids), int(gpt2.decode(ids) == text))  # 1: nothing is lost
beside("ch02-13", ids[50:55], [gpt2.decode([i]) for i in ids[50:55]])
beside("ch02-24")  # two special tokens, added

# %% How merges are learned (a bonus chapter of the book)
# In two ways: over the whole text, and inside words. `tinygrad-llm book --show ch02-18` shows the code.
beside("ch02-17")
beside("ch02-18")

# %% What the model learns from: windows, and the same windows one token later
# A window of 4 tokens holds 4 exercises: after each token, predict the next.
windows = SlidingWindows(ids, block_size=4, stride=1)
x, y = windows[0]
for i in range(1, 5):
    print(f"{gpt2.decode(x[:i])!r:>22} → {gpt2.decode([y[i - 1]])!r}")
print()
first, second = (batch for batch, _ in zip(DataLoader(windows, batch_size=1), range(2), strict=False))
beside("ch02-14", first, second)

# %% Batches
# With a stride of 4, no token is in two windows. Several windows make a batch: (B, T) = (8, 4).
apart = SlidingWindows(ids, block_size=4, stride=4)
x, y = next(iter(DataLoader(apart, batch_size=8)))
beside("ch02-15", len(apart), len(windows), x, y[-1, -1])
# A shuffled order makes training better. From seed 123 it is the one that PyTorch's DataLoader draws.
beside("ch02-19")

# %% A vector for each token
# An embedding is a table with a row for each id. The rows are random at first, and training moves them.
table = Embedding(6, 3, rng=Generator(123))
beside("ch02-20", table.weight, table(np.array([2, 3, 5, 1])))
# Looking up a row is the same as a product with a one-hot vector, which a Linear layer computes. The table is faster.
one_hot = np.eye(6, dtype=np.float32)[[2, 3, 5, 1]]  # (4, 6)
print("look-up equals product:", np.array_equal(one_hot @ table.weight.data, table(np.array([2, 3, 5, 1])).data), "\n")
beside("ch02-22", Linear(4, 5, bias=False, rng=Generator(123)).weight)

# %% A vector for each position
# Attention treats tokens as a set. So a second table, by position, is added to the first.
rng = Generator(123)
tokens, positions = Embedding(50257, 256, rng=rng)(x), Embedding(4, 256, rng=rng)(np.arange(4))
vectors = tokens + positions  # (8, 4, 256) + (4, 256): what the model reads
beside("ch02-23", tokens.shape, positions.shape, vectors.shape)
