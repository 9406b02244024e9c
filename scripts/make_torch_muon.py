"""Write tests/optim/torch_muon.npz: the steps of torch.optim.Muon, for ours to be compared with.

It needs PyTorch from 2.9 on (`python -m pip install torch`) and nothing of this package. Both sides take the starts and
gradients from `start` and `gradient` below, so the file contains only results.

PyTorch orthogonalizes in bfloat16, which has three digits. To compare formulas and not roundings, this script makes
`bfloat16()` return float64. The arrays NAME/OPTIONS are the parameters after STEPS steps, in float64;
NAME/OPTIONS/bfloat16 are the same as PyTorch computes them by itself, in float32.
"""

import sys
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "optim" / "torch_muon.npz"
SHAPES = {"square": (6, 6), "wide": (4, 12), "tall": (12, 4)}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "plain momentum": {"lr": 0.02, "momentum": 0.8, "nesterov": False, "weight_decay": 0.0},
    "match_rms_adamw": {"lr": 0.02, "weight_decay": 0.5, "adjust_lr_fn": "match_rms_adamw"},
    "spectral_unclamped": {"lr": 0.02, "adjust_lr_fn": "spectral_unclamped"},
    "iteration": {"lr": 0.02, "ns_coefficients": (1.875, -1.25, 0.375), "ns_steps": 3, "eps": 1e-3},
}
STEPS = 6


def start(name: str) -> np.ndarray:
    """The first value of a parameter, float64."""
    return np.random.default_rng([0, zlib.crc32(name.encode())]).standard_normal(SHAPES[name])


def gradient(p: Any, step: int) -> Any:
    """The gradient of a parameter at a step: it depends on both, so that errors add up."""
    return p * p * p / 4 + step * p - 1


def make() -> dict[str, np.ndarray]:
    """All arrays of the file, by name."""
    import torch

    def trained(name: str, options: dict[str, Any], dtype: torch.dtype) -> np.ndarray:
        p = torch.nn.Parameter(torch.from_numpy(start(name)).to(dtype))
        optimizer = torch.optim.Muon([p], **options)
        for step in range(STEPS):
            p.grad = gradient(p.detach(), step)
            optimizer.step()
        return p.detach().numpy()

    found = {"made_by": np.array(f"scripts/{Path(__file__).name}, torch {torch.__version__}")}
    for name in SHAPES:
        for label, options in OPTIONS.items():
            with mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.double().clone()):
                found[f"{name}/{label}"] = trained(name, options, torch.float64)
            found[f"{name}/{label}/bfloat16"] = trained(name, options, torch.float32)
    return found


if __name__ == "__main__":
    from make_torch_reference import write

    sys.exit(write("Write the stored steps of PyTorch's Muon for the tests of optimizers.", SHIPPED, make))
