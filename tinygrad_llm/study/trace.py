"""A trace: a recording with everything that the page shows, from the operations to the proofs.

trace = study.trace(model, ids, tokenizer=tokenizer)
trace.save("trace.html")                # one file, which needs no network
trace                                   # in a notebook: the page itself
"""

import html
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.gradcheck.result import TOLERANCE
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.models import GPT
from tinygrad_llm.models.inputs import as_ids
from tinygrad_llm.nn import Module
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.study import lenses, reading, replay
from tinygrad_llm.study.documentation import document
from tinygrad_llm.study.explain import CENTRAL_STEP
from tinygrad_llm.study.numbers import CELLS, LARGE, full, full_bytes, quantized, statistics, summarize
from tinygrad_llm.study.page import page
from tinygrad_llm.study.reading import Attention
from tinygrad_llm.study.recorder import next_ids, record, record_model
from tinygrad_llm.study.recording import Forward, Gradient, Hooked, Leaf, Recording, Seed, Step, Sum, Value, Vjp
from tinygrad_llm.training import Step as TrainingStep
from tinygrad_llm.training.layers import by_layer

EXACT_BYTES = 2_000_000  # of a page whose every value is there in full
MAP_BYTES = 10_000_000  # of any other
VOCABULARY = 5000  # labels of a V axis, at most

FULL_LABEL = "Every value is here in full, as float32."
MAP_LABEL = (
    "Statistics are of all elements. Large arrays are shown as maps of 8-bit cells, each the element of largest "
    "magnitude of its rows and columns."
)


@dataclass(frozen=True)
class Trace:
    """A recording, and the data of its page (a dict that JSON can hold)."""

    recording: Recording
    data: dict[str, Any] = field(repr=False)

    def html(self) -> str:
        """The page: one file that loads nothing."""
        return page(self.data)

    def save(self, path: str | Path) -> Path:
        """Write the page. Returns the path.

        Raises:   OSError: the file cannot be written.
        """
        with atomic_write(path) as file:
            file.write(self.html().encode())
        return Path(path)

    def _repr_html_(self) -> str:
        """For a notebook: the page in a frame of its own, which can reach nothing outside."""
        text = html.escape(self.html(), quote=True)
        return (
            f'<iframe srcdoc="{text}" sandbox="allow-scripts allow-downloads" title="trace" '
            'style="width: 100%; height: 900px; border: 0"></iframe>'
        )


def trace(
    model: GPT,
    ids: Any,
    targets: Any = None,
    *,
    decode: Callable[[int], str] | None = None,
    title: str = "",
    intro: str = "",
    example: str | None = None,
    training: list[TrainingStep] | None = None,
    prove: bool = True,
) -> Trace:
    """Trace the loss of a language model on a text, forward and backward, on plain kernels and without dropout.

    Args:     ids: (B, T). targets: (B, T); if None, each position predicts the next id.
              decode: the text of an id; if None, its number. title, intro: for the page.
              training: the steps of a run's metrics, for its gradient flow.
              prove: whether to prove elements and to train with wrong gradients, which takes most of the time; a model
              of more than 10 million parameters is traced without.
    Returns:  a `Trace`. The model is left as it was.
    Raises:   ValueError: as `model.loss`.
    """
    ids = as_ids(ids)
    targets = next_ids(ids) if targets is None else as_ids(targets, "targets")
    named = decode or str
    large = model.num_parameters() > 10 * LARGE
    recording = record_model(model, ids, targets, keep=summarize if large else np.array)
    made = _Builder(recording, model, _sizes(model, ids))
    words = {
        "tokens": [[named(int(i)) for i in row] for row in ids],
        "targets": [[named(int(i)) if i >= 0 else None for i in row] for row in targets],
        "ids": ids.tolist(),
        "target_ids": [[int(i) if i >= 0 else None for i in row] for row in targets],
        "vocab": [named(i) for i in range(model.config.vocab_size)] if model.config.vocab_size <= VOCABULARY else None,
    }
    data = made.data(title or "a GPT", intro, example, words)
    data["words"] = lenses.words(recording, model, ids, targets, named)
    update = replay.update(recording, logits=lenses.logits_of(recording))
    data["update"] = made.update(update) | {"positions": lenses.moved(update, ids, targets, named)} if update else None
    data["flow"] = made.flow(update, training)
    if prove and not large:
        data |= {"proofs": made.proofs(), "breaks": made.breaks()}
    return Trace(recording, data)


