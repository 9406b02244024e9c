"""Chapter 5: a model and its optimizer are saved, loaded, and trained on; weights are put in by hand."""

import copy
import os
import tempfile

import torch
from gpt_of_the_book import GPT, config

torch.manual_seed(123)
model = GPT(config(n_layers=1))
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
ids = torch.randint(0, 61, (3, 9))


def steps(model, optimizer, n):
    losses = []
    for _ in range(n):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 5))
    return losses


print(steps(model, optimizer, 4))
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model_and_optimizer.pth")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    checkpoint = torch.load(path, map_location=torch.device("cpu"), weights_only=True)
torch.manual_seed(0)
again = GPT(config(n_layers=1))
print(again.load_state_dict(checkpoint["model"]))
new_optimizer = torch.optim.AdamW(again.parameters(), lr=1e-3, weight_decay=0.1)
new_optimizer.load_state_dict(checkpoint["optimizer"])
print(new_optimizer.param_groups[0]["lr"])
torch.manual_seed(5)
one = steps(model, optimizer, 3)
torch.manual_seed(5)
print(one, one == steps(again, new_optimizer, 3))
print(new_optimizer)
state = new_optimizer.state_dict()
print(list(state), list(state["state"][0]), state["state"][0]["step"], state["param_groups"][0]["params"][:3])


def assign(left, right):
    if left.shape != right.shape:
        raise ValueError(f"Shape mismatch. Left: {left.shape}, Right: {right.shape}")
    return torch.nn.Parameter(torch.tensor(right))


before = again.trf_blocks[0].att.W_query.weight
again.trf_blocks[0].att.W_query.weight = assign(before, before.detach().numpy() * 2)
print(again.trf_blocks[0].att.W_query.weight[0, :5] / before[0, :5])
try:
    assign(before, before.detach().numpy()[:2])
except ValueError as error:
    print(error)
twin = copy.deepcopy(model)
with torch.no_grad():
    twin.out_head.weight.zero_()
print(model.out_head.weight.abs().sum() > 0, twin.out_head.weight.abs().sum())
model.out_head.weight = model.tok_emb.weight
print(len(list(model.parameters())), len(model.state_dict()), sum(p.numel() for p in model.parameters()))
try:
    twin.load_state_dict({"tok_emb.weight": torch.zeros(2, 2), "more": torch.zeros(1)})
except RuntimeError as error:
    print(str(error)[:150])
print(twin.load_state_dict({"tok_emb.weight": twin.tok_emb.weight}, strict=False).unexpected_keys)
