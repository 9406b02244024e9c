"""A model's files, read and written: our own, OpenAI's and Hugging Face's.

    form         files in a folder                                     the sizes are in
    safetensors  model.safetensors (`save_pretrained`)                 its metadata
    huggingface  model.safetensors                                     config.json
    openai       model.ckpt.index, .data-00000-of-00001, checkpoint    hparams.json
    npz          model.npz                                             hparams.json

The checkpoints of a run are read too: they state what `about_model` returns.

Every check comes before memory is allocated for a model. Arrays are passed on instead of copied, so reading takes
little more memory than the file has bytes.
"""

import codecs
import dataclasses
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm.formats import Arrays, load_safetensors, read_arrays, save_npz, save_safetensors, write_tensorbundle
from tinygrad_llm.formats.checkpoint import FORMAT as CHECKPOINT
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Dropout, Module, lora_layers
from tinygrad_llm.nn.lora import merged_state
from tinygrad_llm.random import Generator, Shape
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, parse_json, show
from tinygrad_llm.weights.adapters import check_base, find_adapter, merge_adapter
from tinygrad_llm.weights.bert import CLASSIFIER, SIGN, from_bert, from_bert_config, to_bert_config
from tinygrad_llm.weights.find import CONFIG, HPARAMS, INDEX, NPZ, WEIGHTS, find_weights, folder_of
from tinygrad_llm.weights.names import (
    STYLES,
    from_hparams,
    from_huggingface,
    from_ours,
    recognize,
    to_hparams,
    to_huggingface,
    to_ours,
)
from tinygrad_llm.weights.tensors import (
    HEAD,
    WPE,
    WTE,
    Config,
    brief,
    check_tensors,
    drop_tied_head,
    not_finite,
    same_bits,
    unify,
)

FORMS = ("safetensors", "huggingface", "openai", "npz")
_FORMS_OF = {"gpt": FORMS, "encoder": FORMS[:2], "translator": FORMS[:1]}  # by the kind of a model: those that hold it

_OURS, _PYTORCH = "tinygrad_llm.", "pt"  # the start, or the whole, of the field `format` in the metadata of weights
_READ_BY = {
    "tinygrad_llm.GPT": "`tinygrad-llm generate` and `chat` read it",
    "tinygrad_llm.GPTClassifier": "`tinygrad-llm classify` reads it",
    "tinygrad_llm.Encoder": "`tinygrad-llm fill` reads it",
    "tinygrad_llm.EncoderClassifier": "`tinygrad-llm classify` reads it",
    "tinygrad_llm.Translator": "`tinygrad-llm translate` reads it",
}
_MAX_JSON = 1_000_000  # bytes
_HEAD_SIZE = 64  # channels of one head in all GPT-2s


_NANOGPT = (
    "read as a model of nanoGPT, whose GELU is the exact one since 2023. GPT computes GPT-2's, the one with tanh, so "
    "logits differ from the fourth digit on"
)


class OtherModelWarning(UserWarning):
    """GPT computes the model that is read only approximately as the program that wrote it."""


class PreTrainedModel(Module):
    """A model that is read from files and written to them.

        class GPT(PreTrainedModel):
            config_class = GPTConfig

            def __init__(self, config, rng=None):
                super().__init__(config, rng)

    A subclass names the class of its sizes, and takes a config and a Generator.
    """

    config_class: ClassVar[type[Config]]

    def __init__(self, config: Any, rng: Generator | None = None) -> None:
        wanted = self.config_class.__name__
        if not isinstance(config, self.config_class):
            hint = f"{wanted}(**dict)" if isinstance(config, dict) else f"{wanted}(…)"
            raise TypeError(f"config must be a {wanted}, got {type(config).__name__}: write {hint}")
        self.config = config

    def save_pretrained(self, path: str | Path) -> None:
        """Write the model into a folder as one safetensors file that also holds the config.

        The folder is created if it is missing. The file is replaced only when the new one is complete. Other forms:
        `tinygrad-llm convert`.

        Raises:   ValueError: a weight is NaN or infinite; a layer is not the one that the config describes, so that
                  `from_pretrained` would make another model. Nothing is written then.
        """
        changed = _changed_layers(self, type(self)(self.config, _Undrawn(0)))
        if changed:
            raise ValueError(_not_saved(path, changed))
        write_pretrained(path, self.config, self.state_dict())

    @classmethod
    def from_pretrained(
        cls, path: str | Path, n_head: int | None = None, allow_non_finite: bool = False, **options: Any
    ) -> Self:
        """Read a model from a folder or file: one of `save_pretrained`, or a GPT-2 of OpenAI or Hugging Face.

        A folder with a LoRA adapter alone names its base: that is read, and the adapter merged.

        Args:     path: or a name such as "gpt2", for the folder that `tinygrad-llm download` fills.
                  n_head: the number of heads where no file states it; the default is GPT-2's rule, n_embd / 64.
                  allow_non_finite: also accept weights that are NaN or infinite.
                  options: further arguments of the model's constructor.
        Raises:   LoadError: no model there, a damaged file, or weights that do not fit the config.
        """
        adapter = find_adapter(path)
        if adapter is not None:
            if adapter.labels:
                hint = _READ_BY["tinygrad_llm.GPTClassifier"]
                raise LoadError(f"{path}: holds an adapter of a classifier: {hint}")
            model = cls.from_pretrained(adapter.base, n_head, allow_non_finite, **options)
            check_base(model, adapter, path)
            merge_adapter(model, path)
            return model
        config, state, _ = read_pretrained(path, cls.config_class, n_head, allow_non_finite)
        model = cls(config, _Undrawn(0), **options)
        for name, p in model.named_parameters():
            p.data = state[name]
        rng = Generator(0)
        for module in model.modules():
            if isinstance(module, Dropout):
                module.rng = rng
        return model


