"""Chapter 4: gradients of a deep network, without and with shortcut connections."""

from itertools import pairwise

import torch
import torch.nn as nn


class Deep(nn.Module):
    def __init__(self, sizes, use_shortcut):
        super().__init__()
        self.use_shortcut = use_shortcut
        self.layers = nn.ModuleList(
            [nn.Sequential(nn.Linear(a, b), nn.GELU(approximate="tanh")) for a, b in pairwise(sizes)]
        )

    def forward(self, x):
        for layer in self.layers:
            out = layer(x)
            x = x + out if self.use_shortcut and x.shape == out.shape else out
        return x


def print_gradients(model, x):
    output = model(x)
    target = torch.tensor([[0.0]])
    loss = nn.MSELoss()(output, target)
    print(loss)
    loss.backward()
    for name, param in model.named_parameters():
        if "weight" in name:
            print(f"{name} has gradient mean of {param.grad.abs().mean().item():.8f}")


sizes = [3, 3, 3, 3, 3, 1]
sample = torch.tensor([[1.0, 0.0, -1.0]])
for shortcut in (False, True):
    torch.manual_seed(123)
    model = Deep(sizes, use_shortcut=shortcut)
    print_gradients(model, sample)
print(model)
model.zero_grad()
print([p.grad for p in model.parameters()][:2])
