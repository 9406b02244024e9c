import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(123)
q, k, v = (torch.randn(2, 2, 5, 4) for _ in range(3))
o = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True)
print(o)
mask = torch.tril(torch.ones(5, 5)).bool()
print(torch.allclose(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), o, atol=1e-6))
m = nn.MultiheadAttention(8, 2, batch_first=True)
x = torch.randn(2, 5, 8)
att_mask = torch.triu(torch.ones(5, 5), diagonal=1).bool()
out, w = m(x, x, x, attn_mask=att_mask)
print(out, w.shape)
print(w)
print(m)
out, w = m(x, x, x, attn_mask=att_mask, need_weights=False)
print(out[0, 0], w)
