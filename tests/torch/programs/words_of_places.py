import torch

x = torch.arange(6.0).reshape(2, 3)
x.add_(1)
print(x)
x.mul_(2).sub_(0.5)
print(x)
x.div_(2)
x.zero_()
print(x)
x.fill_(3.0)
x[0, 1] = 7
x[1] = torch.tensor([1.0, 2.0, 3.0])
print(x)
x[x > 2] = 0
print(x)
x[:, 0] += 5
print(x)
x.clamp_(min=1, max=4)
print(x)
y = x.clone()
y[0, 0] = 100
print(x, y)
torch.manual_seed(0)
x.normal_()
print(x)
x.uniform_(-1, 1)
print(x)
x.copy_(torch.ones(2, 3))
print(x)
x.masked_fill_(torch.eye(2, 3).bool(), 9)
print(x)
z = torch.zeros(3, 5)
z.scatter_(1, torch.tensor([[0], [2], [4]]), 1.0)
print(z)
z.index_fill_(1, torch.tensor([1]), -1)
print(z)
v = x.view(-1)
v[0] = -3
print(x)
x += 1
x *= 2
x -= 1
x /= 3
print(x)
print(x.abs(), x.neg(), -x, x.sqrt(), x.exp(), x.log(), x.pow(2), x**0.5, 2**x, 1 / x, x.reciprocal(), x.rsqrt())
print(x.round(), x.floor(), x.ceil(), x.sign(), torch.round(x, decimals=2), x % 2, x // 2, 5 - x)
print(torch.clamp(x, 0, 1), x.clamp(min=0.5), x.T, x.t())
a = torch.zeros(2, 2, dtype=torch.int64)
a[0, 0] += 3
print(a, a.dtype)
b = torch.randperm(8)
print(b)
print(
    torch.bernoulli(torch.full((2, 4), 0.5)),
    torch.randint(5, (3,)),
    torch.randint(2, 9, (2, 2)),
    torch.rand_like(x),
    torch.randn_like(x),
)
