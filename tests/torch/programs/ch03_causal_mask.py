"""Chapter 3: later positions are masked, in two ways, and weights are dropped."""

import torch

torch.manual_seed(789)
inputs = torch.rand(6, 3)
W_q, W_k = torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(3, 2, bias=False)
queries, keys = W_q(inputs), W_k(inputs)
attn_scores = queries @ keys.T
attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
print(attn_weights)
n = attn_scores.shape[0]
simple = torch.tril(torch.ones(n, n))
print(simple)
masked = attn_weights * simple
print(masked)
row_sums = masked.sum(dim=-1, keepdim=True)
normed = masked / row_sums
print(normed)
mask = torch.triu(torch.ones(n, n), diagonal=1)
masked = attn_scores.masked_fill(mask.bool(), -torch.inf)
print(masked)
attn_weights = torch.softmax(masked / keys.shape[-1] ** 0.5, dim=1)
print(attn_weights)
torch.manual_seed(123)
dropout = torch.nn.Dropout(0.5)
print(dropout)
print(dropout(torch.ones(6, 6)))
torch.manual_seed(123)
print(dropout(attn_weights))
dropout.eval()
print(dropout(torch.ones(2, 3)))
in_place = attn_scores * 1
in_place.masked_fill_(mask.bool(), float("-inf"))
print(in_place[0])
in_place.softmax(dim=-1)[:, 0].sum().backward()
print(W_q.weight.grad)
print(mask.dtype, mask.bool().dtype, mask.bool()[:2, :3])
