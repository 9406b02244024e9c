"""A model's inside, read in its vocabulary: predictions, the logit lens by layer, and the backward lens.

The logit lens reads what a layer has found so far as if it were the last one: through the final norm and the head.
The backward lens reads the factors of a weight's gradient. For y = x Wᵀ, the gradient is dW = Σ_i δ_i x_iᵀ over the
positions i, with x_i the input and δ_i the gradient of the output there. The x_i of an MLP's first layer and the δ_i of
its second one have C channels, as the rows of the head do, so their products with the head are scores of tokens. A step
of SGD adds −lr · δ_i to what the layer writes for inputs like x_i: the lowest scores of δ_i are the tokens that the
step tries to write.

Sources: nostalgebraist 2020 (the logit lens); Katz et al. 2024, arXiv:2402.12865 (the backward lens).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.kernels import Array
from tinygrad_llm.models import GPT
from tinygrad_llm.study.recorder import plain
from tinygrad_llm.study.recording import Recording
from tinygrad_llm.study.replay import Update

Decode = Callable[[int], str]


def logits_of(recording: Recording) -> int | None:
    """The value that cross-entropy received as logits; None where it was not computed."""
    found = [step for step in recording.forward if step.name == "cross_entropy"]
    return found[-1].inputs[0] if found else None


def log_softmax(logits: Array) -> Array:
    """ln softmax over the last axis, in float64."""
    x = logits.astype(np.float64)
    shifted = x - np.max(x, axis=-1, keepdims=True)
    normalized: Array = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return normalized


def top(scores: Array, count: int, decode: Decode) -> list[list[Any]]:
    """The tokens of the highest scores, and these."""
    falling = -scores
    if scores.size > 10 * count:  # sorting a vocabulary of 50,000 takes twenty times as long as to find its first few
        least = np.partition(falling, count - 1)[count - 1]
        among = np.flatnonzero(~(falling > least))  # NaN is not larger
    else:
        among = np.arange(scores.size)
    order = among[np.argsort(falling[among], kind="stable")][:count]
    return [[decode(int(i)), float(scores[i])] for i in order]


def words(recording: Recording, model: GPT, ids: Array, targets: Array, decode: Decode) -> dict[str, Any]:
    """What the model predicts at each position, and what it would after each layer; and its gradients in words."""
    return {
        "positions": _predictions(_logits(recording, model, ids), ids, targets, decode),
        "lens": _logit_lens(recording, model, ids, targets, decode),
        "backward": _backward_lens(recording, model, ids, decode),
    }


def _logits(recording: Recording, model: GPT, ids: Array) -> Array:
    found = logits_of(recording)
    assert found is not None
    logits = recording.values[found].array
    if not isinstance(logits, np.ndarray):  # a large vocabulary: the recording has only a summary of them
        with no_grad(), plain(model):
            logits = model(ids).data
    return np.reshape(logits, (*ids.shape, -1))


def _predictions(logits: Array, ids: Array, targets: Array, decode: Decode) -> list[dict[str, Any]]:
    logp = log_softmax(logits)
    found = []
    for b, t in np.ndindex(*ids.shape):
        target = int(targets[b, t])
        row: dict[str, Any] = {"b": b, "t": t, "token": decode(int(ids[b, t])), "target": None}
        if target >= 0:
            at = float(logp[b, t, target])
            rank = int(np.count_nonzero(logp[b, t] > at))
            row |= {"target": decode(target), "loss": -at, "p": float(np.exp(at)), "rank": rank}
        found.append(row | {"top": top(np.exp(logp[b, t]), 5, decode)})
    return found


def _logit_lens(recording: Recording, model: GPT, ids: Array, targets: Array, decode: Decode) -> list[dict[str, Any]]:
    cache = {v.name: v.array for v in recording.values}
    blocks = [f"transformer.h.{i}" for i in range(len(model.transformer.h))]
    streams = {"embedding": "transformer.x", **{block: block for block in blocks}}
    found = []
    for layer, name in streams.items():
        if not isinstance(cache.get(name), np.ndarray):
            continue
        with no_grad():
            logits = model.lm_head(model.transformer.ln_f(Tensor(cache[name]))).data
        logp = log_softmax(logits)
        rows = []
        for b, t in np.ndindex(*ids.shape):
            p = float(np.exp(logp[b, t, targets[b, t]])) if targets[b, t] >= 0 else None
            rows.append({"b": b, "t": t, "p": p, "top": top(np.exp(logp[b, t]), 3, decode)})
        found.append({"layer": layer, "positions": rows})
    return found


def _backward_lens(recording: Recording, model: GPT, ids: Array, decode: Decode) -> list[dict[str, Any]]:
    head = model.lm_head.weight.data
    found = []
    for step in recording.forward:
        factor = {"mlp.c_fc": "x", "mlp.c_proj": "delta"}.get(".".join(step.layer.split(".")[-2:]))
        if step.name != "linear" or factor is None:
            continue
        value = recording.values[step.inputs[0] if factor == "x" else step.output]
        array = value.array if factor == "x" else recording.gradient_of(value)
        if not isinstance(array, np.ndarray) or array.shape[:-1] != ids.shape or array.shape[-1] != head.shape[1]:
            continue
        rows = []
        for b, t in np.ndindex(*ids.shape):
            scores = head @ array[b, t]
            norm = float(np.linalg.norm(array[b, t]))
            most, least = top(scores, 5, decode), [[text, -x] for text, x in top(-scores, 5, decode)]
            rows.append({"b": b, "t": t, "norm": norm, "most": most, "least": least})
        found.append(
            {
                "weight": f"{step.layer}.weight",
                "factor": factor,
                "tensor": value.id,
                "grad": value.grad if factor == "delta" else None,
                "positions": rows,
            }
        )
    return found


def moved(made: Update, ids: Array, targets: Array, decode: Decode) -> list[dict[str, Any]]:
    """How one update changed the prediction at each position, and how much of it was foreseen to first order."""
    assert made.logits is not None
    start, end, foreseen = (x.reshape(*ids.shape, -1).astype(np.float64) for x in made.logits)
    before, after = log_softmax(start), log_softmax(end)
    change = foreseen - start
    # d ln p = d logits − Σ p · d logits,  dp = p · d ln p
    change -= np.sum(np.exp(before) * change, axis=-1, keepdims=True)
    found = []
    for b, t in np.ndindex(*ids.shape):
        p, q, d = np.exp(before[b, t]), np.exp(after[b, t]), change[b, t]
        target = int(targets[b, t])
        row: dict[str, Any] = {"b": b, "t": t, "token": decode(int(ids[b, t])), "target": None}
        if target >= 0:
            row |= {
                "target": decode(target),
                "before": float(before[b, t, target]),
                "after": float(after[b, t, target]),
            }
            row["predicted"] = float(before[b, t, target] + d[target])
        order = np.argsort(-np.abs(q - p), kind="stable")[:5]
        row["moved"] = [
            {"text": decode(int(i)), "before": float(p[i]), "after": float(q[i]), "predicted": float(p[i] * (1 + d[i]))}
            for i in order
        ]
        found.append(row)
    return found
