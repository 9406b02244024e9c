"""How GPT-2's weights and sizes are named in the files of others, and here. `WRITERS` says which files are read.

            ours                                OpenAI (TensorFlow)         Hugging Face (PyTorch)
    name    transformer.h.0.attn.c_attn.weight  model/h0/attn/c_attn/w      ours; `transformer.` may be missing
    linear  (out, in)                           [1, in, out]                (in, out)
    head    lm_head.weight, unless it is wte    is wte                      lm_head.weight, even if it is wte
    sizes   GPTConfig                           hparams.json                config.json

OpenAI wrote the linear layers as convolutions of width 1, and Hugging Face kept their (in, out) as a `Conv1D`.
Hugging Face's names equal ours, so only the shapes distinguish the two layouts, and attn.c_proj, (C, C), is square.
Therefore the layout is recognized once per file, from the linear layers that are not square; never tensor by tensor.

Left out of every file: masks, Adam's slots and counters, and the prefixes that DDP, FSDP and torch.compile add. A file
without wte has its output head there (`safetensors.torch.save_model`). A file without any bias gets zeros, except for
queries, keys and values, where GPT has a choice (`qkv_bias`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.files import LoadError, show
from tinygrad_llm.weights.bert import SIGN

STYLES = {
    "ours": "our names",
    "openai": "OpenAI's names",
    "huggingface": "Hugging Face's names",
    "book": "the book's names",
}


class Writer(NamedTuple):
    """The program whose files have a name that matches `sign`, and their style, or why they are refused."""

    who: str
    sign: str
    style: str | None
    refused: str = ""


# The first row that matches a name of the file counts.
_HEAD_ONLY = "save it as GPT2LMHeadModel, with the head of a language model"
WRITERS = (
    Writer("an adapter of PEFT", r".*\.lora_[AB]\.", None, "merge it into its model first (merge_and_unload)"),
    Writer(
        "a quantized model", r".*\.(SCB|absmax|qweight|qzeros|quant_state.*)$", None, "save it in float32 or float16"
    ),
    Writer("GPT2ForSequenceClassification", r"score\.", None, _HEAD_ONLY),
    Writer("GPT2DoubleHeadsModel", r"multiple_choice_head\.", None, _HEAD_ONLY),
    Writer("a GPT-2 with cross-attention", r".*\.(crossattention|ln_cross_attn)\.", None, "GPT is a decoder only"),
    Writer("minGPT of 2020", r"blocks\.\d+\.attn\.key\.", None, "its GELU is not GPT-2's: use minGPT of 2022 or later"),
    Writer(
        "Megatron-LM",
        r"(language_model|embedding\.word_embeddings|decoder\.layers)\.",
        None,
        "convert it to Hugging Face's GPT-2",
    ),
    Writer("Llama or a model like it", r"(model\.)?(layers\.|embed_tokens\.)|gpt_neox\.", None, "only GPT-2 is read"),
    Writer("BERT", SIGN.pattern, None, "GPT is a decoder only; `tinygrad-llm fill` and `classify` read it"),
    Writer("OpenAI", r"model/", "openai"),
    Writer("Build a Large Language Model (From Scratch)", r"trf_blocks\.|tok_emb\.", "book"),
    # nanoGPT's GELU is not GPT-2's since 2023: reading it gives an OtherModelWarning (`pretrained`).
    Writer("Hugging Face, nanoGPT, minGPT of 2022, this package", r"(transformer\.)?(h\.\d+|wte|wpe|ln_f)\.", ""),
)

# ---- tensors -------------------------------------------------------------------------------------------------------

_OUTSIDE = {
    "transformer.wte.weight": "model/wte",
    "transformer.wpe.weight": "model/wpe",
    "transformer.ln_f.weight": "model/ln_f/g",
    "transformer.ln_f.bias": "model/ln_f/b",
}
_IN_BLOCK = {
    "ln_1.weight": "ln_1/g",
    "ln_1.bias": "ln_1/b",
    "attn.c_attn.weight": "attn/c_attn/w",
    "attn.c_attn.bias": "attn/c_attn/b",
    "attn.c_proj.weight": "attn/c_proj/w",
    "attn.c_proj.bias": "attn/c_proj/b",
    "ln_2.weight": "ln_2/g",
    "ln_2.bias": "ln_2/b",
    "mlp.c_fc.weight": "mlp/c_fc/w",
    "mlp.c_fc.bias": "mlp/c_fc/b",
    "mlp.c_proj.weight": "mlp/c_proj/w",
    "mlp.c_proj.bias": "mlp/c_proj/b",
}
_FROM_OUTSIDE = {theirs: ours for ours, theirs in _OUTSIDE.items()}
_FROM_BLOCK = {theirs: ours for ours, theirs in _IN_BLOCK.items()}

_BLOCK = re.compile(r"transformer\.h\.(\d+)\.(.+)")
_OPENAI_BLOCK = re.compile(r"model/h(\d+)/(.+)")
_LINEAR = re.compile(r"(?:transformer\.)?h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")

# Not parameters: masks, which old files store as tensors, and what TensorFlow's Adam keeps.
_LEFT_OUT = re.compile(
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias|trf_blocks\.\d+\.att\.mask|.*/Adam(_1)?|(.*/)?(beta[12]_power|global_step)"
)
_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # in any place

_BOOK = {
    "tok_emb.": "transformer.wte.", "pos_emb.": "transformer.wpe.", "out_head.": "lm_head.",
    "final_norm.scale": "transformer.ln_f.weight", "final_norm.shift": "transformer.ln_f.bias",
    "trf_blocks.": "transformer.h.", ".norm1.scale": ".ln_1.weight", ".norm1.shift": ".ln_1.bias",
    ".norm2.scale": ".ln_2.weight", ".norm2.shift": ".ln_2.bias", ".att.out_proj.": ".attn.c_proj.",
    ".ff.layers.0.": ".mlp.c_fc.", ".ff.layers.2.": ".mlp.c_proj.",
}  # fmt: skip


def recognize(arrays: Mapping[str, Array], stated_by: str = "") -> str:
    """Return the style of a file's names and layout: "ours", "openai" or "huggingface".

    Every linear layer that is not square votes, so a single transposed tensor is an error and not another layout.

    Args:     stated_by: the file or field that says the layout is Hugging Face's; "" if nothing does.
    Raises:   LoadError: the layers contradict `stated_by`; a file of `WRITERS` that is not read.
    """
    arrays = _cleaned(arrays)
    for writer in WRITERS:
        if sign := next((name for name in arrays if re.match(writer.sign, name)), None):
            if writer.style is None:
                raise LoadError(f"of {writer.who}, as {show(sign)} shows: {writer.refused}")
            if writer.style:
                return writer.style
    votes = 0
    for name, array in arrays.items():
        linear = _LINEAR.fullmatch(name)
        if linear and linear[1] != "attn.c_proj" and array.ndim == 2:
            widens = linear[1] != "mlp.c_proj"  # C → 3C or 4C; mlp.c_proj maps 4C → C
            votes += 1 if (array.shape[1] > array.shape[0]) == widens else -1
    if stated_by and votes < 0:
        raise LoadError(
            f"{stated_by} says that the linear layers have Hugging Face's layout, (in, out), but they are (out, in)"
        )
    return "huggingface" if votes > 0 or stated_by else "ours"


def to_ours(arrays: Mapping[str, Array], style: str) -> dict[str, Array]:
    """Return the arrays of a file under our names and in our layout, as views: nothing is copied.

    Names that GPT-2 does not have, and shapes that a linear layer does not have, pass through unchanged:
    `check_tensors` reports them. Only the book's queries, keys and values, which it keeps apart, are copied.

    Raises:   LoadError: two names stand for one tensor.
    """
    arrays = _cleaned(arrays)
    if style == "book":
        arrays = _renamed(_joined(arrays), _from_book)
    if style in ("ours", "book"):
        return _completed(arrays)
    if style == "openai":
        renamed = _renamed(arrays, _from_openai)
        wide = [name for name, a in renamed.items() if _LINEAR.fullmatch(name) and a.ndim == 3 and len(a) == 1]
        return _transposed(renamed | {name: renamed[name][0] for name in wide})
    prefix = "" if any(name.startswith("transformer.") for name in arrays) else "transformer."
    return _completed(_transposed(_renamed(arrays, lambda name: name if name == "lm_head.weight" else prefix + name)))


def from_ours(state: Mapping[str, Array], style: str) -> dict[str, Array]:
    """Return our parameters under the names and in the layout of another style; the inverse of `to_ours`.

    GPT-2 always has a bias of queries, keys and values. A model without one gets zeros there.

    Raises:   ValueError: style "openai" and an untied output head, for which OpenAI has no name.
    """
    if style == "ours":
        return dict(state)
    theirs = _transposed(state)
    for name, array in state.items():
        bias = name.removesuffix("weight") + "bias"
        if name.endswith("attn.c_attn.weight") and bias not in state:
            theirs[bias] = np.zeros(len(array), array.dtype)
    if style == "huggingface":
        return theirs
    if "lm_head.weight" in theirs:
        raise ValueError("OpenAI's form has no lm_head.weight, an output head that is not wte: choose another form")
    return {_to_openai(name): array[None] if _LINEAR.fullmatch(name) else array for name, array in theirs.items()}


def _cleaned(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Remove tensors that are not parameters, and the prefixes of wrappers."""
    kept = _renamed(arrays, lambda name: _WRAPPERS.sub("", name))
    for prefix in ("module.", "model."):  # of DDP; of a class that holds the model
        if kept and all(name.startswith(prefix) for name in kept):
            kept = {name.removeprefix(prefix): array for name, array in kept.items()}
    return {name: array for name, array in kept.items() if not _LEFT_OUT.fullmatch(name)}


