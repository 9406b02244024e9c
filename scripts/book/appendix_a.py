"""Appendix A: Tensors, gradients, a small network. Run all of it, or cell by cell (# %%) in VS Code or Jupyter.

    python scripts/book/appendix_a.py

Each step prints the book's numbers beside its own. The engine is in tinygrad_llm/autograd/: an evening's reading.
"""

# %% A gradient by hand, and by backward()
import numpy as np

from tinygrad_llm import Generator, Tensor
from tinygrad_llm import functional as F
from tinygrad_llm.datasets import DataLoader
from tinygrad_llm.optim import SGD
from tinygrad_llm.study.book.appendix_a import X_TEST, X_TRAIN, Y_TEST, Y_TRAIN, examples, network
from tinygrad_llm.study.book.lesson import bars, beside

# Logistic regression with one weight: z = x w + b, and the loss is −ln sigmoid(z), because the label is 1.
x = 1.1
w, b = (Tensor(np.array([value], np.float32), requires_grad=True) for value in (2.2, 0.0))
z = w * x + b
loss = F.binary_cross_entropy_with_logits(z, np.ones(1, np.float32))
loss.backward()
beside("apA-01", loss, w.grad, b.grad)
# By hand: d loss / dz = sigmoid(z) − 1; and then dz/dw = x, dz/db = 1.
dz = z.sigmoid().item() - 1
print(f"by hand: dw = {dz * x:.4f}, db = {dz:.4f}\n")

# %% A network
# 50 inputs, two hidden layers, 3 outputs; a ReLU between layers. Every Linear layer has (in + 1) · out parameters.
model = network(50, 3, Generator(123))
beside("apA-02", model.num_parameters())
assert 51 * 30 + 31 * 20 + 21 * 3 == 2213
weight = model[0].weight.data  # (30, 50)
ends = [0, 1, 2, -3, -2, -1]
beside("apA-03", weight[np.ix_(ends, ends)])
y = model(Tensor(Generator(123).rand((1, 50))))  # (1, 50) → (1, 3)
beside("apA-04", y, y.softmax(-1))

# %% Data in batches
# Five points with labels, two in a batch, in a new order at each pass.
beside("apA-05", list(DataLoader(range(5), batch_size=2, shuffle=True, rng=Generator(123))))

# %% Training
# One stream of random numbers: the weights are drawn first, then the order of each pass.
rng = Generator(123)
model = network(2, 2, rng)
beside("apA-10", model.num_parameters())
optimizer = SGD(model.parameters(), lr=0.5)
loader = DataLoader(examples(), batch_size=2, shuffle=True, drop_last=True, rng=rng)
losses = []
for _ in range(3):
    for x, y in loader:
        loss = F.cross_entropy(model(Tensor(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
bars([f"step {i}" for i in range(6)], losses, low=1e-3, high=1)
beside("apA-07", losses)
beside("apA-07+", losses)

# %% Predictions
predicted, tested = (model(Tensor(x)).data.argmax(-1) for x in (X_TRAIN, X_TEST))
beside("apA-09", predicted, (predicted == Y_TRAIN).mean(), (tested == Y_TEST).mean())
