"""Chapter 7: batches of unequal texts: padded, shifted, and ignored after the first end; DPO's loss of pairs."""

from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader


def collate(batch, pad_id=50256, ignore_index=-100, allowed_max_length=None, device="cpu"):
    width = max(len(item) + 1 for item in batch)
    inputs_list, targets_list = [], []
    for item in batch:
        padded = [*item, pad_id] + [pad_id] * (width - len(item) - 1)
        inputs, targets = torch.tensor(padded[:-1]), torch.tensor(padded[1:])
        indices = torch.nonzero(targets == pad_id).squeeze()
        if indices.numel() > 1:
            targets[indices[1:]] = ignore_index
        if allowed_max_length is not None:
            inputs, targets = inputs[:allowed_max_length], targets[:allowed_max_length]
        inputs_list.append(inputs)
        targets_list.append(targets)
    return torch.stack(inputs_list).to(device), torch.stack(targets_list).to(device)


inputs, targets = collate(([0, 1, 2, 3, 4], [5, 6], [7, 8, 9]))
print(inputs)
print(targets)
short = partial(collate, allowed_max_length=3, device=torch.device("cpu"))
rows = [list(range(i, 2 * i + 1)) for i in range(1, 8)]
torch.manual_seed(123)
for x, y in DataLoader(rows, batch_size=3, shuffle=True, collate_fn=short):
    print(x.shape, y.tolist())

# preferences: log-probabilities of two answers, by a policy and by a reference
torch.manual_seed(4)
logits = torch.randn(2, 5, 7, requires_grad=True)
labels = torch.randint(0, 7, (2, 5))
mask = torch.ones_like(labels).bool()
mask[0, :2] = False
mask[1, 3:] = False
log_probs = F.log_softmax(logits[:, :-1, :], dim=-1)
selected = torch.gather(input=log_probs, dim=-1, index=labels[:, 1:].unsqueeze(-1)).squeeze(-1)
mask = mask[:, 1:].clone()
average = (selected * mask).sum(-1) / mask.sum(-1)
print(selected)
print(average)
reference = torch.tensor([-2.0, -2.5])
margin = average[0] - average[1] - (reference[0] - reference[1])
loss = -F.logsigmoid(0.1 * margin)
print(margin, loss, loss.mean())
loss.backward()
print(logits.grad[0, :, :3])
print((-F.logsigmoid(torch.zeros(1))).item())
