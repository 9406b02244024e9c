import torch

x = torch.arange(24)
print(
    x.view(2, 3, 4),
    x.view(-1, 6).shape,
    x.reshape(4, -1).shape,
    x.view(2, 3, 4).transpose(0, 2).shape,
    x.view(2, 3, 4).permute(2, 0, 1)[0],
)
t = x.view(2, 3, 4)
print(
    t[:, 1:, ::2],
    t[0, [0, 2]],
    t[..., 0],
    t[t > 20],
    t[:, :, None].shape,
    t[torch.tensor([1, 0]), torch.tensor([0, 2])],
    t[-1, -1, -1],
)
print(
    t.flatten(),
    torch.flatten(t, start_dim=1).shape,
    t.movedim(0, -1).shape,
    t.swapaxes(0, 1).shape,
    t.ravel().shape,
    t.unflatten(2, (2, 2)).shape,
    t.squeeze().shape,
    t.narrow(2, 1, 2).shape,
)
print(
    torch.tril(torch.ones(3, 3)),
    torch.triu(torch.ones(3, 3), 1),
    torch.tril(torch.ones(3, 3), diagonal=-1),
    torch.diag(torch.tensor([1, 2])),
    torch.diagonal(torch.ones(2, 2)),
    torch.eye(2).triu(),
)
print(
    torch.cat((t, t), dim=2).shape,
    torch.stack((t, t), dim=1).shape,
    torch.hstack((torch.ones(2), torch.zeros(1))),
    torch.vstack((torch.ones(2), torch.zeros(2))),
    torch.concat([x[:2], x[2:4]]),
)
print(
    torch.roll(x[:5], 1),
    torch.flip(x[:4], dims=[0]),
    x[:6].view(2, 3).flip(1),
    torch.tile(x[:2], (2,)),
    torch.broadcast_to(x[:2], (2, 2)),
    torch.meshgrid(x[:2], x[:3], indexing="ij"),
)
print(
    t.sum((0, 1)),
    t.float().mean(dim=(1, 2)),
    t.max(dim=1),
    t.min(),
    t.argmax(dim=2),
    t.amax(dim=(0, 1)),
    t.any(),
    t.float().norm(),
    t.float().median(),
    t.cumsum(dim=1)[0],
    t.float().var(dim=0).shape,
)
print(
    torch.unique(torch.tensor([3, 1, 1, 2])),
    torch.unique(torch.tensor([3, 1, 1]), return_counts=True),
    torch.bincount(torch.tensor([0, 1, 1])),
    torch.isin(x[:5], torch.tensor([1, 3])),
    torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([2, 6])),
    torch.count_nonzero(x),
)
print(
    torch.index_select(t, 2, torch.tensor([0, 3])).shape,
    torch.take_along_dim(t, t.argmax(2, keepdim=True), dim=2).shape,
    torch.where(t > 12),
    torch.where(t > 12, t, 0)[1, 0],
    torch.masked_select(t, t < 3),
    t.masked_fill(t > 3, -1)[0],
)
print(
    t.stride(),
    t.is_contiguous(),
    t.T.shape if t.ndim == 2 else "",
    t.mT.shape,
    t.dim(),
    t.shape == (2, 3, 4),
    t.shape[:2],
    t.size(-1),
    *t.shape,
)
for row in t[0]:
    print(row)
for i, (a, b) in enumerate(zip(t[0], t[1], strict=True)):
    print(i, a[0].item(), b[-1])
a, b = torch.tensor([1, 2])
print(
    a,
    b,
    2 in torch.tensor([1, 2]),
    torch.tensor([1, 2, 3])[1:].tolist(),
    sum(torch.tensor([1, 2, 3])),
    max(torch.tensor([1, 5, 3])),
    torch.tensor([1, 2, 3]).__len__(),
    [int(i) for i in torch.tensor([1, 2])],
    list(range(torch.tensor(3))),
    [10, 20, 30][torch.tensor(1)],
)
print(
    torch.allclose(torch.tensor([1.0]), torch.tensor([1.0 + 1e-9])),
    torch.equal(x, x.clone()),
    (x == x).all().item(),
    torch.isclose(torch.tensor([1.0]), torch.tensor([1.1])),
    torch.ne(x[:2], 1),
    torch.numel(x),
    hash(x) is not None,
    {x: 1}[x],
)
