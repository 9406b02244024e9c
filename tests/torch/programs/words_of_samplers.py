import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split


class Spam(Dataset):
    def __init__(self, rows, max_length=None, pad=99):
        self.encoded = [r for r, _ in rows]
        self.labels = [label for _, label in rows]
        self.max_length = max_length or max(len(e) for e in self.encoded)
        self.encoded = [
            e[: self.max_length] + [pad] * (self.max_length - len(e[: self.max_length])) for e in self.encoded
        ]

    def __getitem__(self, i):
        return torch.tensor(self.encoded[i], dtype=torch.long), torch.tensor(self.labels[i], dtype=torch.long)

    def __len__(self):
        return len(self.labels)


rows = [(list(range(i % 5 + 1)), i % 2) for i in range(21)]
ds = Spam(rows)
print(ds.max_length, ds[3])
torch.manual_seed(123)
tl = DataLoader(dataset=ds, batch_size=8, shuffle=True, num_workers=0, drop_last=True)
*_, (x, y) = tl
print(x.shape, y.shape, y, f"{len(tl)} training batches")
a, b, c = random_split(ds, [11, 5, 5], generator=torch.Generator().manual_seed(42))
print(len(a), a.indices, b.indices, c[0])
print(Subset(ds, [0, 5])[1])
tr, te = random_split(range(10), [0.7, 0.3])
print(list(tr), list(te))
td = TensorDataset(torch.arange(6).float().view(3, 2), torch.tensor([0, 1, 2]))
print(len(td), td[1], list(DataLoader(td, batch_size=2)))
print(DataLoader(td, batch_size=2).batch_size)
w = torch.utils.data.WeightedRandomSampler([0.1, 0.9, 0.4], 5)
torch.manual_seed(0)
print(list(w))
print(next(iter(DataLoader([{"a": 1, "b": 2.0}, {"a": 3, "b": 4.0}], batch_size=2))))
print(next(iter(DataLoader([1, 2, 3, 4, 5], batch_size=3))), next(iter(DataLoader(["x", "y"], batch_size=2))))
