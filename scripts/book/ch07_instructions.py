"""Chapter 7: from a text model to one that follows instructions. Run all of it, or cell by cell (# %%) in VS Code.

    tinygrad-llm download instruction-data
    python scripts/book/ch07_instructions.py          --all: also trainings, and OpenAI's weights where they are

Each step prints the book's numbers beside its own. A command does it all: `tinygrad-llm finetune instruct --help`.
"""

# %% Entries: an instruction, often an input, and an answer
from textwrap import fill

import numpy as np

from tinygrad_llm import Generator, Tensor
from tinygrad_llm import functional as F
from tinygrad_llm.datasets import DataLoader
from tinygrad_llm.finetuning.assistant import collate, prompt_of
from tinygrad_llm.study.book.ch07 import ALPACA, END, ROWS, Texts, entries, loaders, parts, prompt
from tinygrad_llm.study.book.lesson import beside, need
from tinygrad_llm.study.book.material import gpt2
from tinygrad_llm.training.padded import pad

need("instruction-data")
beside("ch07-01", len(entries()))
entry = entries()[43]
print(f"  instruction  {entry.instruction}\n  input        {entry.input}\n  output       {entry.output}\n")

# %% One text for each entry
# The model only continues texts. So instruction and answer become one text with headings, always in the same form: it
# learns that after the heading "### Response:" an answer comes.
for line in (prompt_of(entry.instruction, entry.input, ALPACA) + entry.output).splitlines():
    print(fill(line, 78, initial_indent="  ", subsequent_indent="  "))
print()
beside("ch07-02")
train_part, test_part, val_part = parts()
beside("ch07-04", len(train_part), len(test_part), len(val_part))
beside("ch07-03", len(prompt(val_part[0])))
beside("ch07-15", gpt2().encode("<|user|>"))  # exercise 7.1: the headings of another model

# %% A batch, in three drafts
# Draft 1: pad the rows to the longest of their batch, not of all: less padding.
beside("ch07-05", pad(ROWS, END))
# Draft 2: the targets, one token later. The end token after each row is a target, so the model learns to stop.
beside("ch07-06", pad([[*row[1:], END] for row in ROWS], END))
# Draft 3: padding must not count. Its targets become −100, which cross-entropy leaves out.
inputs, targets = collate(ROWS, END)
beside("ch07-07", targets)

# %% What −100 does
# The third row would change the mean. With the target −100 it does not.
logits = Tensor(np.array([[-1.0, 1.0], [-0.5, 1.5], [-0.5, 1.5]], np.float32))
beside("ch07-10", [F.cross_entropy(logits[: len(t)], np.array(t)) for t in ([0, 1], [0, 1, 1], [0, 1, -100])])

# %% Batches of the real data
beside("ch07-11", [x.shape[1] for x, _ in loaders(Generator(123)).train])
beside("ch07-13", [len(DataLoader(Texts(part), 8)) for part in (val_part, test_part)])
# Exercise 7.2: the prompt's targets can be −100 too. Then only the answer is learned.
beside("ch07-14")

# %% Training
# The loop is that of chapter 5. Only the batches differ.
beside("ch07-22")
beside("ch07-20")

# %% With OpenAI's weights: GPT-2 medium
# Before training it repeats the task in place of doing it. Two passes over the data change that.
for id in ("ch07-16", "ch07-17", "ch07-18", "ch07-21", "ch07-19"):
    beside(id)
