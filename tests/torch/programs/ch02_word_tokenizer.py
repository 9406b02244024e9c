"""Chapter 2: a text becomes words, words become ids, and ids become a tensor."""

import re

import torch

TEXT = "The sun rose. The cat woke, and the dog -- slowly -- woke too! Was it morning? It was."
words = [w for w in re.split(r'([,.:;?_!"()\']|--|\s)', TEXT) if w.strip()]
vocabulary = {word: i for i, word in enumerate(sorted(set(words)))}
ids = torch.tensor([vocabulary[w] for w in words])
print(len(words), len(vocabulary))
print(ids)
print(ids.dtype, ids.shape, ids.ndim, ids.numel())
back = {i: word for word, i in vocabulary.items()}
print(" ".join(back[i] for i in ids.tolist()))
print(torch.bincount(ids))
print(torch.unique(ids).numel(), ids.max().item(), ids.min().item())
print((ids == vocabulary["woke"]).nonzero().squeeze(1))
