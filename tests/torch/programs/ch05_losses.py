"""Chapter 5: probabilities of targets, cross-entropy by hand and by name, perplexity, ignored targets."""

import torch
from gpt_of_the_book import GPT, config

torch.manual_seed(123)
model = GPT(config(drop_rate=0.0))
model.eval()
inputs = torch.tensor([[16, 36, 6], [40, 11, 58]])
targets = torch.tensor([[36, 6, 34], [11, 58, 13]])
with torch.no_grad():
    logits = model(inputs)
probas = torch.softmax(logits, dim=-1)
print(probas.shape)
ids = torch.argmax(probas, dim=-1, keepdim=True)
print("Token IDs:\n", ids)
print(probas[0, [0, 1, 2], targets[0]])
first = probas[0, torch.arange(3), targets[0]]
second = probas[1, torch.arange(3), targets[1]]
log_probas = torch.log(torch.cat((first, second)))
print(log_probas)
average = torch.mean(log_probas)
print(average, average * -1)
flat, flat_targets = logits.flatten(0, 1), targets.flatten()
print(flat.shape, flat_targets.shape)
loss = torch.nn.functional.cross_entropy(flat, flat_targets)
print(loss, torch.exp(loss))
print(torch.nn.functional.cross_entropy(flat, flat_targets, reduction="sum"))
print(torch.nn.CrossEntropyLoss(label_smoothing=0.1)(flat, flat_targets))
two = torch.tensor([[-1.0, 1.0], [-0.5, 1.5]])
print(torch.nn.functional.cross_entropy(two, torch.tensor([0, 1])))
three = torch.tensor([[-1.0, 1.0], [-0.5, 1.5], [-0.5, 1.5]])
print(torch.nn.functional.cross_entropy(three, torch.tensor([0, 1, 1])))
print(torch.nn.functional.cross_entropy(three, torch.tensor([0, 1, -100])))
log_p = torch.log_softmax(three, dim=-1)
print(log_p)
print(torch.gather(log_p, dim=-1, index=torch.tensor([[0], [1], [1]])).squeeze(-1))
print(torch.nn.functional.nll_loss(log_p, torch.tensor([0, 1, 1])))
