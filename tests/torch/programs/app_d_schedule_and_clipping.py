"""Appendix D: the learning rate warms up and falls as a cosine; gradients are clipped."""

import math

import torch
from gpt_of_the_book import GPT, config


def highest_gradient(model):
    highest = None
    for param in model.parameters():
        if param.grad is not None:
            largest = param.grad.data.flatten().max()
            if highest is None or largest > highest:
                highest = largest
    return highest


torch.manual_seed(123)
model = GPT(config(drop_rate=0.0, n_layers=1))
ids = torch.randint(0, 61, (2, 13))
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
peak_lr, initial_lr, min_lr, warmup, total = 0.01, 0.0001, 0.00001, 4, 20
for step in range(total):
    if step < warmup:
        lr = initial_lr + step * (peak_lr - initial_lr) / warmup
    else:
        lr = min_lr + (peak_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    if step == 0:
        print(highest_gradient(model))
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    if step == 0:
        print(norm, highest_gradient(model))
    optimizer.step()
    if step % 4 == 0:
        print(f"{step} {optimizer.param_groups[0]['lr']:.6f} {loss.item():.3f} {norm:.3f}")
p = torch.nn.Parameter(torch.zeros(2, 2))
p.grad = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
print(torch.nn.utils.clip_grad_norm_([p], 1.0), p.grad)
groups = torch.optim.AdamW([{"params": [p], "lr": 0.1}, {"params": model.out_head.parameters()}], lr=1e-3)
print([group["lr"] for group in groups.param_groups], len(groups.param_groups[1]["params"]))