def trace_function(
    function: Callable[[], Tensor],
    names: Mapping[str, Tensor | Array],
    *,
    root: Module | None = None,
    sizes: Mapping[str, int] | None = None,
    title: str = "a function",
    intro: str = "",
    example: str | None = None,
    prove: bool = True,
) -> Trace:
    """Trace any function of Tensors that returns a scalar.

    Args:     names: name → Tensor or array, for what the function reads. root: the model that it calls, if any.
              sizes: letter → length, for the labels of axes. prove: as in `trace`. A function that `recompute`s a
              part is traced without proofs and updates, and that part is one step.
    Raises:   ValueError: as `record`.
    """
    recording = record(function, root, names)
    made = _Builder(recording, root, dict(sizes or {}))
    data = made.data(title, intro, example, {})
    # What `recompute` runs reads its parameters by itself, so it cannot run again with other ones.
    again = all(step.name != "recompute" for step in recording.forward)
    update = replay.update(recording) if again else None
    data["words"] = None
    data["update"] = made.update(update) | {"positions": []} if update else None
    data["flow"] = made.flow(update, None)
    if prove and again:
        data |= {"proofs": made.proofs(), "breaks": made.breaks()}
    return Trace(recording, data)


def _sizes(model: GPT, ids: Array) -> dict[str, int]:
    c = model.config
    sizes = {"B": ids.shape[0], "T": ids.shape[1], "C": c.n_embd, "H": c.n_head, "D": c.n_embd // c.n_head}
    return sizes | {"V": c.vocab_size, "block": c.block_size, "layers": c.n_layer}


class _Builder:
    """Turns a recording into the data of a page."""

    def __init__(self, recording: Recording, root: Module | None, sizes: dict[str, int]) -> None:
        self.recording, self.root, self.sizes = recording, root, sizes
        self.pairs = reading.residuals(recording)
        self.attentions = reading.attentions(recording)
        everything: list[Value | Gradient] = [*recording.values, *recording.gradients]
        small = sorted(math.prod(self._shape(x)) for x in everything if isinstance(x.array, np.ndarray))
        self.exact = len(small) == len(everything) and sum(map(full_bytes, small)) < 0.7 * EXACT_BYTES
        # The smallest arrays are there in full, all of a size or none, as long as they take less than two thirds of the
        # page; maps take less than a sixth.
        self.limit, used = 0, 0
        for size, group in itertools.groupby(small):
            used += full_bytes(size) * len(list(group))
            if not self.exact and used > 0.65 * MAP_BYTES:
                break
            self.limit = size
        maps = sum(math.prod(self._shape(x)) > self.limit for x in everything)
        self.cells = min(CELLS, int(MAP_BYTES / 8) // max(1, maps))
        self.whole = {i for a in self.attentions for i in (a.weights, a.scores, a.masked) if i is not None}
        # What the view of attention shows has a cell for each element, if all of it takes no more than a third.
        views = {a.weights if a.masked is None else i for a in self.attentions for i in (a.weights, a.masked)}
        shown = [x for x in everything if (x.id if isinstance(x, Value) else x.value) in views]
        self.views = views if sum(math.prod(self._shape(x)) for x in shown) < MAP_BYTES / 4 else set()

    def _shape(self, x: Value | Gradient) -> tuple[int, ...]:
        return x.shape if isinstance(x, Value) else self.recording.values[x.value].shape

    # ---- arrays --------------------------------------------------------------------------------------------------

    def array(self, array: Any, value: int) -> dict[str, Any]:
        """Statistics, and all values or a map; every element of an attention pattern is in its map."""
        if isinstance(array, np.ndarray) and array.size <= self.limit:
            data = full(array)
        elif isinstance(array, np.ndarray):
            all_cells = value in self.views or (value in self.whole and array.size <= 4 * CELLS)
            data = quantized(array, array.size if all_cells else self.cells)
        else:
            data = quantized(array)
        return {"stats": statistics(array), "data": data}

    def tensors(self) -> list[dict[str, Any]]:
        return [self._tensor(v) for v in self.recording.values]

    def _tensor(self, v: Value) -> dict[str, Any]:
        number = isinstance(v.array, np.ndarray) and v.array.size == 1
        return {
            "id": v.id,
            "name": v.name,
            "names": v.also,
            "label": reading.formula(self.recording, v),
            "role": self._role(v),
            "layer": v.layer,
            "shape": v.shape,
            "axes": self._axes(v),
            "dtype": str(v.dtype),
            "made_by": v.made_by,
            "used_by": list(dict.fromkeys(v.used_by)),
            "requires_grad": v.requires_grad,
            "grad": v.grad,
            "text": f"{v.array.item():.4g}" if number else None,
            **self.array(v.array, v.id),
        }

    def _axes(self, v: Value) -> list[str]:
        found = reading.axes(v.shape, self.sizes)
        if v.id in self.whole and found[-2:-1] == ["T"] and v.shape[-1] == v.shape[-2]:
            found[-1] = "T"  # the keys of an attention, also where D is T
        return found

    def _role(self, v: Value) -> str:
        if v.id == self.recording.output:
            return "output"
        if v.made_by is not None:
            return "value"
        if v in self.recording.parameters:
            return "parameter"
        return "input" if v.requires_grad or v.given else "constant"

    def grads(self) -> list[dict[str, Any]]:
        return [
            {
                "id": g.id,
                "tensor": g.value,
                "step": g.step,
                "use": reading.use_of(self.recording, g, self.pairs),
                **self.array(g.array, g.value),
            }
            for g in self.recording.gradients
        ]

    # ---- steps ---------------------------------------------------------------------------------------------------

    def steps(self) -> list[dict[str, Any]]:
        return [self._step(step) for step in self.recording.steps]

    def _step(self, step: Step) -> dict[str, Any]:
        about = {"notes": reading.notes(self.recording, step, self.pairs)}
        if isinstance(step, Forward):
            return {"i": step.i, "kind": "forward", **self._call(step), **self._forward(step), **about}
        found: dict[str, Any] = {"i": step.i, "kind": type(step).__name__.lower(), "tensor": step.value}
        found["grad"] = step.gradient
        if isinstance(step, Vjp):
            forward = self.recording.step(step.forward)
            found |= {**self._call(forward), "forward": step.forward, "outgoing": self._outgoing(step, forward)}
        elif isinstance(step, Sum):
            uses = [self._use(i) for i in (step.first, step.second)]
            layer = self.recording.values[step.value].layer
            found |= {"first": step.first, "second": step.second, "layer": layer}
            found |= {"first_use": uses[0], "second_use": uses[1]}
        elif isinstance(step, Hooked):
            found |= {"kind": "hook", "before": step.before}
        else:
            assert isinstance(step, Seed | Leaf)
        return found | about

    def _use(self, gradient: int) -> str:
        return reading.use_of(self.recording, self.recording.gradients[gradient], self.pairs) or "sum so far"

    def _call(self, step: Forward) -> dict[str, Any]:
        where = f"{step.line.file}:{step.line.number}"
        return {
            "kernel": step.name,
            "layer": step.layer,
            "where": "".join(where.rpartition("tinygrad_llm/")[1:]),
            "line": step.line.text,
        }

    def _forward(self, step: Forward) -> dict[str, Any]:
        pair = self.pairs.get(step.i)
        return {
            "inputs": [{"role": role, "tensor": i} for role, i in zip(step.roles, step.inputs, strict=True)],
            "output": step.output,
            "options": {name: _short(x) for name, x in step.options.items()},
            "saved": [{"name": s.name, "of": s.owner, "shape": s.shape, "bytes": s.nbytes} for s in step.saved],
            "recorded": step.recorded,
            "residual": None if pair is None else {"stream": pair[0], "branch": pair[1]},
            "backward": step.backward,
        }

    def _outgoing(self, step: Vjp, forward: Forward) -> list[dict[str, Any]]:
        found = []
        for role, i, g in zip(forward.roles, forward.inputs, step.outgoing, strict=True):
            row: dict[str, Any] = {"role": role, "tensor": i, "grad": g}
            if g is None:
                row["why"] = _why_none(self.recording.values[i])
            found.append(row)
        return found

    def kernels(self) -> dict[str, Any]:
        return {name: _kernel(kernel) for name, kernel in {s.name: s.kernel for s in self.recording.forward}.items()}

    # ---- map and attention ---------------------------------------------------------------------------------------

    def map(self) -> dict[str, Any]:
        edges = []
        for v, step, g, kind in reading.edges(self.recording, self.pairs):
            norm = None if g is None else statistics(self.recording.gradients[g].array)["norm"]
            log = math.log10(norm) if norm else None
            edge = {
                "tensor": v.id,
                "from": v.made_by,
                "to": step.i,
                "grad": g,
                "norm": norm,
                "log10": log,
                "kind": kind,
            }
            edges.append(edge)
        return {"modules": self._modules(), "edges": edges}

    def _modules(self) -> list[dict[str, Any]]:
        own = {id(v.tensor): v.id for v in self.recording.values if v.tensor is not None}
        named = [("", None)] if self.root is None else list(self.root.named_modules())
        paths = {path for path, _ in named}
        found = []
        for path, module in named:
            parent = path.rpartition(".")[0]
            while parent not in paths:
                parent = parent.rpartition(".")[0]
            found.append(
                {
                    "path": path,
                    "parent": parent if path else None,
                    "name": path.removeprefix(f"{parent}.") if parent else path,
                    "class": "" if module is None else type(module).__name__,
                    "parameters": self._count() if module is None else module.num_parameters(),
                    "own": [own[id(x)] for x in vars(module or object).values() if id(x) in own],
                }
            )
        return found

    def _count(self) -> int:
        return sum(math.prod(v.shape) for v in self.recording.parameters)

    # ---- flow, update, proofs, breaks ----------------------------------------------------------------------------

    def flow(self, update: replay.Update | None, training: list[TrainingStep] | None) -> dict[str, Any]:
        lr = update.lr if update else 0.0
        order = {} if self.root is None else {id(p): n for n, p in enumerate(self.root.parameters())}
        leaves = sorted(self.recording.parameters, key=lambda v: order.get(id(v.tensor), 0))
        named = [(v.name, v.tensor) for v in leaves if v.tensor is not None]
        of = {id(v.tensor): v for v in leaves}
        layers = [
            {"layer": layer, **self._figures([of[id(p)] for p in members], lr), **self._activation(layer)}
            for layer, members in by_layer(named).items()
        ]
        parameters = [{"tensor": v.id, **self._figures([v], lr)} for v in leaves]
        return {"lr": lr, "layers": layers, "parameters": parameters, "training": _history(training)}

    def _figures(self, members: list[Value], lr: float) -> dict[str, Any]:
        grads = [statistics(self.recording.gradient_of(v)) for v in members if v.grad is not None]
        weights = [statistics(v.array) for v in members]
        norms = [math.sqrt(sum((s["norm"] or 0.0) ** 2 for s in found)) for found in (grads, weights)]
        bad = {key: sum(s[key] for s in grads) for key in ("nan", "inf")}
        ratio = lr * norms[0] / norms[1] if norms[1] else None
        return {"grad_norm": norms[0], "weight_norm": norms[1], "ratio": ratio, **bad}

    def _activation(self, layer: str) -> dict[str, Any]:
        found = next((v for v in self.recording.values if layer in (v.name, v.name.removeprefix("transformer."))), None)
        if found is None or found.made_by is None:
            return {"activation_norm": None, "activation_grad_norm": None}
        g = self.recording.gradient_of(found)
        norm = None if g is None else statistics(g)["norm"]
        return {"activation_norm": statistics(found.array)["norm"], "activation_grad_norm": norm}

    def update(self, made: replay.Update) -> dict[str, Any]:
        loss = {"before": made.before, "after": made.after, "predicted": made.predicted}
        curve = [[lr, x if math.isfinite(x) else None] for lr, x in made.curve]
        return {"lr": made.lr, "grad_norm": made.grad_norm, "loss": loss, "curve": curve}

    def proofs(self) -> list[dict[str, Any]]:
        found = []
        for p in replay.prove(self.recording):
            row: dict[str, Any] = {"tensor": p.value, "index": p.index, "recorded": p.recorded, "backprop": p.backprop}
            row |= {"complex": p.complex, "central": p.central, "h": CENTRAL_STEP, "scale": p.scale}
            row |= {"error": p.error, "central_error": p.central_error}
            found.append(row | {"zero_because": p.zero_because})
        return found

    def breaks(self) -> dict[str, Any] | None:
        made = replay.breaks(self.recording)
        if made is None:
            return None
        mutants = []
        for b in made.found:
            used = [step.i for step in self.recording.forward if step.name == b.mutant.kernel]
            row: dict[str, Any] = {
                "kernel": b.mutant.kernel,
                "name": b.mutant.name,
                "wrong": replay.WRITTEN.get(b.mutant.kernel, {}).get(b.mutant.name, b.mutant.name),
                "used_at": used,
            }
            row |= {"caught": b.hunt.caught, "method": b.hunt.method, "error": b.hunt.error}
            row |= {"tolerance": TOLERANCE[b.hunt.method], "message": b.hunt.message, "curve": b.curve}
            row["factor"] = b.factor
            row["worst"] = b.hunt.worst and {
                "input": b.hunt.worst.name,
                "index": b.hunt.worst.index,
                "wrong": b.hunt.worst.analytic,
                "numeric": b.hunt.worst.numeric,
            }
            mutants.append(row | {"gradients": [{"tensor": i, "error": error} for i, error in b.errors]})
        what = f"{len(made.right)} steps of AdamW on this very input, learning rate {made.lr:g}"
        return {"what": what, "steps": list(range(len(made.right))), "right": made.right, "mutants": mutants}

    # ---- all -----------------------------------------------------------------------------------------------------

    def data(self, title: str, intro: str, example: str | None, words: dict[str, Any]) -> dict[str, Any]:
        output = self.recording.values[self.recording.output]
        empty = dict.fromkeys(("tokens", "targets", "ids", "target_ids", "vocab"))
        meta = {
            "version": 1,
            "title": title,
            "example": example,
            "intro": intro,
            "sizes": self.sizes,
            **(empty | words),
            "loss": output.array.item(),
            "output": output.id,
            "exact": self.exact,
            "label": FULL_LABEL if self.exact else MAP_LABEL,
            "parameters": self._count(),
            "dtype": str(output.dtype),
            "model": None if self.root is None else repr(self.root),
            "package": "tinygrad_llm",
        }
        return {
            "meta": meta,
            "tensors": self.tensors(),
            "grads": self.grads(),
            "kernels": self.kernels(),
            "steps": self.steps(),
            "map": self.map(),
            "attention": [_attention(a) for a in self.attentions],
            "proofs": [],
            "breaks": None,
        }


def _attention(a: Attention) -> dict[str, Any]:
    names = ("weights", "scores", "masked", "mask", "q", "k", "v", "heads")
    return {"layer": a.layer} | {name: getattr(a, name) for name in names}


def _kernel(kernel: Kernel) -> dict[str, Any]:
    words = document(kernel)
    return {
        "formula": words.formula,
        "forward": words.forward,
        "gradient": words.gradient,
        "notes": words.notes,
        "derivation": words.derivation,
        "file": words.file,
        "line": words.line,
        "source": words.source,
        "vjp_lines": words.vjp_lines,
    }


def _why_none(v: Value) -> str:
    if v.dtype.kind in "iub":
        return "ids and masks have no gradient"
    return "it is a constant"


def _history(training: list[TrainingStep] | None) -> dict[str, Any] | None:
    looked_at = [s for s in training or [] if s.layer_grad_norm]
    if not looked_at:
        return None
    layers = list(looked_at[0].layer_grad_norm or {})
    return {
        "steps": [s.step for s in looked_at],
        "loss": [s.loss for s in looked_at],
        "held_out": [[s.step, s.val_loss] for s in training or [] if s.val_loss is not None],
        "layers": {layer: [(s.layer_grad_norm or {}).get(layer) for s in looked_at] for layer in layers},
    }


def _short(x: Any) -> str:
    text = " ".join(repr(x).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
