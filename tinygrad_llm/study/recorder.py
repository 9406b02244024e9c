"""The recorder: an observer that keeps every operation, value and gradient of a run, in the order in which they came.

    recording = record(lambda: model.loss(ids, targets), root=model)
    recording["transformer.h.0.attn.weights"].array          # (B, H, T, T)

    cache = run_with_cache(model, ids)                        # the same as a dict of arrays
    cache["transformer.h.0.attn.weights"], cache["transformer.h.0.attn.weights.grad"]

The gradients are copies of what the engine computes, so they equal those of `grad` to the last bit. The engine does not
know the recorder: who does not record pays nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import numpy as np

from tinygrad_llm.autograd import Observer, Operation, Tensor, grad, observing
from tinygrad_llm.autograd.node import Node, owned_arrays
from tinygrad_llm.autograd.observer import calling_frame, calling_line, current_layer
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.kernels.contract import MEANS
from tinygrad_llm.models import GPT
from tinygrad_llm.models.inputs import as_ids
from tinygrad_llm.nn import Module
from tinygrad_llm.study.names import name_values
from tinygrad_llm.study.recording import Forward, Gradient, Hooked, Leaf, Mark, Recording, Saved, Seed, Sum, Value, Vjp

Keep: TypeAlias = Callable[[Array], Any]  # what is kept of an array


class Recorder(Observer):
    """Fills a `Recording`. One recorder serves one thread.

    Args:     root: the model, whose class name is not part of the layers' paths.
              names: name → Tensor or array, for inputs that are not parameters of root.
              keep: what to keep of each array: by default a copy.
    """

    def __init__(
        self, root: Module | None = None, names: Mapping[str, Any] | None = None, keep: Keep = np.array
    ) -> None:
        self.recording = Recording()
        self._prefix = "" if root is None else type(root).__name__
        self._given = {id(x.data if isinstance(x, Tensor) else x): name for name, x in (names or {}).items()}
        self._keep = keep
        self._by_array: dict[int, Value] = {}
        self._alive: list[Array] = []  # the arrays whose ids are keys
        self._by_node: dict[Node, Value] = {}
        self._operations: dict[Node, Forward] = {}
        self._present: dict[Node, int] = {}  # the gradient of each node so far
        self._waiting: dict[Node, deque[int]] = {}  # those that will be added to it
        self._depth = 0  # inside a kernel or a vjp, which `recompute` makes of a whole function: one step

    def knows(self, tensor: Tensor) -> int | None:
        """The id of the value of a Tensor; None if it took no part."""
        value = self._by_array.get(id(tensor.data))
        return None if value is None else value.id

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def around_kernel(self, kernel: Kernel) -> AbstractContextManager[None]:
        return self._inside()

    def around_vjp(self, node: Node, vjp: Any) -> AbstractContextManager[None]:
        return self._inside()

    # ---- forward -------------------------------------------------------------------------------------------------

    def on_operation(self, operation: Operation) -> None:
        if self._depth:
            return
        r = self.recording
        frame = calling_frame()
        layer = self._path(current_layer()[0])
        nodes = [None] * len(operation.arrays) if operation.node is None else operation.node.parents
        variables = {id(x.data if isinstance(x, Tensor) else x): name for name, x in frame.f_locals.items()}
        inputs = []
        for x, array, node in zip(operation.inputs, operation.arrays, nodes, strict=True):
            value = self._value(array, node, layer)
            value.number |= not isinstance(x, Tensor | np.ndarray)
            value.tensor = x if node is not None and node.is_leaf else value.tensor
            value.variable = value.variable or variables.get(id(array), "")
            value.used_by.append(len(r.steps))
            inputs.append(value.id)
        output = self._new_value(operation.output.data, layer, operation.node)
        output.made_by = len(r.steps)
        saved = []
        if operation.node is not None and operation.node.vjp is not None:
            named = dict(zip(operation.input_names, operation.arrays, strict=True))
            kept = owned_arrays(operation.node.vjp, named, operation.output.data)
            saved = [Saved(name, owner, array.shape, array.nbytes) for name, array, owner in kept]
        step = Forward(
            i=len(r.steps),
            kernel=operation.kernel,
            layer=layer,
            line=calling_line(frame),
            mark=Mark(frame.f_code.co_filename, frame.f_lineno, frame.f_lasti, id(frame)),
            roles=operation.input_names,
            inputs=inputs,
            output=output.id,
            options={name: x for name, x in operation.options.items() if name not in MEANS},
            saved=saved,
            recorded=operation.node is not None,
        )
        r.steps.append(step)
        if operation.node is not None:
            self._operations[operation.node] = step

    def _path(self, layer: str) -> str:
        if layer == self._prefix:
            return ""
        return layer.removeprefix(f"{self._prefix}.") if self._prefix else layer

    def _value(self, array: Array, node: Node | None, layer: str) -> Value:
        """The value that an operation received."""
        known = self._by_array.get(id(array))
        if known is None:
            made = self._new_value(array, layer, node)
            made.source = array
            return made
        if node is not None and node not in self._by_node:
            self._by_node[node], known.requires_grad = known, True
        return known

    def _new_value(self, array: Array, layer: str, node: Node | None) -> Value:
        values = self.recording.values
        value = Value(len(values), self._keep(array), array.shape, array.dtype, layer, requires_grad=node is not None)
        value.given = self._given.get(id(array), "")
        values.append(value)
        self._by_array[id(array)] = value
        self._alive.append(array)
        if node is not None:
            self._by_node[node] = value
        return value

    # ---- backward ------------------------------------------------------------------------------------------------

    def on_backward(self, root: Node, seed: Array) -> None:
        value = self._by_node.get(root)
        if value is not None and not self._depth:
            i = len(self.recording.steps)
            self._present[root] = self._new_gradient(value, seed)
            self.recording.steps.append(Seed(i, value.id, self._present[root]))

    def on_hook(self, node: Node, before: Array, after: Array) -> None:
        if node in self._present and not self._depth:
            value, first = self._by_node[node], self._present[node]
            i = len(self.recording.steps)
            self._present[node] = self._new_gradient(value, after)
            self.recording.steps.append(Hooked(i, value.id, first, self._present[node]))

    def on_gradient(self, node: Node, gradient: Array) -> None:
        if node in self._present and not self._depth:
            value = self._by_node[node]
            value.grad = self._present.pop(node)
            if node.is_leaf:
                self.recording.steps.append(Leaf(len(self.recording.steps), value.id, value.grad))

    def on_vjp(self, node: Node, parents: tuple[Node | None, ...], gradient: Array, gradients: Any) -> None:
        forward = self._operations.get(node)
        value = self._by_node.get(node)
        if self._depth or forward is None or value is None or value.grad is None:
            return  # it is a part of another one, or the operation ran before the recording began
        step = Vjp(len(self.recording.steps), forward.i, value.id, value.grad, [])
        forward.backward = step.i
        for position, (parent, d) in enumerate(zip(parents, gradients, strict=False)):
            if parent is None or d is None:
                step.outgoing.append(None)
                continue
            new = self._new_gradient(self._by_node[parent], np.asarray(d), forward.i, position)
            step.outgoing.append(new)
            if parent in self._present:
                self._waiting.setdefault(parent, deque()).append(new)
            else:
                self._present[parent] = new
        step.outgoing += [None] * (len(forward.inputs) - len(step.outgoing))
        self.recording.steps.append(step)

    def on_sum(self, node: Node, first: Array, second: Array, total: Array) -> None:
        if node in self._waiting and not self._depth:
            value, i = self._by_node[node], len(self.recording.steps)
            new = self._new_gradient(value, total)
            step = Sum(i, value.id, self._present[node], self._waiting[node].popleft(), new)
            self.recording.steps.append(step)
            self._present[node] = new

    def _new_gradient(self, value: Value, array: Array, user: int | None = None, position: int = 0) -> int:
        r = self.recording
        r.gradients.append(Gradient(len(r.gradients), value.id, len(r.steps), self._keep(array), user, position))
        return len(r.gradients) - 1


def record(
    function: Callable[[], Tensor],
    root: Module | None = None,
    names: Mapping[str, Any] | None = None,
    backward: bool = True,
    keep: Keep = np.array,
) -> Recording:
    """Run a function, and go backward from the scalar that it returns. No `.grad` changes.

    Args:     root: the model that the function calls: its parameters have their names, and layers their paths.
              names: name → Tensor or array, for inputs that are not parameters of root.
              keep: what to keep of each array: by default a copy.
    Raises:   ValueError: the function recorded nothing, or returned anything but a scalar.
    """
    recorder = Recorder(root, names, keep)
    with observing(recorder):
        output = function()
        r = recorder.recording
        known = recorder.knows(output) if isinstance(output, Tensor) else None
        if known is None:
            raise ValueError(f"a recording needs a function that returns a Tensor it made, got {type(output).__name__}")
        r.output = known
        if backward:
            if output.data.size != 1:
                raise ValueError(f"a gradient starts from a scalar, got shape {output.shape}: reduce it, with .sum()")
            leaves = [v.tensor for v in r.values if v.tensor is not None]
            grad(output, leaves)
    name_values(r, root)
    return r


def run_with_cache(model: GPT, ids: Any, targets: Any = None, backward: bool = True) -> dict[str, Array]:
    """The activations of a language model on a text by name, and the gradients of its loss under name + ".grad".

        cache = run_with_cache(model, ids)
        cache["transformer.h.0.attn.weights"]           # (B, H, T, T)
        cache["transformer.h.0.attn.weights.grad"]

    The model runs on plain kernels (`fused=False`) and without dropout, so that every intermediate is there. It is left
    as it was.

    Args:     ids: (B, T). targets: (B, T); if None, each position predicts the next id, and the last one nothing.
              backward: False returns activations alone, and needs no targets.
    Returns:  arrays, copied: values and gradients.
    Raises:   ValueError: as `model.loss`; no position has a target.
    """
    return record_model(model, ids, targets, backward).cache()


def record_model(model: GPT, ids: Any, targets: Any = None, backward: bool = True, keep: Keep = np.array) -> Recording:
    """The recording of `run_with_cache`."""
    ids = as_ids(ids)
    if backward and targets is None:
        targets = next_ids(ids)
    names = {"ids": ids}
    with plain(model):
        if not backward:
            return record(lambda: model(ids), model, names, False, keep)
        return record(lambda: model.loss(ids, targets), model, names, True, keep)


def next_ids(ids: Array) -> Array:
    """The targets of a text: the id that follows each one, and −100, which does not count, behind the last.

    Raises:   ValueError: a text of one token has no next one.
    """
    if ids.shape[1] < 2:
        raise ValueError("got a text of one token, which predicts no other: give at least two, or targets")
    return np.concatenate([ids[:, 1:], np.full((len(ids), 1), -100)], axis=1)


@contextmanager
def plain(model: Module) -> Iterator[None]:
    """Inside this block, the model computes on plain kernels, keeps every activation, and drops nothing out."""
    wanted = {"fused": False, "recompute": False}
    before = {name: getattr(model, name) for name in wanted if hasattr(model, name)}
    modes = [(module, module._training) for module in model.modules()]
    model.eval()
    try:
        for name in before:
            setattr(model, name, wanted[name])
        yield
    finally:
        for name, old in before.items():
            setattr(model, name, old)
        for module, mode in modes:
            module.training = mode
