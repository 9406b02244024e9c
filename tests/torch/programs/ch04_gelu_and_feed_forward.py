"""Chapter 4: the GELU by its formula and by name, and the feed-forward network."""

import math

import torch
from torch import nn


class TanhGELU(nn.Module):
    def forward(self, x):
        inner = torch.sqrt(torch.tensor(2.0 / torch.pi)) * (x + 0.044715 * torch.pow(x, 3))
        return 0.5 * x * (1 + torch.tanh(inner))


x = torch.linspace(-3, 3, 9)
print(x)
print(TanhGELU()(x))
print(nn.GELU(approximate="tanh")(x))
print(nn.GELU()(x))
print(nn.ReLU()(x), nn.SiLU()(x))
print(torch.allclose(TanhGELU()(x), nn.GELU(approximate="tanh")(x), atol=1e-6))
print(0.5 * x * (1 + torch.erf(x / math.sqrt(2))))


class FeedForward(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, 4 * size), TanhGELU(), nn.Linear(4 * size, size))

    def forward(self, x):
        return self.layers(x)


torch.manual_seed(123)
ffn = FeedForward(8)
print(ffn)
batch = torch.rand(2, 3, 8)
out = ffn(batch)
print(out.shape)
print(out)
print(sum(p.numel() for p in ffn.parameters()))
print(ffn.layers[0].weight.shape, ffn.layers[0].bias[:5])
out.mean().backward()
print(ffn.layers[0].weight.grad.abs().mean().item())
print(ffn.layers[-1].bias.grad)
