"""Chapter 4, bonus: keys and values of earlier tokens are kept in buffers, and the text stays the same."""

import torch
import torch.nn as nn


class Cached(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads, self.head_dim = heads, size // heads
        self.qkv = nn.Linear(size, 3 * size)
        self.register_buffer("cache_k", None, persistent=False)
        self.register_buffer("cache_v", None, persistent=False)

    def forward(self, x, use_cache=False):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, self.head_dim) for part in self.qkv(x).chunk(3, dim=-1))
        if use_cache:
            if self.cache_k is None:
                self.cache_k, self.cache_v = k, v
            else:
                self.cache_k = torch.cat([self.cache_k, k], dim=1)
                self.cache_v = torch.cat([self.cache_v, v], dim=1)
            k, v = self.cache_k, self.cache_v
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
        total = k.shape[2]
        queries = torch.arange(total - t, total).unsqueeze(-1)
        scores = scores.masked_fill(torch.arange(total).unsqueeze(0) > queries, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c)

    def reset(self):
        self.cache_k = self.cache_v = None


torch.manual_seed(123)
emb, attention, head = nn.Embedding(20, 8), Cached(8, 2), nn.Linear(8, 20, bias=False)


@torch.inference_mode()
def generate(idx, n, use_cache):
    attention.reset()
    new = idx
    for _ in range(n):
        x = attention(emb(new if use_cache else idx), use_cache)
        new = head(x[:, -1]).argmax(dim=-1, keepdim=True)
        idx = torch.cat([idx, new], dim=1)
    return idx


start = torch.tensor([[1, 5, 2], [4, 4, 9]])
plain, cached = generate(start, 10, False), generate(start, 10, True)
print(plain)
print(torch.equal(plain, cached), attention.cache_k.shape)
print(list(attention.state_dict()))
positions = torch.arange(4).repeat(2, 1)
print(positions, torch.outer(torch.arange(3.0), torch.tensor([1.0, 0.5])))
freqs = 1.0 / (10000 ** (torch.arange(0, 4, 2).float() / 4))
print(freqs, torch.cos(torch.arange(3.0)[:, None] * freqs[None, :]), torch.rsqrt(freqs))
print(torch.repeat_interleave(torch.tensor([[1, 2]]), 2, dim=0), torch.cumsum(torch.tensor([1, 2, 3]), dim=0))
