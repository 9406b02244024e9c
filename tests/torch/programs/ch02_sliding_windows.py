"""Chapter 2: windows over a row of ids, with inputs and targets shifted by one."""

import torch
from torch.utils.data import DataLoader, Dataset


class Windows(Dataset):
    def __init__(self, ids, length, stride):
        self.inputs, self.targets = [], []
        for i in range(0, len(ids) - length, stride):
            self.inputs.append(torch.tensor(ids[i : i + length]))
            self.targets.append(torch.tensor(ids[i + 1 : i + length + 1]))

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return self.inputs[i], self.targets[i]


def loader(length, stride, batch_size, shuffle=False, drop_last=True):
    return DataLoader(
        Windows(list(range(101)), length, stride),
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=0,
    )


batches = iter(loader(4, 1, 1))
print(next(batches))
print(next(batches))
inputs, targets = next(iter(loader(4, 4, 8)))
print("Inputs:\n", inputs)
print("\nTargets:\n", targets)
print(len(loader(4, 4, 8)), len(loader(4, 4, 8, drop_last=False)))
torch.manual_seed(123)
for x, y in loader(4, 4, 7, shuffle=True):
    last = x, y
print(last)
print(torch.rand(2))
for seed in (0, 789):
    torch.manual_seed(seed)
    data = loader(5, 5, 3, shuffle=True, drop_last=False)
    print([x[:, 0].tolist() for x, _ in data])
    print([x[:, 0].tolist() for x, _ in data])
