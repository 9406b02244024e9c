"""Write tests/models/torch_reference.npz: what PyTorch makes of a tiny GPT, for our own GPT to be compared with.

It needs PyTorch (`python -m pip install torch`) and nothing of this package, so that the two share no mistake. The
model is GPT-2 in PyTorch's own layers, once tied and once with a head of its own and no bias for queries, keys and
values. Running it twice gives the same file, byte for byte, on one machine with one PyTorch.

In the file, V is `tied` or `untied`, D is `float64` or `float32`, and NAME is GPT-2's name of a parameter:

    made_by                 this script, and the versions it ran with
    ids, targets            (B, T); a target of −100 does not count
    V/weights/NAME          float64; the float32 model has them rounded
    V/D/logits, V/D/loss    (B, T, vocabulary); mean cross-entropy
    V/D/grad/NAME           the gradient of the loss
    V/D/losses              the loss before each of ten steps of AdamW
    V/D/norms               the norm of each parameter after them, in the order of the weights; see `norm`
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F
except ModuleNotFoundError as error:
    print(f"{Path(__file__).name}: {error}: run `python -m pip install torch`, then this again", file=sys.stderr)
    sys.exit(2)

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "models" / "torch_reference.npz"
VOCABULARY, BLOCK, LAYERS, HEADS, CHANNELS = 11, 6, 2, 2, 8
BATCH = 3
STEPS = 10


class Attention(nn.Module):
    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.c_attn = nn.Linear(CHANNELS, 3 * CHANNELS, bias=qkv_bias)
        self.c_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part.view(B, T, HEADS, C // HEADS).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.c_proj = nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(CHANNELS)
        self.attn = Attention(qkv_bias)
        self.ln_2 = nn.LayerNorm(CHANNELS)
        self.mlp = MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, qkv_bias: bool) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, CHANNELS)
        self.wpe = nn.Embedding(BLOCK, CHANNELS)
        self.h = nn.Sequential(*(Block(qkv_bias) for _ in range(LAYERS)))
        self.ln_f = nn.LayerNorm(CHANNELS)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1])
        return self.ln_f(self.h(self.wte(ids) + self.wpe(positions)))


class GPT(nn.Module):
    def __init__(self, tied: bool, qkv_bias: bool) -> None:
        super().__init__()
        self.transformer = Transformer(qkv_bias)
        self.lm_head = nn.Linear(CHANNELS, VOCABULARY, bias=False)
        if tied:
            self.lm_head.weight = self.transformer.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.transformer(ids))


def draw_weights(model: GPT) -> dict[str, np.ndarray]:
    """Large and all different, so that every parameter matters: N(0, 0.3²), and around 1 for the scales of norms."""
    rng = np.random.default_rng(2)  # with seed 0, one gradient is so close to 0 that AdamW enlarges float32's rounding
    return {
        name: rng.normal(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.3, tuple(p.shape))
        for name, p in model.named_parameters()
    }


def draw_texts() -> tuple[np.ndarray, np.ndarray]:
    """ids and targets. Targets of −100 do not count."""
    rng = np.random.default_rng(3)
    ids, targets = rng.integers(0, VOCABULARY, (2, BATCH, BLOCK))
    targets[0, :2] = targets[2, 4] = -100
    return ids, targets


def norm(name: str, parameter: Tensor) -> float:
    """The norm of a parameter, without the bias of the keys.

    Softmax does not depend on that bias. Its gradient is only rounding, which AdamW turns into meaningless steps.
    """
    if name.endswith("c_attn.bias"):
        query, _, value = parameter.chunk(3)
        parameter = torch.cat([query, value])
    return parameter.norm().item()


def run(model: GPT, ids: Tensor, targets: Tensor) -> dict[str, np.ndarray]:
    """Logits, loss and gradients; then ten steps of AdamW."""

    def loss_of(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)

    logits = model(ids)
    loss = loss_of(logits)
    loss.backward()
    found = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    found |= {f"grad/{name}": p.grad.numpy().copy() for name, p in model.named_parameters()}

    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model(ids))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
    found["losses"] = np.array(losses, logits.detach().numpy().dtype)
    norms = [norm(name, p.detach()) for name, p in model.named_parameters()]
    found["norms"] = np.array(norms, found["losses"].dtype)
    return found


def make() -> dict[str, np.ndarray]:
    """All arrays of the file, by name."""
    ids, targets = draw_texts()
    versions = f"scripts/{Path(__file__).name}, torch {torch.__version__}, numpy {np.__version__}"
    arrays = {"made_by": np.array(versions), "ids": ids, "targets": targets}
    for variant, tied, qkv_bias in [("tied", True, True), ("untied", False, False)]:
        weights = draw_weights(GPT(tied, qkv_bias))
        arrays |= {f"{variant}/weights/{name}": array for name, array in weights.items()}
        for dtype in (torch.float64, torch.float32):
            model = GPT(tied, qkv_bias).to(dtype)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(torch.from_numpy(weights[name]))
            found = run(model, torch.from_numpy(ids), torch.from_numpy(targets))
            arrays |= {f"{variant}/{str(dtype).removeprefix('torch.')}/{key}": a for key, a in found.items()}
    return arrays


def write(description: str, shipped: Path, make: Callable[[], dict[str, np.ndarray]]) -> int:
    """Write the arrays that `make` returns to the file that --out names; return the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=shipped, help="the file to write (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of a sum depends on the number of threads
    torch.use_deterministic_algorithms(True)
    file = io.BytesIO()
    np.savez_compressed(file, **make())
    try:
        args.out.write_bytes(file.getvalue())
    except OSError as error:
        parser.exit(2, f"{args.out}: {error.strerror}: give another --out\n")
    return 0


if __name__ == "__main__":
    sys.exit(write("Write the stored reference from PyTorch for the tests of GPT.", SHIPPED, make))
