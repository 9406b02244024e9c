"""Chapter 4: layer normalization by hand, as a class, and PyTorch's own."""

import torch
import torch.nn as nn

torch.manual_seed(123)
batch = torch.randn(2, 5)
layer = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
out = layer(batch)
print(out)
mean, var = out.mean(dim=-1, keepdim=True), out.var(dim=-1, keepdim=True)
print("Mean:\n", mean)
print("Variance:\n", var)
normed = (out - mean) / torch.sqrt(var)
print("Normalized:\n", normed)
print(normed.var(dim=-1, keepdim=True))
torch.set_printoptions(sci_mode=False)
print(normed.var(dim=-1))


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(size))
        self.shift = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(var + self.eps) + self.shift


norm = Norm(5)
y = norm(batch)
print(y)
print(y.var(dim=-1, unbiased=False, keepdim=True))
own = nn.LayerNorm(5)
print(own)
print(own(batch))
print(torch.allclose(own(batch), y, atol=1e-6))
print(torch.var(batch, dim=0), torch.std(batch, dim=1), batch.var(), batch.var(correction=0))
y.pow(2).sum().backward()
print(norm.scale.grad, norm.shift.grad)
