import torch
from torch import nn

m = nn.Linear(2, 2)


@torch.no_grad()
def ev(x):
    return m(x)


@torch.inference_mode()
def ev2(x):
    return m(x)


x = torch.ones(1, 2)
print(ev(x).requires_grad, ev2(x).requires_grad, m(x).requires_grad, torch.is_grad_enabled())
with torch.no_grad():
    print(torch.is_grad_enabled(), m(x).requires_grad)
    with torch.enable_grad():
        print(m(x).requires_grad)
with torch.set_grad_enabled(False):
    print(m(x).requires_grad)
x = torch.tensor([2.0, 3.0], requires_grad=True)
y = x**2
y.backward(torch.tensor([1.0, 0.5]))
print(x.grad)
y = (x**3).sum()
y.backward()
print(x.grad)
x.grad.zero_()
y = x.prod()
y.backward()
print(x.grad)
x.grad = None
a = x * 2
a.retain_grad()
(a**2).sum().backward()
print(a.grad, x.grad)
try:
    (x.detach() * 2).sum().backward()
except RuntimeError:
    print("RuntimeError")
z = (x * 2).sum()
z.backward()
try:
    (x * 2).backward()
except RuntimeError as e:
    print(e)
g = torch.autograd.grad((x**2).sum(), x)[0]
print(g)
try:
    x.numpy()
except RuntimeError as e:
    print(e)
print(x.detach().numpy())
x.register_hook(lambda g: print("grad", g))
(x * 3).sum().backward()
y = torch.ones(2, requires_grad=True)
try:
    y += 1
except RuntimeError as e:
    print(e)
try:
    torch.ones(2, 3) @ torch.ones(2, 3)
except RuntimeError as e:
    print(e)
try:
    torch.ones(2, 3) + torch.ones(2, 4)
except RuntimeError as e:
    print(e)
try:
    torch.arange(6).view(4, 2)
except RuntimeError as e:
    print(e)
try:
    m(torch.ones(1, 3))
except RuntimeError as e:
    print(e)
try:
    nn.Embedding(3, 2)(torch.tensor([5]))
except IndexError as e:
    print(e)
try:
    torch.tensor([1.0])[4]
except IndexError as e:
    print(e)