def _completed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Add the tensors that a file may leave out: wte where it is the head, and biases that are all zero."""
    state = dict(arrays)
    if "transformer.wte.weight" not in state and "lm_head.weight" in state:
        state["transformer.wte.weight"] = state.pop("lm_head.weight")
    if not any(name.endswith(".bias") for name in state):
        for name, array in arrays.items():
            inner = name.removesuffix("weight") + "bias"
            block = _BLOCK.fullmatch(inner)
            known = block[2] in _IN_BLOCK and block[2] != "attn.c_attn.bias" if block else inner in _OUTSIDE
            if known and array.ndim:
                state[inner] = np.zeros(len(array), array.dtype)
    return state


def _joined(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Join the book's queries, keys and values, which follow each other in c_attn."""
    joined = dict(arrays)
    for name in arrays:
        parts = [name.replace("W_query", other) for other in ("W_query", "W_key", "W_value")]
        if "W_query" in name and all(part in joined and joined[part].ndim for part in parts):
            shapes = {joined[part].shape[1:] for part in parts}
            if len(shapes) == 1:
                joined[name.replace("att.W_query", "attn.c_attn")] = np.concatenate(
                    [joined.pop(part) for part in parts]
                )
    return joined


def _from_book(name: str) -> str:
    for theirs, ours in _BOOK.items():
        name = name.replace(theirs, ours) if theirs.startswith(".") else re.sub(f"^{re.escape(theirs)}", ours, name)
    return name


