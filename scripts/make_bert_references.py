"""Write tests/models/bert/: two tiny BERTs of transformers, with what it makes of them, for our encoder to be compared.

It needs PyTorch and transformers (`python -m pip install torch transformers`) and nothing of this package, so that the
two share no mistake. Running it twice gives the same numbers on one machine with the same versions.

    masked/, classifier/    the models, as `save_pretrained` writes them: BertForMaskedLM, BertForSequenceClassification
    references.npz          M is `masked` or `classifier`, D is `float64` or `float32`, NAME a parameter of BERT:
        made_by             this script, and the versions it ran with
        ids, segments       (B, T) integers
        lengths             (B,): what follows in a row is padding
        targets             (B, T); a target of −100 does not count
        M/D/logits          (B, T, vocabulary), of which those of padding mean nothing; or (B, classes)
        masked/D/loss       mean cross-entropy
        masked/D/grad/NAME  the gradient of the loss
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
    import transformers
    from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
except ModuleNotFoundError as error:
    print(f"{Path(__file__).name}: {error}: run `python -m pip install torch transformers`", file=sys.stderr)
    sys.exit(2)

SHIPPED = Path(__file__).resolve().parents[1] / "tests" / "models" / "bert"
SIZES = {
    "vocab_size": 13,
    "max_position_embeddings": 7,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IDS = [[2, 5, 4, 7, 8, 3], [2, 9, 4, 3, 0, 0], [2, 12, 3, 6, 4, 3]]
LENGTHS = [6, 4, 6]
SEGMENTS = [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
TARGETS = [[-100, -100, 6, -100, 8, -100], [-100, 9, 10, -100, -100, -100], [-100, -100, -100, -100, 11, -100]]


def model_of(kind: type, **options: Any) -> Any:
    """A model with large weights, so that no gradient is so small that an error in it would pass."""
    torch.manual_seed(17)
    model = kind(BertConfig(**SIZES, **options, attn_implementation="eager")).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    return model


def results(name: str, model: Any) -> dict[str, Any]:
    found = {}
    mask = np.arange(6) < np.array(LENGTHS)[:, None]
    inputs = {
        "input_ids": torch.tensor(IDS),
        "attention_mask": torch.tensor(mask.astype(np.int64)),
        "token_type_ids": torch.tensor(SEGMENTS),
    }
    for dtype in ("float64", "float32"):
        model.to(getattr(torch, dtype)).zero_grad()
        if name == "classifier":
            found[f"{name}/{dtype}/logits"] = model(**inputs).logits.detach().numpy()
            continue
        out = model(**inputs, labels=torch.tensor(TARGETS))
        out.loss.backward()
        found |= {
            f"{name}/{dtype}/logits": out.logits.detach().numpy(),
            f"{name}/{dtype}/loss": out.loss.detach().numpy(),
        }
        found |= {f"{name}/{dtype}/grad/{key}": p.grad.numpy().copy() for key, p in model.named_parameters()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the folder to write (default: the shipped one)")
    out = parser.parse_args().out
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}"
    arrays: dict[str, Any] = {"made_by": np.array(f"{Path(__file__).name}, with {versions}")}
    arrays |= {name: np.array(rows) for name, rows in (("ids", IDS), ("lengths", LENGTHS))}
    arrays |= {name: np.array(rows) for name, rows in (("segments", SEGMENTS), ("targets", TARGETS))}
    labels = ["ham", "spam", "other"]
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    models = {"masked": model_of(BertForMaskedLM), "classifier": model_of(BertForSequenceClassification, **named)}
    for name, model in models.items():
        model.save_pretrained(out / name)
        arrays |= results(name, model)
    np.savez_compressed(out / "references.npz", **arrays)
    print(f"wrote {out}: {len(arrays)} arrays, with {versions}")


if __name__ == "__main__":
    main()
