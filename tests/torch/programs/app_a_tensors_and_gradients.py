"""Appendix A: tensors, types, shapes, memory that is shared or not, and gradients by two calls."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd import grad

array = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
copied, shared = torch.tensor(array), torch.from_numpy(array)
array[0, 0, 0] = 999
print(copied)
print(shared)
print(torch.tensor([1, 2, 3]).dtype, torch.tensor([1.0, 2.0]).dtype, torch.tensor(np.ones(2)).dtype)
vector = torch.tensor([1, 2, 3]).to(torch.float32)
print(vector, vector.dtype)
matrix = torch.tensor([[1, 2, 3], [4, 5, 6]])
print(matrix.shape, matrix.reshape(3, 2), matrix.view(3, 2), matrix.T, sep="\n")
print(matrix.matmul(matrix.T), matrix @ matrix.T, sep="\n")
print(matrix * 2 + 1, matrix / 2, matrix // 2, matrix % 2, -matrix, matrix**2, sep="\n")
print(matrix > 2, matrix.float().mean(), matrix.sum(dim=0), matrix.max(dim=1), sep="\n")
print(matrix + torch.tensor([0.5, 1.5, 2.5]), (matrix + torch.tensor(0.5, dtype=torch.float64)).dtype)

y, x1 = torch.tensor([1.0]), torch.tensor([1.1])
w1 = torch.tensor([2.2], requires_grad=True)
b = torch.tensor([0.0], requires_grad=True)
z = x1 * w1 + b
a = torch.sigmoid(z)
print(z, a)
loss = F.binary_cross_entropy(a, y)
print(loss)
print(grad(loss, w1, retain_graph=True))
print(grad(loss, b, retain_graph=True))
loss.backward()
print(w1.grad, b.grad)
with torch.no_grad():
    w1 -= 0.1 * w1.grad
print(w1)
w1.grad.zero_()
print(w1.grad, (x1 * w1).requires_grad, (x1 * w1).detach().requires_grad, w1.is_leaf, z.is_leaf)
t = torch.rand(3, requires_grad=True)
for _ in range(2):
    (t**2).sum().backward()
print(torch.allclose(t.grad, 4 * t))
try:
    loss.backward()
except RuntimeError:
    print("RuntimeError")
