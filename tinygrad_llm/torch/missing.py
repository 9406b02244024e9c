"""What PyTorch has and this package has not: an error that names the nearest thing there is."""

from collections.abc import Callable, Iterable
from typing import Any

from tinygrad_llm.storage.text import nearest

# By PyTorch's dotted name. Names that are not here get the name that is spelled most like them.
NEAREST = {
    "torch.bfloat16": "NumPy has no bfloat16: use torch.float32, or torch.float16",
    "torch.compile": "there is no compiler: call the function or model as it is",
    "torch.distributed": "processes are for `mpiexec -n 2 tinygrad-llm train …`, threads for its setting workers",
    "torch.func": "gradients are torch.autograd.grad; exact checks are tinygrad_llm.gradcheck",
    "torch.jit": "there is no compiler: call the function or model as it is",
    "torch.multiprocessing": "processes are for `mpiexec -n 2 tinygrad-llm train …`, threads for its setting workers",
    "torch.onnx": "torch.save writes safetensors, which other programs read",
    "torch.optim.lr_scheduler.OneCycleLR": "LinearLR, then CosineAnnealingLR, in a SequentialLR",
    "torch.profiler": "`tinygrad-llm bench` measures operations",
    "torch.vmap": "operations broadcast over leading axes",
    "torch.nn.Transformer": "tinygrad_llm.models.GPT",
    "torch.nn.TransformerEncoderLayer": "tinygrad_llm.models.Block",
    "torch.nn.TransformerDecoderLayer": "tinygrad_llm.models.Block",
    "torch.nn.attention": "torch.nn.functional.scaled_dot_product_attention",
    "torch.nn.parallel": "processes are for `mpiexec -n 2 tinygrad-llm train …`, threads for its setting workers",
    "torch.nn.BatchNorm1d": "torch.nn.LayerNorm",
    "torch.nn.Conv1d": "torch.nn.Linear on windows of the input",
    "torch.nn.LSTM": "torch.nn.functional.scaled_dot_product_attention",
    "torch.nn.RNN": "torch.nn.functional.scaled_dot_product_attention",
    "torch.optim.RMSprop": "torch.optim.Adam",
    "torch.optim.Adagrad": "torch.optim.Adam",
    "torch.utils.data.distributed": "processes are for `mpiexec -n 2 tinygrad-llm train …`",
    "torch.nn.Module.register_full_backward_hook": "Tensor.register_hook, on a parameter or an output",
    "torch.utils.checkpoint": "tinygrad_llm.autograd.recompute",
    "torch.utils.tensorboard": "`tinygrad-llm train` writes its figures to metrics.csv, and draws them",
    "torch.autograd.Function": "a kernel, forward beside backward (tinygrad_llm.kernels), with autograd.apply",
    "torch.autograd.functional": "tinygrad_llm.gradcheck",
    "torch.Tensor.bfloat16": "NumPy has no bfloat16: use .float() or .half()",
}


class NotOffered(NotImplementedError):
    """An argument or a use of PyTorch that this package does not have; the message names the nearest thing it has."""


class NoSuchName(AttributeError):
    """A name of PyTorch that this package does not have; the message names the nearest thing it has."""


def missing(owner: str, name: str, known: Iterable[str]) -> NoSuchName:
    """The error for a name that is not there.

    Args:     owner: PyTorch's dotted name of the module or class, such as "torch.nn". known: the names it has here.
    """
    full = f"{owner}.{name}"
    hint = next((text for key, text in NEAREST.items() if full == key or full.startswith(f"{key}.")), "")
    tail = f": {hint}" if hint else nearest(name, known)
    if not hint and ": there are " in tail:  # none is spelled like it, and all would fill the screen
        tail = ": see the table in help('tinygrad_llm.torch')"
    return NoSuchName(f"tinygrad_llm.torch has no {full}{tail}", name=name)


def lookup(owner: str, known: Callable[[], Iterable[str]]) -> Callable[[str], Any]:
    """A module's `__getattr__`, which raises `missing` for every name."""

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):  # Python asks modules for such names by itself
            raise AttributeError(name)
        raise missing(owner, name, [one for one in known() if not one.startswith("_")])

    return __getattr__


def refuse(what: str, **arguments: Any) -> None:
    """Raise NotOffered for the arguments that are not None and not False.

    Args:     what: PyTorch's name of the function. arguments: name → the value that was given.
    """
    given = [f"{name}={value!r:.40}" for name, value in arguments.items() if value is not None and value is not False]
    if given:
        raise NotOffered(f"{what}: {', '.join(given)} is not offered here: leave it out")