class _Undrawn(Generator):
    """Draws nothing, for weights that are replaced at once: one zero in all places takes neither time nor memory."""

    def normal(self, mean: float, std: float, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        return np.broadcast_to(np.zeros((), dtype), shape)

    def uniform(self, low: float, high: float, shape: Shape, dtype: DTypeLike = np.float32) -> Array:
        return self.normal(low, high, shape, dtype)


def _changed_layers(model: Module, made: Module) -> list[str]:
    """The differences between a model and the one that its config makes: layers, and settings other than dropout's."""
    own, expected = dict(model.named_modules()), dict(made.named_modules())
    changed = [f"{name} is new" for name in own if name not in expected]
    for name, layer in expected.items():
        kinds = [type(x).__name__ for x in (own.get(name), layer)]
        if name not in own or type(own[name]) is not type(layer):
            changed.append(f"{name} is {kinds[0] if name in own else 'gone'}, not {kinds[1]}")
        elif name and not isinstance(layer, Dropout):
            there = vars(own[name])
            settings = {k: v for k, v in vars(layer).items() if isinstance(v, int | float | str) and k[0] != "_"}
            changed += [f"{name}.{k} is {there.get(k)!r}, not {v!r}" for k, v in settings.items() if there.get(k) != v]
        if name in own and "forward" in vars(own[name]):
            changed.append(f"{name or 'the model'} has a forward of its own")
    return changed


def _not_saved(path: str | Path, differences: list[str]) -> str:
    return (
        f"not saved to {path}: the model is not the one that its config describes, so from_pretrained would make "
        f"another: {brief('; '.join(differences))}. Save its state_dict() with formats.save_safetensors, and load that "
        "into a model that was changed in the same way"
    )


class Contents(NamedTuple):
    """The result of `read_pretrained`: sizes, parameters by our names, and a description: "npz, our names"."""

    config: Any
    state: dict[str, Array]
    found: str


def read_pretrained(
    path: str | Path, config_class: type[Config], n_head: int | None = None, allow_non_finite: bool = False
) -> Contents:
    """Read the sizes and parameters of a model from a folder or a file of any of the forms above.

    The sizes come from the model's own metadata, from hparams.json or from config.json. The tensors give a size
    that these do not state, except the number of heads: that is `n_head`, or n_embd / 64, GPT-2's rule. Dropout
    comes from the model's own metadata; else it is 0.

    Args:     path: or a name such as "gpt2", for the folder that `tinygrad-llm download` fills.
              config_class: of the sizes, such as `GPTConfig`.
    Returns:  parameters that own their memory: float64 if all in the file are, else float32.
    Raises:   LoadError: no model there; a damaged file; sizes that contradict each other or the tensors; tensors that
              are missing, unexpected, misshapen or of integers, all listed; NaN or infinity, unless allowed.
              OSError: a file cannot be read.
    """
    file = find_weights(path)
    read = read_arrays(file)
    if read.metadata.get("format") == CHECKPOINT:
        read = _model_in(file, read)
    form, own = read.metadata.get("format", ""), _own_format(config_class)
    if form == own:
        source, state, found = f"{file}: field 'config'", read.arrays, f"{read.format}, {STYLES['ours']}"
        fields = _parse(source, read.metadata.get("config", "").encode("utf-8", "replace"))
    elif form.startswith(_OURS):
        hint = _READ_BY.get(form, "check the path")
        raise LoadError(f"{file}: holds {show(form)}, and {show(own)} is needed: {hint}")
    elif _is_encoder(config_class):
        source, fields, state, found = _read_bert(file, read, own)
    elif _FORMS_OF[_kind(config_class)] == FORMS[:1]:
        raise LoadError(f"{file}: {show(own)} is needed, and this file is of another program: check the path")
    else:
        source, fields, state, found = _read_gpt2(file, read, n_head)
    del read  # so that `unify` can free each original

    if n_head is not None and fields.setdefault("n_head", n_head) != n_head:
        raise LoadError(f"{source}: n_head is {show(fields['n_head'])}, not the {n_head} asked for")
    try:
        config = config_class(**fields)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{source}: not the sizes of the model {own.removeprefix(_OURS)}: {brief(error)}") from None
    if form != own and n_head is None:
        _check_published(source, config, fields.get("n_head", 0))
    check_tensors(file, source, config, state)
    unify(state)
    broken = [] if allow_non_finite else not_finite(state)
    if broken:
        raise LoadError(f"{file}: NaN or infinity in {brief(', '.join(broken))}")
    return Contents(config, state, found)


def write_pretrained(
    folder: str | Path,
    config: Config,
    state: Mapping[str, Array],
    form: str = FORMS[0],
    end_of_text: int | None = None,
    padding: int | None = None,
) -> None:
    """Write a model into a folder, in one of the forms above. Each file is replaced only when it is complete.

    The folder is created if it is missing. The sizes are written before the weights, because no tensor shows the
    number of heads.

    Args:     end_of_text, padding: the ids at which a text ends and that fill a batch, for Hugging Face's config.json.
    Raises:   ValueError: a weight is NaN or infinite, names or shapes are not those of the config, the form cannot hold
              this model, or the folder holds weights of another form, which would be ambiguous; nothing is written
              then.
              OSError: a file cannot be written.
    """
    folder = Path(folder)
    broken = not_finite(state)
    if broken:
        raise ValueError(f"not saved to {folder}: NaN or infinity in {', '.join(broken)}")
    asked, shapes = dict(config.shapes()), {name: array.shape for name, array in state.items()}
    if asked != shapes:
        pairs = {name: (shapes.get(name, "gone"), asked.get(name, "there")) for name in {**asked, **shapes}}
        wrong = [f"{name} is {own}, not {described}" for name, (own, described) in pairs.items() if own != described]
        raise ValueError(_not_saved(folder, wrong))
    positions = getattr(config, "positions", "absolute")
    if form != FORMS[0] and positions != "absolute":
        whose = "BERT" if _is_encoder(type(config)) else "GPT-2"
        raise ValueError(
            f"the form {form} is {whose}'s, whose positions are absolute, and this model's are {positions}: choose "
            f"{FORMS[0]}"
        )
    kind = _kind(type(config))
    if form not in _FORMS_OF[kind]:
        raise ValueError(f"the form {form} cannot hold the model {kind}: choose {' or '.join(_FORMS_OF[kind])}")
    arrays = from_ours(state, form if form in STYLES else "ours") if kind == "gpt" else dict(state)
    target = {"openai": INDEX, "npz": NPZ}.get(form, WEIGHTS)
    others = [name for name in (WEIGHTS, INDEX, NPZ) if name != target and os.path.lexists(folder / name)]
    if others:
        raise ValueError(f"{folder}: holds {' and '.join(others)} already: remove that, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if form == "safetensors":
        config_text = json.dumps(dataclasses.asdict(config))
        save_safetensors(folder / WEIGHTS, arrays, {"format": _own_format(type(config)), "config": config_text})
    elif _is_encoder(type(config)):
        dtype = arrays["bert.embeddings.LayerNorm.bias"].dtype.name
        _write_json(folder / CONFIG, to_bert_config(config, dtype, padding))
        save_safetensors(folder / WEIGHTS, arrays, {"format": _PYTORCH})
    elif form == "huggingface":
        _write_json(folder / CONFIG, to_huggingface(config, arrays[WTE].dtype.name, end_of_text))
        save_safetensors(folder / WEIGHTS, arrays, {"format": _PYTORCH})  # transformers refuses it without this field
    else:
        _write_json(folder / HPARAMS, to_hparams(config))
        if form == "openai":
            write_tensorbundle(folder / "model.ckpt", arrays)
            with atomic_write(folder / "checkpoint") as file:  # TensorFlow looks here for the latest
                file.write(b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n')
        else:
            save_npz(folder / NPZ, arrays)


def about_model(model: PreTrainedModel) -> dict[str, Any]:
    """Return what a checkpoint states as "model", so that `read_pretrained` can read the model in it.

    Of a model with adapters, "scaling" states alpha / rank of each layer, with which they are merged.
    """
    about: dict[str, Any] = {"format": _own_format(type(model.config)), "config": dataclasses.asdict(model.config)}
    scalings = {name: layer.scaling for name, layer in lora_layers(model)}
    return {**about, "scaling": scalings} if scalings else about


def _model_in(file: Path, read: Arrays) -> Arrays:
    """Return the weights in a checkpoint, as if `save_pretrained` had written them alone."""
    about = _parse(f"{file}: __metadata__: metadata", read.metadata.get("metadata", "").encode("utf-8", "replace"))
    model = about.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("format"), str):
        raise LoadError(
            f"{file}: does not state its model's sizes: `tinygrad-llm train --resume` the run, which saves it"
        )
    start = "model."
    state = {name.removeprefix(start): array for name, array in read.arrays.items() if name.startswith(start)}
    try:
        state = merged_state(state, model.get("scaling", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{file}: its LoRA adapters do not fit its weights: {brief(error)}") from None
    metadata = {"format": model["format"], "config": json.dumps(model.get("config"))}
    return Arrays(state, "checkpoint", metadata)


def _own_format(config_class: type[Config]) -> str:
    """Return the field `format` of our own files of a model: "tinygrad_llm.GPT" for GPTConfig."""
    return _OURS + config_class.__name__.removesuffix("Config")


def model_at(path: str | Path) -> str:
    """Return the name of the class that reads the model at a path: "GPT", "Encoder", "EncoderClassifier", …

    A file that is not recognized gets "GPT", whose reader says what the file is.

    Raises:   LoadError: no model there, or a damaged file.
    """
    adapter = find_adapter(path)
    if adapter is not None:
        return "GPTClassifier" if adapter.labels else "GPT"
    file = find_weights(path)
    if file.suffix != ".safetensors":
        return "GPT"
    names, metadata = load_safetensors(file, mmap=True)
    form = metadata.get("format", "")
    if form == CHECKPOINT:
        about = _parse(f"{file}: __metadata__: metadata", metadata.get("metadata", "").encode("utf-8", "replace"))
        model = about.get("model")
        form = str(model.get("format")) if isinstance(model, dict) else ""
    if form.startswith(_OURS):
        return form.removeprefix(_OURS)
    if any(SIGN.match(name) for name in names):
        return "EncoderClassifier" if CLASSIFIER in names else "Encoder"
    return "GPT"


def _kind(config_class: type) -> str:
    return getattr(config_class, "kind", "gpt")


def _is_encoder(config_class: type) -> bool:
    return _kind(config_class) == "encoder"


def _read_bert(file: Path, read: Arrays, own: str) -> tuple[str, dict[str, Any], dict[str, Array], str]:
    """As `_read_gpt2`, of a BERT.

    Args:     own: the field `format` of our files of this model.
    """
    classifier = own.endswith("Classifier")
    if not any(SIGN.match(name) for name in read.arrays):
        raise LoadError(f"{file}: not a BERT, but {show(sorted(read.arrays))}: check the path")
    if classifier != (CLASSIFIER in read.arrays):
        form = own.removesuffix("Classifier") + "Classifier" * (not classifier)
        raise LoadError(f"{file}: a BERT with{'out' * classifier} classes: {_READ_BY[form]}")
    path = folder_of(file) / CONFIG
    stated = _read_json(path)
    if stated is None:
        raise LoadError(f"{path}: is missing, which states the sizes of a BERT: copy it there")
    try:
        return (
            str(path),
            from_bert_config(stated, classifier),
            from_bert(read.arrays, classifier),
            (f"{read.format}, BERT's names"),
        )
    except LoadError as error:
        raise LoadError(f"{file}: {brief(error)}") from None
    except (TypeError, ValueError) as error:
        raise LoadError(f"{path}: {brief(error)}") from None


# ---- a GPT-2 of others ---------------------------------------------------------------------------------------------


def _read_gpt2(file: Path, read: Arrays, n_head: int | None) -> tuple[str, dict[str, Any], dict[str, Array], str]:
    """Return the source of the sizes, the fields of the config, the tensors by our names, and a description."""
    try:
        style = recognize(read.arrays, _says_huggingface(file, read.metadata))
        state = to_ours(read.arrays, style)
    except LoadError as error:
        raise LoadError(f"{file}: {brief(error)}") from None
    source, stated = _stated_next_to(file, style)
    fields = _seen(file, state) | stated
    if style == "ours" and fields["tie_weights"] is True and any(name.endswith(HEAD) for name in read.arrays):
        warnings.warn(f"{file}: {_NANOGPT}", OtherModelWarning, stacklevel=4)
    if fields["tie_weights"] is True:
        drop_tied_head(state)
        if HEAD in state:
            raise LoadError(f"{source}: the output head is tied to {WTE}, but {file} has another {HEAD}")
    if "n_head" not in fields and n_head is None:
        C = state[WTE].shape[1]
        if C % _HEAD_SIZE:
            raise LoadError(
                f"{file}: n_head is stated nowhere and cannot be seen, and n_embd, {C}, is not a multiple of "
                f"{_HEAD_SIZE}, the size of GPT-2's heads: give n_head, or put the {HPARAMS} next to the file"
            )
        fields["n_head"] = C // _HEAD_SIZE
    return source, fields, state, f"{read.format}, {STYLES[style]}"


def _stated_next_to(file: Path, style: str) -> tuple[str, dict[str, Any]]:
    """Return the file next to the weights that states the sizes, and those sizes; {} if there is none.

    Raises:   LoadError: it cannot be read; another file states other sizes.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    readers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]]
    readers = {HPARAMS: from_hparams, CONFIG: from_huggingface}
    for name in sorted(readers, reverse=style != "huggingface"):  # of both, the one of this style comes first
        path = folder_of(file) / name
        fields = _read_json(path)
        if fields is None:
            continue
        try:
            found.append((path, readers[name](fields)))
        except (TypeError, ValueError) as error:
            if not found:
                raise LoadError(f"{path}: {brief(error)}") from None
    if not found:
        return f"the sizes seen in {file}", {}
    (path, sizes), *others = found
    for other, theirs in others:
        wrong = [f"{key} is {show(theirs[key])}" for key in theirs if theirs[key] != sizes.get(key, theirs[key])]
        if wrong:
            raise LoadError(f"{other}: {', '.join(wrong)}, and {path.name} states otherwise: remove the wrong file")
    return str(path), sizes


def _says_huggingface(file: Path, metadata: Mapping[str, str]) -> str:
    """Return the evidence that the weights are Hugging Face's: the metadata, the path of config.json, or ""."""
    if metadata.get("format") == _PYTORCH:
        return "its metadata"
    path = folder_of(file) / CONFIG
    return str(path) if (_read_json(path) or {}).get("model_type") == "gpt2" else ""


def _check_published(source: str, config: Config, n_head: int) -> None:
    """Raise LoadError for a published size with another number of heads, which no tensor would show."""
    for name, published in config.published.items():
        differing = [field for field, value in vars(published).items() if getattr(config, field) != value]
        if differing == ["n_head"]:
            raise LoadError(
                f"{source}: n_head is {n_head}, but {name}, which has these sizes, has {published.n_head}; "
                f"if it is right, give n_head={n_head}"
            )


def _seen(file: Path, state: Mapping[str, Array]) -> dict[str, Any]:
    """Return the fields of the config that the tensors show."""
    wte, wpe = state.get(WTE), state.get(WPE)
    if wte is None or wpe is None or wte.ndim != 2 or wpe.ndim != 2:
        raise LoadError(f"{file}: not a GPT-2: it has no matrices wte and wpe, but {show(sorted(state))}")
    layers = {block[1] for name in state if (block := re.match(r"transformer\.h\.(\d+)\.", name))}
    return {
        "vocab_size": wte.shape[0],
        "block_size": wpe.shape[0],
        "n_embd": wte.shape[1],
        "n_layer": len(layers),
        "qkv_bias": any(name.endswith("attn.c_attn.bias") for name in state),
        "tie_weights": HEAD not in state or same_bits(state[HEAD], wte),
    }


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is no file."""
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise LoadError(f"{path}: not a file, but a folder, a pipe or a link to nothing: move it away")
    with open(path, "rb") as stream:
        text = stream.read(_MAX_JSON + 1)
    if len(text) > _MAX_JSON:
        raise LoadError(f"{path}: longer than {_MAX_JSON} bytes, so not the sizes of a model")
    return _parse(str(path), text.removeprefix(codecs.BOM_UTF8))


def _parse(where: str, text: bytes) -> dict[str, Any]:
    fields = parse_json(where, text)
    if not isinstance(fields, dict):
        raise LoadError(f"{where}: must be a JSON object, got {show(fields)}")
    return fields


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(fields, indent=2) + "\n").encode())