def _renamed(arrays: Mapping[str, Array], rename: Callable[[str], str]) -> dict[str, Array]:
    theirs: dict[str, str] = {}
    for name in arrays:
        other = theirs.setdefault(rename(name), name)
        if other != name:
            raise LoadError(f"two names for one tensor: {show(other)} and {show(name)}")
    return {ours: arrays[name] for ours, name in theirs.items()}


def _transposed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Transpose the linear layers: (out, in) ↔ (in, out)."""
    return {name: a.T if _LINEAR.fullmatch(name) and a.ndim == 2 else a for name, a in arrays.items()}


def _from_openai(name: str) -> str:
    block = _OPENAI_BLOCK.fullmatch(name)
    if block and block[2] in _FROM_BLOCK:
        return f"transformer.h.{block[1]}.{_FROM_BLOCK[block[2]]}"
    return _FROM_OUTSIDE.get(name, name)


def _to_openai(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    return f"model/h{block[1]}/{_IN_BLOCK[block[2]]}" if block else _OUTSIDE[name]


# ---- sizes ---------------------------------------------------------------------------------------------------------

_OPENAI = {
    "vocab_size": "n_vocab", "block_size": "n_ctx",
    "n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd",
}  # fmt: skip
_HUGGINGFACE = _OPENAI | {
    "vocab_size": "vocab_size", "block_size": "n_positions",
    "tie_weights": "tie_word_embeddings", "initializer_range": "initializer_range",
}  # fmt: skip

# Hugging Face's GPT-2 has a choice in these fields. Our GPT has only these values.
_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"),  # four names of one formula
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def to_hparams(config: Any) -> dict[str, Any]:
    """Return the fields of OpenAI's hparams.json for a GPTConfig. The tensors show the rest, except dropout."""
    return {theirs: getattr(config, ours) for ours, theirs in _OPENAI.items()}


def from_hparams(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a GPTConfig that a hparams.json states."""
    return {ours: hparams[theirs] for ours, theirs in _OPENAI.items() if theirs in hparams}


def to_huggingface(config: Any, dtype: str = "float32", end_of_text: int | None = None) -> dict[str, Any]:
    """Return the fields of Hugging Face's config.json for a GPTConfig, and the id at which a text ends."""
    if end_of_text is None and config.vocab_size == 50257:
        end_of_text = 50256
    return {
        "architectures": ["GPT2LMHeadModel"],
        **{name: values[0] for name, values in _FIXED.items()},
        **{theirs: getattr(config, ours) for ours, theirs in _HUGGINGFACE.items()},
        "n_ctx": config.block_size,
        "n_inner": None,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), config.dropout),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": dtype,
    }


def from_huggingface(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a GPTConfig that a config.json of Hugging Face states; dropout is not taken over.

    Raises:   ValueError: GPT cannot represent the model; all fields that differ are listed.
    """
    wrong = [
        f"{name} {show(fields[name])} (only {' or '.join(map(repr, values))})"
        for name, values in _FIXED.items()
        if fields.get(name, values[0]) not in values
    ]
    if fields.get("n_inner") not in (None, 4 * fields.get("n_embd", 0)):
        wrong.append(f"n_inner {fields['n_inner']!r} (only null, which is 4 n_embd)")
    if wrong:
        raise ValueError(f"not a model that GPT can represent: {', '.join(wrong)}; use transformers for it")
    if "n_positions" not in fields and "n_ctx" in fields:  # the first versions used this name
        fields = {**fields, "n_positions": fields["n_ctx"]}
    return {ours: fields[theirs] for ours, theirs in _HUGGINGFACE.items() if theirs in fields}
