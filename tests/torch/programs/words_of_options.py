"""Options with another value than their default, each in an expression of its own, with values and gradients."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(3)
names = {
    "math": math,
    "torch": torch,
    "nn": nn,
    "F": F,
    "a": torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.5]]),
    "b": torch.tensor([[2.0, 1.0, 0.5], [1.5, -1.0, 2.0]]),
    "p": torch.tensor([[0.2, 0.9, 0.5], [0.7, 0.1, 0.4]]),
    "c": torch.rand(2, 3, 4),
    "v": torch.tensor([0.3, -0.7, 1.1]),
    "i": torch.tensor([[3, 1, 2], [6, 5, 4]]),
    "k": torch.tensor([2, 0]),
    "m": torch.tensor([[True, False, True], [False, False, True]]),
    "n": torch.tensor([1.0, math.nan, math.inf, -math.inf]),
}
EXPRESSIONS = """
torch.as_tensor(i, dtype=torch.float64) | torch.as_tensor([1, 2], dtype=torch.float32)
torch.zeros(2, dtype=torch.int64) | torch.ones((1, 2), dtype=torch.bool) | torch.full((2,), 3, dtype=torch.float64)
torch.full_like(i, 2, dtype=torch.float32) | torch.zeros_like(b, dtype=torch.int32)
torch.arange(0, 1, 0.25, dtype=torch.float64) | torch.arange(5, 0, -2) | torch.linspace(0, 1, 3, dtype=torch.float64)
torch.eye(2, 3) | torch.eye(2, dtype=torch.int64) | torch.logspace(0, 2, 3, base=2.0) | torch.tril_indices(3, 3, -1)
torch.triu_indices(2, 3, 1) | torch.tensor([1, 2], dtype=torch.float64) | torch.tensor(1.0, requires_grad=True)
torch.ones(1, requires_grad=True) | torch.rand(2, dtype=torch.float64).dtype | torch.meshgrid(v, v[:2], indexing="xy")
torch.tensordot(c, c[0].T, dims=1).shape | torch.cat((i, i), 1) | torch.stack((i, i), -1).shape | a.argmax(0)
a.argmax(1, keepdim=True) | a.argmin(dim=0, keepdim=True) | a.argmax(keepdim=True) | a.max(1, keepdim=True)
a.min(dim=0, keepdim=True) | a.amax(0, keepdim=True) | a.amin((0, 1)) | a.sum(1, keepdim=True)
a.sum(0, dtype=torch.float64) | a.mean((0, 1), keepdim=True) | a.var(0, keepdim=True) | a.var(1, correction=0)
a.std(1, unbiased=False, keepdim=True) | a.norm(1) | a.norm(p=1, dim=1) | a.norm(2, 0, True) | a.norm(p=math.inf)
a.logsumexp(0, keepdim=True) | a.cumsum(0) | a.prod(1) | a.prod(0, keepdim=True) | i.prod() | torch.cumprod(a, 0)
torch.cummax(a, 1) | torch.diff(a) | torch.diff(a, n=2) | torch.diff(a, dim=0) | torch.quantile(a, 0.25)
torch.quantile(a, 0.5, dim=1) | torch.quantile(a, 0.5, dim=0, keepdim=True)
torch.quantile(a[0], torch.tensor([0.0, 0.3, 1.0])) | torch.var_mean(a, dim=1)
torch.std_mean(a, dim=0, keepdim=True) | torch.var_mean(a, dim=1, unbiased=False) | torch.nan_to_num(n)
torch.nan_to_num(n, nan=1.0, posinf=2.0, neginf=-2.0) | torch.round(a / 7, decimals=2) | torch.lerp(a, b, 0.25)
torch.lerp(a, b, p) | a.softmax(0, dtype=torch.float64) | a.log_softmax(1, dtype=torch.float64) | a.clamp(max=1.0)
a.clamp(min=b) | torch.trace(a[:, :2]) | torch.diag(v) | torch.diag(v, 1) | torch.diag(a[:, :2])
torch.diag(a[:, :2], -1) | torch.cov(a) | torch.corrcoef(a) | torch.cdist(a, b) | torch.cdist(a, b, p=1.0)
torch.isin(i, k) | torch.searchsorted(v.sort()[0], v) | torch.bucketize(a, v.sort()[0])
torch.searchsorted(v.sort()[0], v, right=True) | torch.bucketize(b, torch.tensor([0.5, 2.0]), right=True)
torch.argwhere(m) | torch.addmm(a[:, :2], a, b.T, beta=0.5, alpha=2) | torch.inner(a, b) | torch.kron(a[:1], v)
torch.movedim(c, 0, 2).shape | torch.unflatten(c, 2, (2, 2)).shape | torch.narrow(a, 1, 1, 2) | torch.select(a, 1, 2)
torch.take_along_dim(a, i % 2, 0) | torch.take_along_dim(a, i[0]) | torch.broadcast_to(v, (2, 3)) | a.unbind(1)
a.index_select(1, k) | a.masked_select(m) | v.repeat(2) | v.repeat(2, 1, 1).shape
a.repeat_interleave(torch.tensor([1, 2]), dim=0) | a.repeat_interleave(2) | a.repeat_interleave(3, dim=1) | a.flip(1)
a.flip(dims=(0,)) | a.roll(1) | a.roll(1, 1) | a.roll(-1, dims=0) | c.diagonal() | c.diagonal(1, 1, 2)
c.diagonal(0, -1, 0) | c.diagonal(-1, dim1=2, dim2=1) | a.diagonal() | a.diagonal(1) | a.diagonal(-1)
a.where(m, 0.0) | a.argsort(0) | a.argsort(dim=1, descending=True) | a.sort(0) | a.sort(1, descending=True)
i.topk(1, 0) | a.topk(2, dim=1, largest=False) | i[0].bincount(minlength=5)
k.bincount(weights=torch.tensor([0.5, 1.5])) | m.nonzero(as_tuple=True) | i.unique(return_counts=True)
(i % 3).unique(return_counts=True) | m.any(0) | m.any(1, keepdim=True) | m.all(0) | m.all(dim=1, keepdim=True)
i.any() | i.median() | a.equal(a + 1e-9) | n.isclose(n) | n.isclose(n, equal_nan=True)
a.isclose(a + 0.01, atol=0.02) | a.isclose(a * 1.01, rtol=0.02) | a.allclose(a + 1)
torch.allclose(n, n, equal_nan=True) | a.allclose(a + 0.01, atol=0.1) | c.flatten(1).shape | c.flatten(0, 1).shape
c.flatten(1, -2).shape | c.stride() | c.stride(1) | c.size(-1) | c.size() | c.T.shape if c.ndim == 2 else c.mT.shape
c.mT.is_contiguous() | c.nbytes | c.itemsize | c.element_size() | i.element_size() | a.to(torch.float64).dtype
a.to(dtype=torch.int64) | a.to("cpu").device | a.to(i).dtype | a.type_as(i) | a.double().dtype | a.half().dtype
a.long() | a.int().dtype | a.short().dtype | a.bool() | i.float() | i.char().dtype | a.expand_as(a).shape
v.expand_as(a) | a.split([1, 2], dim=1) | a.chunk(2, 1) | a.tril(-1) | a.triu(-1) | a.gather(0, i % 2)
a.clone().fill_(2.0) | a.clone().zero_() | a.clone().clamp_(0.0, 1.0) | a.clone().clamp_(max=0.5) | a.clone().relu_()
a.clone().masked_fill_(m, 9.0) | a.clone().copy_(v) | a.clone().add_(b, alpha=2) | a.clone().mul_(2)
a.add(b, alpha=3) | a.sub(b, alpha=2) | a.clone().sub_(b, alpha=3) | torch.add(a, 2, alpha=3)
torch.sub(i, i, alpha=2) | torch.add(i, 1) | torch.div(a, b, rounding_mode="floor")
torch.div(a, b, rounding_mode="trunc") | torch.div(i, -4, rounding_mode="trunc")
torch.div(i, -4, rounding_mode="floor") | torch.div(i, 2) | torch.div(a, b, rounding_mode="up") | torch.logical_not(m)
torch.logical_xor(m, ~m) | torch.multinomial(p, 4, replacement=True).shape
torch.promote_types(torch.int32, torch.float16) | torch.result_type(i, a) | F.relu(a, inplace=False)
F.leaky_relu(a, 0.3) | F.elu(a) | F.elu(a, alpha=0.5) | F.softmax(a, dim=0) | F.softmax(a, dim=1, dtype=torch.float64)
F.log_softmax(a, dim=0) | F.dropout(a, 1.0) | F.embedding(k, a.T, padding_idx=0) | F.one_hot(k, 4) | F.one_hot(k)
F.layer_norm(a, (3,), weight=v, bias=-v) | F.layer_norm(a, (2, 3)) | F.layer_norm(a, (3,), eps=1.0)
F.rms_norm(a, (3,)) | F.rms_norm(a, (3,), weight=v) | F.rms_norm(a, (3,), eps=1.0).detach()
F.normalize(a, p=1.0, dim=0) | F.normalize(a * 0, eps=1.0) | F.cosine_similarity(a, b, dim=0)
F.cosine_similarity(a, 0 * b, eps=0.5) | F.pad(a, (1, -1)) | F.pad(a, (-1, 0, 0, -1)) | F.pad(a, (0, 0, -1, 2))
F.pad(a, (0, 1), value=2.5) | F.pad(c, (1, 0, 0, 1), mode="constant").shape | F.cross_entropy(a, k, weight=v.abs())
F.cross_entropy(a, k, reduction="sum") | F.cross_entropy(a, torch.tensor([2, -100]))
F.cross_entropy(a, k, ignore_index=0) | F.cross_entropy(a, p, reduction="none")
F.cross_entropy(a, k, weight=v.abs(), label_smoothing=0.2)
F.cross_entropy(a, p, label_smoothing=0.2, reduction="sum")
F.cross_entropy(c, torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])) | F.cross_entropy(a[0], k[0])
F.nll_loss(a, k, weight=v.abs()) | F.nll_loss(a, k, reduction="none") | F.nll_loss(a, k, ignore_index=2)
F.mse_loss(a, b, reduction="none") | F.mse_loss(a, b, reduction="sum") | F.l1_loss(a, b, reduction="none")
F.l1_loss(a, b, reduction="sum") | F.smooth_l1_loss(a, b) | F.smooth_l1_loss(a, b, beta=3.0)
F.smooth_l1_loss(a, b, reduction="sum") | F.huber_loss(a, b) | F.huber_loss(a, b, delta=2.0)
F.huber_loss(a, b, reduction="none") | F.binary_cross_entropy(p, m.float(), reduction="none")
F.binary_cross_entropy(p, m.float(), weight=v.abs()) | F.binary_cross_entropy_with_logits(a, p, reduction="sum")
F.binary_cross_entropy_with_logits(a, p, pos_weight=v.abs())
F.binary_cross_entropy_with_logits(a, p, weight=v.abs()) | F.kl_div(a, p, reduction="sum")
F.kl_div(a, p, reduction="none") | F.kl_div(a, b, reduction="batchmean", log_target=True)
F.scaled_dot_product_attention(c, c, c) | F.scaled_dot_product_attention(c, c, c, scale=0.1)
F.scaled_dot_product_attention(c, c, c, attn_mask=m[:1].expand(3, 3))
nn.CrossEntropyLoss(weight=v.abs(), reduction="sum")(a, k) | nn.CrossEntropyLoss(ignore_index=2)(a, k)
nn.CrossEntropyLoss(label_smoothing=0.3)(a, k) | nn.NLLLoss(reduction="none")(a, k)
nn.MSELoss(reduction="sum")(a, b) | nn.L1Loss(reduction="none")(a, b) | nn.SmoothL1Loss(reduction="sum")(a, b)
nn.HuberLoss(reduction="none")(a, b) | nn.BCELoss(reduction="sum")(p, m.float())
nn.BCEWithLogitsLoss(reduction="none")(a, p) | nn.GELU(approximate="tanh")(a) | nn.LeakyReLU(0.4)(a)
nn.LeakyReLU(0.4) | nn.ELU(0.5)(a) | nn.ELU(0.5) | nn.Softplus()(a) | nn.Softmax(dim=0)(a) | nn.LogSoftmax(dim=0)(a)
nn.Flatten(0, 1)(c).shape | nn.Flatten(start_dim=1, end_dim=2) | nn.Identity(3, x=1)(v) | nn.Dropout(1.0)(a)
nn.Dropout(0.9).eval()(a) | nn.LayerNorm(3, eps=1.0)(a) | nn.LayerNorm(3, elementwise_affine=False)(a)
nn.LayerNorm((2, 3))(a) | nn.LayerNorm(3, bias=False) | nn.RMSNorm(3, eps=1.0)(a).detach()
nn.RMSNorm(3, elementwise_affine=False)(a) | nn.Linear(3, 2, dtype=torch.float64).weight.dtype
nn.Embedding(4, 2, padding_idx=1).weight[1] | nn.Embedding(4, 2, padding_idx=1) | nn.Linear(3, 2, bias=False)(a).shape
nn.Embedding.from_pretrained(a)(k % 2) | nn.Embedding.from_pretrained(a, freeze=False).weight.requires_grad
nn.init.calculate_gain("leaky_relu", 0.3) | nn.init.calculate_gain("tanh") | nn.init.constant_(torch.empty(2), 3.0)
nn.init.uniform_(torch.empty(3), -1.0, 2.0) | nn.init.normal_(torch.empty(3), 1.0, 0.1)
nn.init.xavier_uniform_(torch.empty(2, 3), gain=2.0) | nn.init.xavier_normal_(torch.empty(2, 3), gain=0.5)
nn.init.kaiming_uniform_(torch.empty(2, 3), a=math.sqrt(5))
nn.init.kaiming_normal_(torch.empty(2, 3), mode="fan_out", nonlinearity="relu") | nn.init.ones_(torch.empty(2))
nn.init.zeros_(torch.empty(1)) | nn.init.kaiming_uniform_(torch.empty(2, 3), nonlinearity="tanh")
torch.empty(3).uniform_(2.0, 3.0) | torch.empty(3).normal_(5.0, 0.1) | torch.randint(3, 9, (4,))
torch.normal(2.0, 0.5, (3,)) | torch.normal(v, 0.1) | torch.normal(0.0, v.abs()) | torch.bernoulli(p)
torch.randint_like(i, 5)
"""


def shown(expression):
    try:
        return eval(expression, names)
    except Exception as error:
        return type(error).__name__


for line in EXPRESSIONS.split("\n"):
    for expression in filter(None, (part.strip() for part in line.split(" | "))):
        print(expression, "→", shown(expression))

q = nn.init.orthogonal_(torch.empty(4, 2, 3), gain=2.0).reshape(4, 6)
print((q @ q.T).round(decimals=4) + 0.0)

torch.manual_seed(0)
x = torch.rand(2, 3, 4)
later = torch.ones(2, 2).triu(1).bool()
CALLS = ({}, {"need_weights": True, "average_attn_weights": False}, {"attn_mask": later}, {"need_weights": False})
for options in ({}, {"bias": False}, {"batch_first": True}, {"dropout": 0.5}):
    layer = nn.MultiheadAttention(4, 2, **options)
    given = x.transpose(0, 1) if options.get("batch_first") else x  # 2 positions of 3 texts
    for call in CALLS:
        y, weights = layer(given, given, given, **call)
        print(options, list(call), y.shape, y.sum(), weights if weights is None else weights[0].detach())
    print([name for name, _ in layer.named_parameters()])
y, weights = nn.MultiheadAttention(4, 1, bias=False)(x[0], x[0], x[0])
print(y.shape, weights.detach())

handles, calls = [], []
layer = nn.Linear(4, 1)
with layer.register_forward_hook(lambda module, inputs, output: calls.append(output.shape)):
    layer(x)
layer(x)
handle = layer.register_forward_hook(lambda module, inputs, output: output * 0)
print(layer(x).abs().sum(), calls)
handle.remove()
handle.remove()
print((layer(x) != 0).all())
