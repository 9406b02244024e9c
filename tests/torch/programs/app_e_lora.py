"""Appendix E: LoRA: every linear layer gets a small trained one beside it, by walking the children of a model."""

import math

import torch
from gpt_of_the_book import GPT, config


class LoRALayer(torch.nn.Module):
    def __init__(self, in_dim, out_dim, rank, alpha):
        super().__init__()
        self.A = torch.nn.Parameter(torch.empty(in_dim, rank))
        torch.nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.B = torch.nn.Parameter(torch.zeros(rank, out_dim))
        self.scaling = alpha / rank

    def forward(self, x):
        return self.scaling * (x @ self.A @ self.B)


class WithLoRA(torch.nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        self.lora = LoRALayer(linear.in_features, linear.out_features, rank, alpha)

    def forward(self, x):
        return self.linear(x) + self.lora(x)


def replace(model, rank, alpha):
    for name, module in model.named_children():
        if isinstance(module, torch.nn.Linear):
            setattr(model, name, WithLoRA(module, rank, alpha))
        else:
            replace(module, rank, alpha)


torch.manual_seed(123)
model = GPT(config(n_layers=1, drop_rate=0.0))
model.out_head = torch.nn.Linear(24, 2)
batch = torch.randint(0, 61, (4, 6))
before = model(batch)
for param in model.parameters():
    param.requires_grad = False
print(sum(p.numel() for p in model.parameters() if p.requires_grad))
replace(model, rank=4, alpha=8)
print(sum(p.numel() for p in model.parameters() if p.requires_grad))
print(model)
print(torch.equal(before, model(batch)))
print(model.trf_blocks[0].att.W_query.lora.A)
optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.1)
labels = torch.tensor([0, 1, 1, 0])
for _ in range(5):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(batch)[:, -1, :], labels)
    loss.backward()
    optimizer.step()
    print(f"{loss.item():.4f}")
print(model.out_head.lora.B)
w = torch.empty(3, 5)
print(torch.nn.init.xavier_uniform_(w))
print(torch.nn.init.normal_(w, std=0.02))
print(torch.nn.init.kaiming_normal_(w, nonlinearity="relu"))
