"""Write tests/finetuning/torch_finetuning.npz: the losses of PyTorch's first 50 steps of a classifier and of DPO.

It needs PyTorch (`python -m pip install torch`) and nothing of this package. The model is that of
make_torch_reference.py, in small. Both sides compute weights and batches by the same rules (`weights`, `texts` and
`pairs` below), so the file contains only losses, and `made_by`. The
optimizer is AdamW with torch's defaults and a constant rate.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "finetuning" / "torch_finetuning.npz"
LAYERS, HEADS, CHANNELS, BLOCK, VOCABULARY = 2, 2, 32, 24, 60
CLASSES, BATCH, STEPS, BETA = 3, 8, 50, 0.1
LR, DECAY = 1e-3, 0.01


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The initial weights of a parameter, from a random stream that its name selects."""
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    center = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
    return (center + 0.1 * rng.standard_normal(shape)).astype(np.float32)


def texts() -> Iterator[dict[str, np.ndarray]]:
    """Each step's padded texts, their lengths, and labels that depend on their tokens."""
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        lengths = rng.integers(1, BLOCK + 1, BATCH)
        ids = rng.integers(0, VOCABULARY, (BATCH, max(lengths)))
        ids[np.arange(max(lengths)) >= lengths[:, None]] = 0
        yield {"ids": ids, "lengths": lengths, "labels": ids[:, 0] % CLASSES}


def pairs() -> Iterator[dict[str, np.ndarray]]:
    """Each step's chosen and rejected texts, and their targets: −100 for a prompt of three tokens and for padding."""
    rng = np.random.default_rng(2)
    for _ in range(STEPS):
        batch = {}
        for side in ("chosen", "rejected"):
            lengths = rng.integers(6, BLOCK + 1, BATCH)
            ids = rng.integers(0, VOCABULARY, (BATCH, BLOCK + 1))
            targets = ids[:, 1:].copy()
            targets[:, :2] = -100
            targets[np.arange(BLOCK) >= lengths[:, None] - 1] = -100
            batch |= {side: ids[:, :-1], f"{side}_targets": targets}
        yield batch


def trained(loss_of: Callable, parameters: list, batches: Iterator) -> np.ndarray:
    """The loss before each step."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY)
    losses = []
    for batch in batches:
        loss = loss_of({name: torch.from_numpy(array) for name, array in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def gpt():
    """The model with its initial weights."""
    import make_torch_reference as reference
    import torch

    reference.VOCABULARY, reference.BLOCK, reference.LAYERS = VOCABULARY, BLOCK, LAYERS
    reference.HEADS, reference.CHANNELS = HEADS, CHANNELS
    model = reference.GPT(tied=True, qkv_bias=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(weights(name, tuple(p.shape))))
    return model


def classifier_losses() -> np.ndarray:
    import torch

    transformer, score = gpt().transformer, torch.nn.Linear(CHANNELS, CLASSES)
    with torch.no_grad():
        for name, p in score.named_parameters():
            p.copy_(torch.from_numpy(weights(f"score.{name}", tuple(p.shape))))

    def loss_of(batch: dict) -> torch.Tensor:
        hidden = transformer(batch["ids"])
        last = hidden[torch.arange(BATCH), batch["lengths"] - 1]
        return torch.nn.functional.cross_entropy(score(last), batch["labels"])

    return trained(loss_of, [*transformer.parameters(), *score.parameters()], texts())


def dpo_losses() -> np.ndarray:
    import torch

    model, reference = gpt(), gpt()

    def log_probs(of: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_p = of(ids).log_softmax(-1).gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
        return (log_p * (targets != -100)).sum(1)

    def ratio(batch: dict, side: str) -> torch.Tensor:
        ids, targets = batch[side], batch[f"{side}_targets"]
        with torch.no_grad():
            before = log_probs(reference, ids, targets)
        return log_probs(model, ids, targets) - before

    def loss_of(batch: dict) -> torch.Tensor:
        margin = BETA * (ratio(batch, "chosen") - ratio(batch, "rejected"))
        return -torch.nn.functional.logsigmoid(margin).mean()

    return trained(loss_of, list(model.parameters()), pairs())


if __name__ == "__main__":
    from make_torch_reference import write

    description = "Write the stored losses of PyTorch for the tests of fine-tuning."

    def found() -> dict[str, np.ndarray]:
        import torch

        made_by = f"scripts/{Path(__file__).name}, PyTorch {torch.__version__}, NumPy {np.__version__}"
        return {"made_by": np.array(made_by), "classifier": classifier_losses(), "dpo": dpo_losses()}

    sys.exit(write(description, SHIPPED, found))
