"""Many short expressions in PyTorch's words, each with its printed value, type and grad_fn."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(1)
names = {
    "math": math,
    "torch": torch,
    "nn": nn,
    "F": F,
    "a": torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.5]], requires_grad=True),
    "b": torch.tensor([[2.0, 1.0, 0.5], [1.5, -1.0, 2.0]]),
    "v": torch.tensor([0.3, -0.7, 1.1], requires_grad=True),
    "c": torch.rand(2, 3, 4, requires_grad=True),
    "d": torch.rand(2, 4, 3),
    "i": torch.tensor([[3, 1, 2], [6, 5, 4]]),
    "m": torch.tensor([[True, False, True], [False, False, True]]),
}
EXPRESSIONS = """
a + b | a - b | 1 - a | a * 2 | a / b | 1 / a | a ** 2 | 2 ** b | b ** a | -a | abs(a) | a @ b.T | a @ v | v @ b.T
v @ v | c @ d | c @ d[0] | c[0] @ d[0] | a.T | a.mT | c.transpose(1, 2).shape | c.permute(2, 0, 1).shape | b % 2
b // 2 | a.sum() | a.sum(0) | a.sum(dim=-1, keepdim=True) | a.mean() | a.mean(1) | a.var()
a.var(1, unbiased=False) | a.std(0) | a.max() | a.max(dim=1) | a.min(0) | a.amax(1) | a.argmax() | a.argmax(1)
a.argmin(0) | a.norm() | a.norm(dim=1) | a.exp() | b.log() | b.abs().sqrt() | a.abs() | a.tanh() | a.sigmoid()
a.relu() | torch.erf(a) | a.clamp(-1, 1) | a.clamp(min=0) | torch.rsqrt(a.abs()) | a.square() | a.pow(3)
a.reciprocal() | a.cumsum(1) | a.logsumexp(1) | a.softmax(-1) | a.log_softmax(0) | torch.softmax(b, dim=0)
a.view(3, 2) | a.reshape(-1) | a.T.reshape(6) | a.flatten() | a.unsqueeze(0) | a[None] | a[:, None].shape | a[0]
a[:, 1] | a[0, 1] | a[:, 1:] | a[..., -1] | a[:, :] | a[[0, 1], [2, 0]] | a[m] | b[i > 3] | a[i[:, 1] > 2]
a.squeeze() | a[:1].squeeze(0) | a.expand(2, 2, 3).shape | v.expand(2, 3) | v.repeat(2, 2) | torch.cat((a, b))
torch.cat([a, b], dim=1) | torch.stack((a, b)) | torch.stack([v, v], dim=1) | torch.vstack((v, v))
a.split(2, dim=1) | a.chunk(3, dim=1) | a.unbind() | list(v) | a.tril() | a.triu(1) | b.masked_fill(m, 0.0)
a.masked_fill(m, -math.inf) | torch.where(m, a, b) | torch.where(b > 1, b, 0.0) | torch.where(m)
a.gather(1, i % 3) | torch.maximum(a, b) | torch.minimum(a, b) | a > b | a == a | i == 3 | m & (b > 1) | ~m | m
(i > 2).sum() | m.sum() | m.any() | m.all(dim=1) | i.sum() | i.float().mean() | i.max() | i * 2 | i / 2 | i + 0.5
i * b | i.to(torch.float64) * b | i // 2 | i % 4 | i ** 2 | i.T @ i | i.dtype | (i > 1).dtype | i.sort(dim=1)
b.sort(descending=True) | b.argsort(dim=1) | b.topk(2) | i.topk(2, dim=0) | torch.topk(b[0], 1, largest=False)
i.unique() | torch.bincount(i[0]) | i.nonzero() | torch.nonzero(m) | torch.count_nonzero(m) | i.flip(0)
b.flip((0, 1)) | torch.roll(i, 1) | torch.arange(5) | torch.arange(1, 2, 0.25) | torch.arange(3.0)
torch.linspace(0, 1, 5) | torch.zeros(2, 3) | torch.ones(2) | torch.full((2, 2), 3) | torch.eye(2) | torch.empty(0)
torch.zeros_like(i) | torch.ones_like(b) | torch.full_like(b, 2) | torch.tensor(3) | torch.tensor([1, 2.5])
torch.tensor([[1], [2]]) | torch.tensor([True]) | torch.tensor([torch.tensor(1), 2]) | torch.outer(v, v)
torch.einsum("ij,kj->ik", a, b) | torch.matmul(a, b.T) | torch.dot(v, v) | torch.diagonal(a @ b.T) | a.detach()
a.clone() | a.data | a.detach().requires_grad | (a * 1).requires_grad | a.is_leaf | (a * 2).is_leaf | a.grad
a.float() | a.double() | b.half() | b.long() | b.int() | b.bool() | a.to(torch.float64) | b.to("cpu") | b.type()
i.type() | a.shape | a.size() | a.size(1) | a.ndim | a.dim() | a.numel() | a.nelement() | a.device | a.stride()
a.T.is_contiguous() | len(a) | a[0, 0].item() | i.tolist() | b.numpy().shape | float(b[0, 0]) | int(i[0, 0])
bool(m[0, 0]) | round(b[0, 2].item(), 3) | F.relu(a) | F.gelu(a) | F.gelu(a, approximate="tanh") | F.silu(a)
F.softplus(a) | F.logsigmoid(a) | F.leaky_relu(a) | F.sigmoid(b) | F.linear(a, b) | F.linear(a, b, v[:2])
F.linear(v, b) | F.linear(c.transpose(1, 2), b) | F.linear(c.transpose(1, 2), b, v[:2]) | F.embedding(i[0] % 2, a)
F.one_hot(i % 3) | F.layer_norm(a, (3,)) | F.normalize(a, dim=1) | F.pad(b, (1, 0))
F.pad(i, (0, 1, 1, 0), value=9) | F.mse_loss(a, b) | F.l1_loss(a, b) | F.cross_entropy(a, i[:, 1] % 3)
F.cross_entropy(a, i[:, 1] % 3, reduction="none") | F.cross_entropy(a, torch.softmax(b, 1))
F.cross_entropy(a, i[:, 1] % 3, label_smoothing=0.1) | F.nll_loss(a.log_softmax(1), i[:, 1] % 3)
F.binary_cross_entropy(a.sigmoid(), m.float()) | F.binary_cross_entropy_with_logits(a, m.float())
F.cosine_similarity(a, b) | F.kl_div(a.log_softmax(1), b.softmax(1), reduction="batchmean")
F.scaled_dot_product_attention(c, c, c, is_causal=True) | F.dropout(a, 0.0) | F.dropout(a, 0.5, training=False)
F.dropout(a, 0.5) | nn.Dropout(0.3)(b) | torch.multinomial(b.abs(), 2) | torch.allclose(a, a + 1e-9)
torch.equal(b, b) | torch.isclose(b, b + 1e-9) | torch.isnan(b) | torch.isinf(b) | torch.is_tensor(b)
nn.Linear(2, 3, bias=False) | nn.Embedding(4, 2) | nn.LayerNorm(3) | nn.Dropout(0.1) | nn.GELU()
nn.GELU(approximate="tanh") | nn.ReLU() | nn.Sequential(nn.Linear(1, 2), nn.ReLU())
nn.ModuleList([nn.Identity(), nn.Identity()]) | nn.Softmax(dim=-1) | nn.SiLU() | nn.Tanh() | nn.MSELoss()
nn.CrossEntropyLoss() | nn.BCELoss() | nn.Flatten() | nn.ModuleDict({"x": nn.ReLU()}) | nn.RMSNorm(3)
nn.Sequential() | nn.Parameter(torch.ones(2)) | nn.Parameter(torch.ones(1), requires_grad=False)
torch.Size([2, 3]) | torch.device("cuda:1") | torch.float16 | torch.repeat_interleave(v, 2)
a.repeat_interleave(2, dim=0) | torch.tril(torch.ones(2, 2)) | a.mean(dim=(0, 1)) | a.sum((0, 1)) | a.view(-1).shape
a.view_as(b) | a.t() | a.swapaxes(0, 1) | torch.median(b) | b.round() | b.floor() | torch.sign(b) | torch.sin(b)
torch.prod(b) | b.prod() | torch.log2(b.abs()) | b.trunc() | torch.numel(b) | torch.is_floating_point(i)
torch.meshgrid(v.detach(), v.detach(), indexing="ij") | torch.tensor(2.0) * i | torch.tensor(2) * b
torch.tensor(1.5, dtype=torch.float64) + b | (i > 2) * b | (i > 2).float() * a | i.masked_fill(m, -100)
a.mul(2).add(1).sub(v).div(3) | a.eq(b) | a.lt(b) | torch.add(a, b) | torch.mul(a, 2) | torch.sum(a, dim=0)
torch.mean(a) | torch.std(b) | torch.var(b, dim=1)
"""
for line in EXPRESSIONS.split("\n"):
    for expression in filter(None, (part.strip() for part in line.split(" | "))):
        print(expression, "→", eval(expression, names))
