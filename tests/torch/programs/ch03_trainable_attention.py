"""Chapter 3: attention with trained weights: matrices first, then linear layers, and how the two correspond."""

import torch
from torch import nn

torch.manual_seed(11)
inputs = torch.rand(6, 3)
x_2 = inputs[1]
d_in, d_out = inputs.shape[1], 2

torch.manual_seed(123)
W_query = torch.nn.Parameter(torch.rand(d_in, d_out), requires_grad=False)
W_key = torch.nn.Parameter(torch.rand(d_in, d_out), requires_grad=False)
W_value = torch.nn.Parameter(torch.rand(d_in, d_out), requires_grad=False)
print(W_query)
query_2 = x_2 @ W_query
keys, values = inputs @ W_key, inputs @ W_value
print(query_2, keys.shape, values.shape)
print(query_2.dot(keys[1]))
scores_2 = query_2 @ keys.T
d_k = keys.shape[-1]
print(scores_2)
print(torch.softmax(scores_2 / d_k**0.5, dim=-1) @ values)


class AttentionV1(nn.Module):
    def __init__(self, d_in, d_out):
        super().__init__()
        self.query = nn.Parameter(torch.rand(d_in, d_out))
        self.key = nn.Parameter(torch.rand(d_in, d_out))
        self.value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x):
        q, k, v = x @ self.query, x @ self.key, x @ self.value
        weights = torch.softmax(q @ k.T / k.shape[-1] ** 0.5, dim=-1)
        return weights @ v


class AttentionV2(nn.Module):
    def __init__(self, d_in, d_out, bias=False):
        super().__init__()
        self.query = nn.Linear(d_in, d_out, bias=bias)
        self.key = nn.Linear(d_in, d_out, bias=bias)
        self.value = nn.Linear(d_in, d_out, bias=bias)

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        return torch.softmax(q @ k.T / k.shape[-1] ** 0.5, dim=-1) @ v


torch.manual_seed(123)
first = AttentionV1(d_in, d_out)
print(first)
print(first(inputs))
torch.manual_seed(789)
second = AttentionV2(d_in, d_out)
print(second)
print(second(inputs))
first.query = nn.Parameter(second.query.weight.T)
first.key = nn.Parameter(second.key.weight.T)
first.value = nn.Parameter(second.value.weight.T)
print(first(inputs))
print(torch.allclose(first(inputs), second(inputs)))
print([(name, tuple(p.shape)) for name, p in first.named_parameters()])
biased = AttentionV2(d_in, d_out, bias=True)
print(biased(inputs))
print(sum(p.numel() for p in biased.parameters()))
