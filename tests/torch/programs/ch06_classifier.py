"""Chapter 6: a GPT becomes a classifier: frozen, with a new head, trained on its last position."""

import torch
from gpt_of_the_book import GPT, config
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(123)
model = GPT(config(drop_rate=0.0))
for param in model.parameters():
    param.requires_grad = False
torch.manual_seed(123)
model.out_head = torch.nn.Linear(in_features=24, out_features=2)
for part in (model.trf_blocks[-1], model.final_norm):
    for param in part.parameters():
        param.requires_grad = True
print([name for name, p in model.named_parameters() if p.requires_grad])
print(sum(p.numel() for p in model.parameters() if p.requires_grad))
torch.manual_seed(1)
ids = torch.randint(0, 61, (40, 8))
labels = (ids[:, -1] > 30).long()
train = DataLoader(TensorDataset(ids[:32], labels[:32]), batch_size=8, shuffle=True, drop_last=True)
test = DataLoader(TensorDataset(ids[32:], labels[32:]), batch_size=4)


def accuracy(loader):
    model.eval()
    right = seen = 0
    for x, y in loader:
        with torch.no_grad():
            logits = model(x)[:, -1, :]
        predicted = torch.argmax(logits, dim=-1)
        seen += predicted.shape[0]
        right += (predicted == y).sum().item()
    return right / seen


with torch.no_grad():
    outputs = model(ids[:1])
print(outputs, outputs.shape)
print(torch.softmax(outputs[:, -1, :], dim=-1))
print(accuracy(train), accuracy(test))
torch.manual_seed(123)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
for epoch in range(4):
    model.train()
    for x, y in train:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x)[:, -1, :], y)
        loss.backward()
        optimizer.step()
    print(f"{epoch} {loss.item():.4f} {accuracy(train) * 100:.2f}% {accuracy(test) * 100:.2f}%")
print(model.tok_emb.weight.grad, model.out_head.bias)
