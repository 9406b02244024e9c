"""Appendix D: a learning rate that rises and falls, and short gradients. Run all, or cell by cell (# %%).

    python scripts/book/appendix_d.py          --all: also the book's training with both: half an hour or more

Each step prints the book's numbers beside its own. The package's own schedules are in tinygrad_llm/optim/schedule.py.
"""

# %% A learning rate for each step
# Warm-up: the first steps are small, because the first gradients of a random model point anywhere. Then the rate falls
# along half a cosine, so that the last steps only polish.
import numpy as np

from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import clip_grad_norm_
from tinygrad_llm.study.book.appendix_d import rate
from tinygrad_llm.study.book.lesson import beside

steps = 15 * 9  # passes · batches
warmup = int(0.2 * steps)
rates = [rate(step, steps, warmup, start=1e-4, peak=0.01, least=1e-5) for step in range(steps)]
beside("apD-01", warmup, [rates[step] for step in (0, 1, 26, 27, 81, 134)])
for step in range(0, steps, 9):
    print(f"  step {step:>3}  {rates[step]:.5f}  " + "█" * round(5000 * rates[step]))
print()

# %% Short gradients
# A strange batch can have a huge gradient, and one step then undoes much. If the norm of all gradients together is
# above 1, all are divided by it: the direction stays, the length becomes 1.
p = Parameter(np.zeros((2, 2), np.float32))
p.grad = np.array([[1, 2], [2, 4]], np.float32)
norm = clip_grad_norm_([p], 1.0)  # √(1 + 4 + 4 + 16)
beside("apD-02", norm, p.grad)

# %% Both in the training of chapter 5
beside("apD-05")
beside("apD-04")
