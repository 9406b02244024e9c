"""Appendix E: fine-tune 2 % of the parameters (LoRA). Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    python scripts/book/appendix_e.py          --all: also with OpenAI's weights where they are: hours

Each step prints the book's numbers beside its own. The finished layer is in tinygrad_llm/nn/lora.py.
"""

# %% The idea, on one matrix
# Fine-tuning changes a weight W (out, in) by some ΔW. LoRA says: a product of two thin matrices is enough for ΔW.
import numpy as np

from tinygrad_llm import Generator, Tensor
from tinygrad_llm.nn import Linear
from tinygrad_llm.nn.lora import LoRALinear, lora_layers
from tinygrad_llm.study.book.appendix_e import add_lora_as_the_book_does, classifier_config, lora_parameters
from tinygrad_llm.study.book.ch06 import small_classifier
from tinygrad_llm.study.book.lesson import beside

rng = Generator(123)
layer = Linear(768, 768, bias=False, rng=rng)
adapted = LoRALinear(layer, rank=16, alpha=16, rng=rng)
for name, p in adapted.named_parameters():
    print(f"  {name:<20} {p.shape!s:<12} {p.numel():>8,} numbers, {'trained' if p.requires_grad else 'frozen'}")
print()

# %% At first, nothing changes: B is zero
x = Tensor(rng.randn((2, 768)))
print("equal outputs:", np.array_equal(layer(x).data, adapted(x).data))
# After training, the product can be added to W: the layer then costs no more than before.
adapted.lora_B[0].weight.data += 0.01
before = adapted(x).data
adapted.merge()
print(f"merged: largest difference {abs(adapted(x).data - before).max():.0e}\n")

# %% How many parameters
# Beside every linear layer of GPT-2 small, whose head has two outputs. Q, K and V count as three layers.
config = classifier_config()
beside("apE-01", config.num_parameters)
beside("apE-02", lora_parameters(config, rank=16))

# %% In a model
# The book's A starts within 1/√rank = 0.25, because PyTorch takes the second dimension for the number of inputs.
model = small_classifier(rng)
ids = np.arange(12).reshape(2, 6)
scores = model(ids).data
add_lora_as_the_book_does(model, 16, 16, Generator(123))
print("adapters:", ", ".join(name.removeprefix("transformer.") for name, _ in lora_layers(model)))
print("equal outputs:", np.array_equal(scores, model(ids).data), "\n")
beside("apE-03")

# %% Training
# The loop and the messages are those of chapter 6.
for id in ("apE-08", "apE-04", "apE-05", "apE-06", "apE-07"):
    beside(id)
