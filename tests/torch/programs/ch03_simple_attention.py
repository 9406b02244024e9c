"""Chapter 3: attention without weights, first for one query with loops, then for all with products."""

import torch

inputs = torch.tensor(
    [[0.12, 0.85, 0.40], [0.70, 0.15, 0.33], [0.28, 0.91, 0.05], [0.64, 0.42, 0.77], [0.09, 0.31, 0.58]]
)
query = inputs[1]
scores = torch.empty(inputs.shape[0])
for i, x in enumerate(inputs):
    scores[i] = torch.dot(x, query)
print(scores)
total = 0.0
for j, element in enumerate(inputs[0]):
    total += element * query[j]
print(total, torch.dot(inputs[0], query))
print(scores / scores.sum())


def naive(x):
    return torch.exp(x) / torch.exp(x).sum(dim=0)


weights = naive(scores)
print("weights:", weights, "sum:", weights.sum())
weights = torch.softmax(scores, dim=0)
print(weights)
context = torch.zeros(query.shape)
for i, x in enumerate(inputs):
    context += weights[i] * x
print(context)

table = torch.empty(5, 5)
for i, a in enumerate(inputs):
    for j, b in enumerate(inputs):
        table[i, j] = torch.dot(a, b)
print(table)
print(torch.allclose(table, inputs @ inputs.T))
weights = torch.softmax(inputs @ inputs.T, dim=-1)
print(weights)
print("row sums:", weights.sum(dim=-1))
print(weights @ inputs)
print(inputs.shape, inputs.size(0), inputs.T.shape)
