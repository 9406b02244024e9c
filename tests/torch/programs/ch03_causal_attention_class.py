"""Chapter 3: a class for causal attention with dropout and a buffer, and heads stacked side by side."""

import torch
from torch import nn


class CausalHead(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, qkv_bias=False):
        super().__init__()
        self.d_out = d_out
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mask", torch.triu(torch.ones(context_length, context_length), diagonal=1))

    def forward(self, x):
        length = x.shape[1]
        q, k, v = self.W_query(x), self.W_key(x), self.W_value(x)
        scores = q @ k.transpose(1, 2)
        scores.masked_fill_(self.mask.bool()[:length, :length], -torch.inf)
        weights = self.dropout(torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1))
        return weights @ v


class Stacked(nn.Module):
    def __init__(self, heads, *sizes):
        super().__init__()
        self.heads = nn.ModuleList([CausalHead(*sizes) for _ in range(heads)])

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)


torch.manual_seed(5)
inputs = torch.rand(6, 3)
batch = torch.stack((inputs, inputs), dim=0)
print(batch.shape)
torch.manual_seed(123)
head = CausalHead(3, 2, 6, 0.0)
print(head)
out = head(batch)
print(out)
print("shape:", out.shape)
torch.manual_seed(123)
stacked = Stacked(2, 3, 2, 6, 0.0)
print(stacked)
print(stacked(batch))
torch.manual_seed(123)
dropping = CausalHead(3, 2, 10, 0.5, qkv_bias=True)
print(dropping(batch))
print(dropping(batch).shape, dropping.training)
dropping.eval()
print(dropping(batch[:, :2]))
print(list(head.state_dict()))
print([name for name, _ in head.named_buffers()], head.mask.requires_grad)
print([name for name, _ in stacked.named_modules()])
