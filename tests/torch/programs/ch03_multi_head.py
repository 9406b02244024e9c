"""Chapter 3: all heads in one product, with view and transpose, and PyTorch's own function for the same."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class MultiHead(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False):
        super().__init__()
        assert d_out % num_heads == 0, "d_out must be divisible by num_heads"
        self.d_out, self.num_heads, self.head_dim = d_out, num_heads, d_out // num_heads
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer(
            "mask", torch.triu(torch.ones(context_length, context_length), diagonal=1), persistent=False
        )

    def split(self, x):
        b, t, _ = x.shape
        return x.view(b, t, self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (self.split(layer(x)) for layer in (self.W_query, self.W_key, self.W_value))
        scores = q @ k.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:t, :t], -torch.inf)
        weights = self.dropout(torch.softmax(scores / self.head_dim**0.5, dim=-1))
        context = (weights @ v).transpose(1, 2).contiguous().view(b, t, self.d_out)
        return self.out_proj(context)


torch.manual_seed(123)
x = torch.rand(2, 6, 3)
attention = MultiHead(3, 4, 6, 0.0, num_heads=2)
out = attention(x)
print(out)
print(out.shape)
print(list(attention.state_dict()))
q, k, v = (attention.split(layer(x)) for layer in (attention.W_query, attention.W_key, attention.W_value))
fast = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
print(torch.allclose(attention.out_proj(fast), out, atol=1e-6))
a = torch.rand(1, 2, 3, 4)
print(a)
print(a @ a.transpose(2, 3))
print(a[0, 0] @ a[0, 0].T)
print((a @ a.transpose(2, 3)).shape, a.transpose(1, 2).is_contiguous(), a.permute(0, 2, 1, 3).shape)
try:
    a.transpose(1, 2).view(1, 3, 8)
except RuntimeError as error:
    print("RuntimeError:", str(error)[:40])
loss = out.pow(2).mean()
loss.backward()
print(loss)
for name, p in attention.named_parameters():
    print(f"{name:16} {tuple(p.shape)} {p.grad.norm():.6f}")
