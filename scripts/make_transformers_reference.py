"""Write tests/weights/gpt2_tiny/: a tiny GPT-2 in the forms of Hugging Face's files, and its logits in transformers.

It needs PyTorch and transformers (`python -m pip install torch transformers`). It uses nothing of this package, so the
two cannot share a mistake. With the same versions, it always writes the same files.

    saved/      as transformers saves it: names with the prefix `transformer.`, no lm_head
    hub/        as the hub's gpt2: names without the prefix, and masks as tensors
    head/       names with the prefix, lm_head (equal to wte), and masks of both kinds
    untied/     the same model with a separate head
    float64/    as saved/, in float64
    logits.npz  made_by; ids (B, T); the logits of saved, untied and float64, each of its own dtype
"""

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np

try:
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file
    from transformers import GPT2Config, GPT2LMHeadModel
except ModuleNotFoundError as error:
    needed = "python -m pip install torch transformers"
    print(f"{Path(__file__).name}: {error}: run `{needed}`, then this again", file=sys.stderr)
    sys.exit(2)

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "weights" / "gpt2_tiny"
SIZES = {"vocab_size": 19, "n_positions": 12, "n_layer": 2, "n_head": 2, "n_embd": 8}
DROPOUT = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.1)  # GPT-2's; it must have no effect here
TOKENS = {"bos_token_id": None, "eos_token_id": None}


def make_model(tied: bool, dtype: torch.dtype) -> GPT2LMHeadModel:
    """Large and all different weights, so that every parameter matters: N(0, 0.3²), around 1 for scales of norms."""
    config = GPT2Config(**SIZES, **DROPOUT, **TOKENS, tie_word_embeddings=tied)
    model = GPT2LMHeadModel(config).to(dtype).eval()
    rng = np.random.default_rng(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            p.copy_(torch.from_numpy(rng.normal(mean, 0.3, tuple(p.shape))))
    return model


def make_masks(prefix: str, both: bool) -> dict[str, np.ndarray]:
    """The constants that old files keep for each layer: the causal mask, and the value of masked scores."""
    T = SIZES["n_positions"]
    masks = {}
    for layer in range(SIZES["n_layer"]):
        masks[f"{prefix}h.{layer}.attn.bias"] = np.tri(T, dtype=np.uint8).reshape(1, 1, T, T)
        if both:
            masks[f"{prefix}h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    return masks


def make(out: Path) -> None:
    """Write all files into a folder."""
    ids = np.random.default_rng(3).integers(0, SIZES["vocab_size"], (3, SIZES["n_positions"]))
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {np.__version__}"
    found = {"made_by": np.array(f"scripts/{Path(__file__).name}, {versions}"), "ids": ids}
    for name, tied, dtype in [
        ("saved", True, torch.float32),
        ("untied", False, torch.float32),
        ("float64", True, torch.float64),
    ]:
        model = make_model(tied, dtype)
        model.save_pretrained(out / name)
        (out / name / "generation_config.json").unlink(missing_ok=True)
        with torch.no_grad():
            found[name] = model(torch.from_numpy(ids)).logits.numpy()

    weights = load_file(out / "saved" / "model.safetensors")
    bare = {name.removeprefix("transformer."): array for name, array in weights.items()}
    head = weights | {"lm_head.weight": weights["transformer.wte.weight"]}
    variants = {"hub": bare | make_masks("", both=False), "head": head | make_masks("transformer.", both=True)}
    for name, arrays in variants.items():
        (out / name).mkdir(exist_ok=True)
        save_file(arrays, out / name / "model.safetensors", {"format": "pt"})
        config = json.loads((out / "saved" / "config.json").read_text())
        (out / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    file = io.BytesIO()
    np.savez_compressed(file, **found)
    (out / "logits.npz").write_bytes(file.getvalue())


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the stored reference from transformers for the tests of GPT.")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the folder to write into (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of a sum depends on the number of threads
    torch.use_deterministic_algorithms(True)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        make(args.out)
    except OSError as error:
        parser.exit(2, f"{args.out}: {error.strerror}: give another --out\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
