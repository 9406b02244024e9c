"""`torch.save` and `torch.load`: nested dicts and lists of Tensors, numbers and texts, in a safetensors file.

The arrays are in the file under their paths ("model.0.weight"), and its metadata holds the rest as JSON. So a state of
a model is a file that every reader of safetensors reads. Nothing that a file says is ever run: pickles are refused.
"""

import json
import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.storage.files import MAX_JSON, LoadError, open_regular, parse_json
from tinygrad_llm.torch.dtypes import check_device
from tinygrad_llm.torch.missing import NotOffered
from tinygrad_llm.torch.tensor import Parameter, Tensor, constant

_FORM = "tinygrad_llm.torch"  # the metadata that holds everything except the arrays
_PICKLES = (b"PK\x03\x04", b"\x80")  # a zip file, and a bare pickle


def save(obj: Any, f: Any) -> None:
    """Write a state to a path or an open file: Tensors, numbers, texts and None, in nested dicts, lists and tuples.

    Raises:   NotOffered: something else, such as a whole model: save its `state_dict()`.
    """
    if not isinstance(f, str | os.PathLike):  # a file that is open for writing, such as io.BytesIO
        with tempfile.TemporaryDirectory() as folder:
            save(obj, path := Path(folder, "saved"))
            f.write(path.read_bytes())
        return
    arrays: dict[str, Any] = {}
    form = _form(obj, "", arrays)
    save_safetensors(f, arrays, {_FORM: json.dumps(form, separators=(",", ":"))})


def _form(x: Any, path: str, arrays: dict[str, Any]) -> Any:
    """The JSON of a state; its arrays go into `arrays`, under their paths."""
    if isinstance(x, Tensor | np.ndarray):
        name = path or "tensor"
        while name in arrays:
            name += "'"
        arrays[name] = x.ours.data if isinstance(x, Tensor) else x
        return {"tensor": name, "trained": True} if isinstance(x, Parameter) else {"tensor": name}
    if isinstance(x, np.generic):
        return x.item()
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, dict):
        if not all(isinstance(key, str | int) for key in x):
            raise NotOffered(f"torch.save: the keys of {path or 'a dict'} must be texts or whole numbers")
        items = [[key, _form(item, f"{path}.{key}" if path else str(key), arrays)] for key, item in x.items()]
        return {"ordered" if isinstance(x, OrderedDict) else "dict": items}
    if isinstance(x, list | tuple):
        items = [_form(item, f"{path}.{i}" if path else str(i), arrays) for i, item in enumerate(x)]
        return {"list" if isinstance(x, list) else "tuple": items}
    hint = "save its state_dict()" if hasattr(x, "state_dict") else "save Tensors, numbers and texts"
    raise NotOffered(f"torch.save: cannot write {type(x).__name__}{f' ({path})' if path else ''}: {hint}")


def load(f: Any, map_location: Any = None, *, weights_only: bool = True, mmap: bool = False) -> Any:
    """Read what `save` wrote; another safetensors file gives a dict of its Tensors.

    Raises:   LoadError: a pickle, which could run anything; a damaged file. NotOffered: weights_only=False.
    """
    if not isinstance(f, str | os.PathLike):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "loaded")
            path.write_bytes(f.read())
            return load(path, map_location, weights_only=weights_only)
    if map_location is not None and not callable(map_location):
        check_device(map_location)
    if not weights_only:
        raise NotOffered("torch.load: weights_only=False would run what the file says: leave it out")
    with open_regular(f) as file:
        start = file.read(8)
    if start.startswith(_PICKLES) and int.from_bytes(start, "little") > MAX_JSON:  # no length of a header
        raise LoadError(
            f"{Path(f)}: a pickle of PyTorch, which could run anything: there, write "
            "safetensors.torch.save_file(state_dict, path), and load that file here"
        )
    arrays, metadata = load_safetensors(f)
    tensors = {name: constant(array) for name, array in arrays.items()}
    if _FORM not in metadata:
        return tensors
    try:
        return _restored(parse_json(f"{Path(f)}: {_FORM}", metadata[_FORM].encode()), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{Path(f)}: metadata {_FORM}: does not fit the arrays: {error}") from None


def _restored(form: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        x = tensors[form["tensor"]]
        return Parameter(x) if form.get("trained") else x
    ((kind, items),) = form.items()
    if kind in ("dict", "ordered"):
        pairs = [(key, _restored(item, tensors)) for key, item in items]
        return OrderedDict(pairs) if kind == "ordered" else dict(pairs)
    parts = [_restored(item, tensors) for item in items]
    return {"list": list, "tuple": tuple}[kind](parts)
