"""Chapter 4: a small GPT: its logits while training and not, its parameters, its printed form, greedy text."""

import torch
from gpt_of_the_book import GPT, Block, config, generate_simple

torch.manual_seed(123)
model = GPT(config())
batch = torch.tensor([[6, 36, 61 - 1, 3], [6, 11, 42, 25]])
logits = model(batch)
print(logits.shape)
print(logits)
total = sum(p.numel() for p in model.parameters())
print(f"Total number of parameters: {total:,}")
print("Token embedding layer shape:", model.tok_emb.weight.shape)
print("Output layer shape:", model.out_head.weight.shape)
tied = total - sum(p.numel() for p in model.out_head.parameters())
print(f"{tied:,} without the head, {total * 4 / (1024 * 1024):.2f} MB")
print(model)
torch.manual_seed(123)
block = Block(config(emb_dim=12))
print(block(torch.rand(2, 4, 12)).shape)
model.eval()
print(model(batch)[:, -1, :5])
out = generate_simple(model, torch.tensor([[6, 36, 60, 3]]), 6, 16)
print(out, len(out[0]))
print(out.squeeze(0).tolist())
print([name for name, _ in model.named_children()])
print({name: tuple(x.shape) for name, x in model.state_dict().items() if "trf_blocks.1" in name})
