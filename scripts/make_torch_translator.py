"""Write tests/models/torch_translator.npz: what PyTorch's transformer makes of a tiny batch of pairs.

It needs PyTorch (`python -m pip install torch`) and nothing of this package, so that the two share no mistake. The
model is torch.nn.Transformer between a shared embedding and the position encodings of 2017, once with layer norms
after each sum (`post`) and once before each sublayer (`pre`). Post-norm has no norm at the end of a stack, as in the
paper. The third target and its source are padded. Running it twice gives the same file on one machine.

In the file, V is `post` or `pre`, D is `float64` or `float32`, and NAME is PyTorch's name of a parameter:

    made_by                 this script, and the versions it ran with
    source, lengths         (B, S), (B,)
    target, targets         (B, T); a target of −100 does not count
    V/weights/NAME          float64; the float32 model has them rounded
    V/D/logits, V/D/loss    (B, T, vocabulary); mean cross-entropy with label smoothing
    V/D/grad/NAME           the gradient of the loss
"""

import math
import sys
from pathlib import Path

import numpy as np

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "models" / "torch_translator.npz"
VOCABULARY, LAYERS, HEADS, CHANNELS, SMOOTHING = 11, 2, 2, 8, 0.1


def draw_pairs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    pairs = {"source": rng.integers(0, VOCABULARY, (3, 6)), "lengths": np.array([6, 5, 2])}
    pairs |= {"target": rng.integers(0, VOCABULARY, (3, 5)), "targets": rng.integers(0, VOCABULARY, (3, 5))}
    pairs["targets"][2, 3:] = -100
    return pairs


def make() -> dict[str, np.ndarray]:
    """All arrays of the file, by name."""
    import torch
    from torch import nn

    class Translator(nn.Module):
        def __init__(self, norm_first: bool) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, CHANNELS)
            sizes = {"d_model": CHANNELS, "nhead": HEADS, "dim_feedforward": 4 * CHANNELS, "dropout": 0.0}
            sizes |= {"batch_first": True, "norm_first": norm_first}
            norms = [nn.LayerNorm(CHANNELS) if norm_first else None for _ in range(2)]
            encoder = nn.TransformerEncoderLayer(**sizes)
            decoder = nn.TransformerDecoderLayer(**sizes)
            self.encoder = nn.TransformerEncoder(encoder, LAYERS, norms[0], enable_nested_tensor=False)
            self.decoder = nn.TransformerDecoder(decoder, LAYERS, norms[1])

        def embedded(self, ids):
            T, dtype = ids.shape[1], self.embedding.weight.dtype
            angles = torch.arange(T)[:, None] / 10000 ** (torch.arange(0, CHANNELS, 2, dtype=torch.float64) / CHANNELS)
            positions = torch.stack([angles.sin(), angles.cos()], -1).reshape(T, CHANNELS).to(dtype)
            return self.embedding(ids) * math.sqrt(CHANNELS) + positions

        def forward(self, source, lengths, target):
            padding = torch.arange(source.shape[1]) >= lengths[:, None]
            later = torch.triu(torch.ones(target.shape[1], target.shape[1], dtype=torch.bool), 1)
            memory = self.encoder(self.embedded(source), src_key_padding_mask=padding)
            x = self.decoder(self.embedded(target), memory, tgt_mask=later, memory_key_padding_mask=padding)
            return x @ self.embedding.weight.T

    pairs, rng = draw_pairs(), np.random.default_rng(6)
    versions = f"scripts/{Path(__file__).name}, torch {torch.__version__}, numpy {np.__version__}"
    arrays = {"made_by": np.array(versions), **pairs}
    tensors = {name: torch.from_numpy(array) for name, array in pairs.items()}
    for variant in ("post", "pre"):
        model = Translator(variant == "pre")
        weights = {
            name: rng.normal(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3, tuple(p.shape))
            for name, p in model.named_parameters()
        }
        arrays |= {f"{variant}/weights/{name}": array for name, array in weights.items()}
        for dtype in (torch.float64, torch.float32):
            model = model.to(dtype)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(torch.from_numpy(weights[name]))
            model.zero_grad()
            logits = model(tensors["source"], tensors["lengths"], tensors["target"])
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), tensors["targets"].flatten(), ignore_index=-100, label_smoothing=SMOOTHING
            )
            loss.backward()
            found = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
            found |= {f"grad/{name}": p.grad.numpy().copy() for name, p in model.named_parameters()}
            arrays |= {f"{variant}/{str(dtype).removeprefix('torch.')}/{key}": a for key, a in found.items()}
    return arrays


if __name__ == "__main__":
    from make_torch_reference import write

    sys.exit(write("Write the stored reference from PyTorch for the tests of the translator.", SHIPPED, make))
