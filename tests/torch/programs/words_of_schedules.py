import math

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

torch.manual_seed(123)
m = nn.Linear(4, 3)
opt = torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1)
peak = opt.param_groups[0]["lr"]
warm, total, init, low = 5, 20, 1e-4, 1e-5
lrs, norms = [], []
x, y = torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
for s in range(total):
    opt.zero_grad()
    lr = (
        init + s * (peak - init) / warm
        if s < warm
        else low + (peak - low) * 0.5 * (1 + math.cos(math.pi * (s - warm) / (total - warm)))
    )
    for g in opt.param_groups:
        g["lr"] = lr
    lrs.append(opt.param_groups[0]["lr"])
    loss = nn.functional.cross_entropy(m(x), y)
    loss.backward()
    if s >= warm:
        norms.append(torch.nn.utils.clip_grad_norm_(m.parameters(), max_norm=0.2))
    opt.step()
print([round(lr, 6) for lr in lrs])
print(torch.stack(norms))
print(loss, norms[0])


def biggest(model):
    best = None
    for p in model.parameters():
        if p.grad is not None:
            for v in p.grad.flatten():
                if best is None or v > best:
                    best = v
    return best


print(biggest(m))
print(opt)
opt = torch.optim.SGD(m.parameters(), lr=1.0, momentum=0.9)
sch = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=5)
for _ in range(6):
    print(round(sch.get_last_lr()[0], 5), end=" ")
    opt.step()
    sch.step()
print()
opt = torch.optim.Adam([{"params": [m.weight], "lr": 0.1}, {"params": [m.bias]}], lr=0.2)
sch = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1, (s + 1) / 4))
for _ in range(5):
    print(sch.get_last_lr())
    opt.step()
    sch.step()
opt = torch.optim.SGD(m.parameters(), lr=1.0)
s = StepLR(opt, step_size=2, gamma=0.5)
for _ in range(4):
    opt.step()
    s.step()
    print(opt.param_groups[0]["lr"], end=" ")
print(sorted(opt.param_groups[0].keys())[:3])
G = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
p = nn.Parameter(torch.zeros(2, 2))
p.grad = G.clone()
print(torch.nn.utils.clip_grad_norm_([p], 1.0), p.grad, G.norm(), torch.linalg.norm(G))
torch.nn.utils.clip_grad_value_([p], 0.3)
print(p.grad)
