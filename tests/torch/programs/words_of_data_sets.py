import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"x": torch.tensor([float(i)]), "y": i * i}


dl = DataLoader(Squares(5), batch_size=2, shuffle=False)
for b in dl:
    print(b)
print(len(ConcatDataset([Squares(2), Squares(3)])), ConcatDataset([Squares(2), Squares(3)])[3])


class It(IterableDataset):
    def __iter__(self):
        return iter(range(5))


print(list(DataLoader(It(), batch_size=2)))
torch.manual_seed(123)
print(
    list(RandomSampler(range(5))),
    list(SequentialSampler(range(3))),
    list(BatchSampler(SequentialSampler(range(5)), 2, drop_last=True)),
)
torch.manual_seed(123)
print([b.tolist() for b in DataLoader(range(5), batch_size=2, sampler=RandomSampler(range(5)))])
print(default_collate([(1, 2.0), (3, 4.0)]))
print(list(DataLoader(range(3))))
print(list(DataLoader(range(4), batch_size=None)))
torch.manual_seed(123)
print(
    [b.tolist() for b in DataLoader(list(range(10)), batch_size=4, shuffle=True, pin_memory=False, num_workers=0)],
    torch.rand(1),
)
it = iter(DataLoader(range(3)))
next(it)
next(it)
next(it)
try:
    next(it)
except StopIteration:
    print("done")
print(
    len(DataLoader(range(10), batch_size=3)),
    len(DataLoader(range(10), batch_size=3, drop_last=True)),
    isinstance(Squares(1), Dataset),
    DataLoader(range(2)).drop_last,
)
