"""Chapter 2: token and position embeddings, and an embedding as a product with one-hot rows."""

import torch

torch.manual_seed(123)
layer = torch.nn.Embedding(6, 3)
print(layer)
print(layer.weight)
print(layer(torch.tensor([3])))
print(layer(torch.tensor([2, 3, 5, 1])))

torch.manual_seed(0)
tokens = torch.nn.Embedding(50, 16)
positions = torch.nn.Embedding(4, 16)
batch = torch.arange(32).reshape(8, 4)
embedded = tokens(batch)
print(embedded.shape)
print(positions(torch.arange(4)).shape)
together = embedded + positions(torch.arange(4))
print(together.shape)
print(together[0, :, :4])
print(together.mean(), together.std())

# the same as a linear layer on one-hot rows
ids = torch.tensor([2, 3, 1])
onehot = torch.nn.functional.one_hot(ids)
print(onehot)
torch.manual_seed(123)
table = torch.nn.Embedding(max(ids) + 1, 5)
linear = torch.nn.Linear(4, 5, bias=False)
print(linear.weight)
linear.weight = torch.nn.Parameter(table.weight.T)
print(linear(onehot.float()))
print(table(ids))
print(torch.allclose(linear(onehot.float()), table(ids)))
