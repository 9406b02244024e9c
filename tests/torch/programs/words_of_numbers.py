import torch

torch.manual_seed(10)
x = torch.randn(4, 4)
print(x[x > 0].shape, (x > 0).sum(dim=1), x.where(x > 0, torch.zeros_like(x)), torch.where(x > 0, 1, 0))
print(x.argsort(dim=1), x.topk(2, dim=0), x.kthvalue(2) if False else "", x.max(1)[0], x.min(dim=0).indices)
print(x.softmax(dim=-1).sum(-1), x.log_softmax(-1).exp().sum(-1), x.sigmoid(), x.tanh().abs().max())
a, b = x.split([1, 3], dim=1)
print(a.shape, b.shape, *[c.shape for c in x.chunk(3)])
print(torch.stack([x.sum(0), x.mean(0), x.std(0), x.var(0, unbiased=False)]))
print(x.triu(1), x.tril(-1).count_nonzero(), x.diagonal(), x.T.contiguous().view(-1)[:5])
print(torch.einsum("ij,ij->i", x, x), torch.einsum("bi,bj->bij", x, x).shape, x.unsqueeze(1).expand(4, 3, 4).shape)
x[0] = 1
x[:, 1] = torch.arange(4.0)
x[1, 2:] *= -1
print(x)
i = torch.tensor([[0, 1], [2, 3]])
print(x[i].shape, x[:, [0, -1]], x[torch.arange(4), torch.tensor([3, 2, 1, 0])])
print(x.numpy().dtype, x.int(), x.long().sum(), x.bool().any(1), x.flatten().tolist()[:3], x.mean().item() > 0)
print(
    torch.cat([torch.tensor([1, 2]), torch.tensor([3.5])]),
    torch.tensor([1, 2]) == torch.tensor([1, 3]),
    torch.zeros(2).eq(0).all(),
)
for name in ("exp", "sqrt", "log", "sin", "cos", "tanh", "relu", "abs", "neg", "sign", "floor", "ceil"):
    print(name, getattr(torch, name)(torch.tensor([0.5, 1.5])))
