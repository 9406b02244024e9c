"""Chapter 5: sampling: multinomial draws, temperature, and the k most probable tokens."""

import torch

vocabulary = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
logits = torch.tensor([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79])
probas = torch.softmax(logits, dim=0)
print(torch.argmax(probas).item())
torch.manual_seed(123)
print(torch.multinomial(probas, num_samples=1).item())


def counts(probas):
    torch.manual_seed(123)
    sample = [torch.multinomial(probas, num_samples=1).item() for _ in range(500)]
    return torch.bincount(torch.tensor(sample), minlength=len(vocabulary))


for i, n in enumerate(counts(probas)):
    print(f"{n.item()} x {vocabulary[i]}")


def scaled(logits, temperature):
    return torch.softmax(logits / temperature, dim=0)


for temperature in (1, 0.1, 5):
    print(temperature, scaled(logits, temperature), counts(scaled(logits, temperature)))
top_logits, top_pos = torch.topk(logits, 3)
print(top_logits, top_pos)
print(torch.topk(logits, 2))
new_logits = torch.where(condition=logits < top_logits[-1], input=torch.tensor(float("-inf")), other=logits)
print(new_logits)
print(torch.softmax(new_logits, dim=0))
new = torch.full_like(logits, -torch.inf)
new[top_pos] = logits[top_pos]
print(new)


def generate(logits_of, idx, new_tokens, temperature=0.0, top_k=None, eos_id=None):
    for _ in range(new_tokens):
        logits = logits_of(idx)
        if top_k is not None:
            best, _ = torch.topk(logits, top_k)
            logits = torch.where(logits < best[:, -1:], torch.tensor(float("-inf")).to(logits.device), logits)
        if temperature > 0.0:
            logits = logits / temperature
            logits = logits - logits.max(dim=-1, keepdim=True).values
            idx_next = torch.multinomial(torch.softmax(logits, dim=-1), num_samples=1)
        else:
            idx_next = torch.argmax(logits, dim=-1, keepdim=True)
        if idx_next == eos_id:
            break
        idx = torch.cat((idx, idx_next), dim=1)
    return idx


torch.manual_seed(9)
table = torch.randn(30, 30) * 2
for options in ({}, {"temperature": 1.4, "top_k": 5}, {"temperature": 2.0}, {"temperature": 1.0, "eos_id": 7}):
    torch.manual_seed(123)
    print(generate(lambda idx: table[idx[:, -1]], torch.tensor([[3]]), 15, **options))
torch.manual_seed(123)
print(torch.multinomial(probas, 4), torch.multinomial(probas, 10, replacement=True))
print(torch.multinomial(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), 1))
