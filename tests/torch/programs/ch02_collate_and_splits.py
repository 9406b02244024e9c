"""Chapter 2: data sets of other kinds, subsets, splits, and a function that makes batches."""

import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split

x = torch.arange(20.0).view(10, 2)
y = torch.tensor([0, 1] * 5)
data = TensorDataset(x, y)
print(len(data), data[3])
torch.manual_seed(42)
train, rest = random_split(data, [7, 3])
print(len(train), len(rest), list(train.indices), rest[0])
thirds = random_split(range(10), [0.5, 0.3, 0.2], generator=torch.Generator().manual_seed(1))
print([list(part.indices) for part in thirds])
even = Subset(data, range(0, 10, 2))
for xs, ys in DataLoader(even, batch_size=2):
    print(xs, ys)
both = ConcatDataset([even, rest])
print(len(both), both[-1])


def pad(rows):
    width = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


rows = [[1], [2, 3], [4, 5, 6], [7, 8, 9, 10], [11]]
for batch in DataLoader(rows, batch_size=2, collate_fn=pad):
    print(batch)
mixed = [{"text": f"t{i}", "n": i, "score": i / 4} for i in range(3)]
print(next(iter(DataLoader(mixed, batch_size=3))))
g = torch.Generator()
g.manual_seed(7)
print([b.tolist() for b in DataLoader(range(9), batch_size=4, shuffle=True, generator=g)])
