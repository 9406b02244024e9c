import torch
import torch.nn.functional as F

# sliding window / relative attention bias, repeated KV, causal mask by where
torch.manual_seed(11)
B, H, T, D = 1, 2, 6, 4
q, k, v = torch.randn(3, B, H, T, D).unbind(0)
dist = torch.arange(T)[:, None] - torch.arange(T)[None, :]
mask = (dist >= 0) & (dist < 3)
print(mask.int())
slopes = torch.tensor([2 ** (-8 * (i + 1) / H) for i in range(H)])
bias = -slopes.view(1, H, 1, 1) * dist.clamp(min=0)
s = q @ k.transpose(-1, -2) / D**0.5 + bias
w = torch.softmax(torch.where(mask, s, torch.finfo(s.dtype).min), -1)
print(w[0, 0])
print((w @ v).shape, (w @ v).sum())
print(
    F.scaled_dot_product_attention(q, k, v, attn_mask=mask).mean(),
    F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)[0, 1, -1],
)
theta = 1.0 / 100 ** (torch.arange(0, D, 2) / D)
ang = torch.outer(torch.arange(T), theta)
c, sn = ang.cos(), ang.sin()
xe, xo = q[..., ::2], q[..., 1::2]
rot = torch.stack([xe * c - xo * sn, xe * sn + xo * c], dim=-1).flatten(-2)
print(rot[0, 0, :2], torch.allclose(rot.norm(dim=-1), q.norm(dim=-1)))
print(
    torch.einsum("bhtd,bhsd->bhts", q, k).shape,
    torch.tensordot(q[0, 0], k[0, 0].T, dims=1).shape,
    torch.tril(torch.ones(T, T)).unsqueeze(0).unsqueeze(0).shape,
)
