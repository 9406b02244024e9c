"""Chapter 5: a training loop with dropout, AdamW, evaluations and samples, as the book builds it."""

import torch
from gpt_of_the_book import GPT, config, generate_simple
from torch.utils.data import DataLoader, Dataset

TEXT = "the cat sat on the mat. the dog sat on the log. the cat saw the dog and the dog saw the cat. " * 8
letters = sorted(set(TEXT))
encode = {c: i for i, c in enumerate(letters)}


class Letters(Dataset):
    def __init__(self, text, length):
        ids = [encode[c] for c in text]
        starts = range(0, len(ids) - length, length)
        self.pairs = [(torch.tensor(ids[i : i + length]), torch.tensor(ids[i + 1 : i + length + 1])) for i in starts]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


def loss_of_batch(x, y, model, device):
    x, y = x.to(device), y.to(device)
    return torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def loss_of_loader(loader, model, device, batches=None):
    total, n = 0.0, min(batches or len(loader), len(loader))
    for i, (x, y) in enumerate(loader):
        if i >= n:
            break
        total += loss_of_batch(x, y, model, device).item()
    return total / n


def evaluate(model, train_loader, val_loader, device, batches):
    model.eval()
    with torch.no_grad():
        losses = [loss_of_loader(loader, model, device, batches) for loader in (train_loader, val_loader)]
    model.train()
    return losses


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(123)
cut = int(0.9 * len(TEXT))
train_loader = DataLoader(Letters(TEXT[:cut], 16), batch_size=4, shuffle=True, drop_last=True)
val_loader = DataLoader(Letters(TEXT[cut:], 16), batch_size=4, shuffle=False, drop_last=False)
print(len(train_loader), len(val_loader))
torch.manual_seed(123)
model = GPT(config(vocab_size=len(letters)))
model.to(device)
print([round(x, 4) for x in evaluate(model, train_loader, val_loader, device, 5)])
optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.1)
step = -1
for epoch in range(3):
    model.train()
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = loss_of_batch(x, y, model, device)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 5 == 0:
            train_loss, val_loss = evaluate(model, train_loader, val_loader, device, 2)
            print(f"Ep {epoch + 1} (Step {step:06d}): Train loss {train_loss:.3f}, Val loss {val_loss:.3f}")
    model.eval()
    start = torch.tensor([encode[c] for c in "the "]).unsqueeze(0)
    out = generate_simple(model, start, 12, 16)
    print("".join(letters[i] for i in out.squeeze(0).tolist()))
print(loss)
