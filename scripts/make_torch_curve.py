"""Write tests/training/torch_curve.npz: the losses of PyTorch's first 50 steps with the preset char-cpu.

It needs PyTorch (`python -m pip install torch`) and nothing of this package. The model is that of
make_torch_reference.py in nanoGPT's CPU settings. Both sides compute weights and batches by the same rules (`weights`
and `batches` below), so the file contains only losses. The text is data/stories.txt, with one token per character.
"""

import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "tests" / "training" / "torch_curve.npz"
LAYERS, HEADS, CHANNELS, BLOCK = 4, 4, 128, 64
BATCH, STEPS = 12, 50
LR, WARMUP, BETAS, DECAY, CLIP = 1e-3, 100, (0.9, 0.99), 0.1, 1.0


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The initial weights of a parameter: GPT-2's distributions, from a random stream that its name selects."""
    if len(shape) == 1:
        return np.full(shape, 1.0 if ".ln_" in name and name.endswith("weight") else 0.0, np.float32)
    std = 0.02 / math.sqrt(2 * LAYERS) if "c_proj" in name else 0.02
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    return (std * rng.standard_normal(shape)).astype(np.float32)


def text_ids() -> tuple[np.ndarray, int]:
    """The ids of the stories' characters, which are numbered in sorted order, and the number of different ones."""
    text = (ROOT / "data" / "stories.txt").read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    return np.array([number[character] for character in text]), len(number)


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets of each step: windows from random places."""
    ids, _ = text_ids()
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        starts = rng.integers(0, len(ids) - BLOCK, BATCH)
        windows = ids[starts[:, None] + np.arange(BLOCK + 1)]
        yield windows[:, :-1], windows[:, 1:]


def losses() -> list[float]:
    """PyTorch's loss before each step."""
    import make_torch_reference as reference
    import torch

    reference.VOCABULARY = text_ids()[1]
    reference.BLOCK, reference.LAYERS, reference.HEADS, reference.CHANNELS = BLOCK, LAYERS, HEADS, CHANNELS
    model = reference.GPT(tied=True, qkv_bias=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(weights(name, tuple(p.shape))))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS)
    found = []
    for step, (inputs, targets) in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = LR * (step + 1) / WARMUP
        logits = model(torch.from_numpy(inputs))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        found.append(loss.item())
    return found


if __name__ == "__main__":
    from make_torch_reference import write

    description = "Write the stored losses of PyTorch for the tests of training."
    sys.exit(write(description, SHIPPED, lambda: {"losses": np.array(losses())}))
