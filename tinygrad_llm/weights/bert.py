"""How BERT's weights and sizes are stated in the files of Hugging Face. The names of the weights are also ours.

    sizes      ours               config.json
               block_size         max_position_embeddings
               n_layer, n_head    num_hidden_layers, num_attention_heads
               n_embd             hidden_size; intermediate_size is four times as much
               segments           type_vocab_size
               labels             id2label, of a BertForSequenceClassification

Left out: the head that says whether two sentences follow each other (`cls.seq_relationship`), the pooler of a model
that predicts words, and copies of a tied weight. Files of before 2019 call the weights of a layer norm gamma and beta.

Source: transformers 5: BertForMaskedLM, BertForSequenceClassification, BertConfig.
"""

import re
from collections.abc import Mapping
from typing import Any

from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.files import LoadError, show
from tinygrad_llm.weights.tensors import same_bits

SIGN = re.compile(r"(bert|roberta|embeddings|encoder)\.")  # the start of the names in an encoder's file
CLASSIFIER = "classifier.weight"  # is in the file of a classifier, and in no other

_WORDS = "bert.embeddings.word_embeddings.weight"
_COPIES = {"cls.predictions.decoder.weight": _WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"}
_LEFT_OUT = re.compile(r"bert\.embeddings\.(position|token_type)_ids|cls\.seq_relationship\..*")
_SIZES = {
    "vocab_size": "vocab_size", "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_embd": "hidden_size",
    "segments": "type_vocab_size", "initializer_range": "initializer_range", "layer_norm_eps": "layer_norm_eps",
}  # fmt: skip
# Hugging Face's BERT has a choice in these fields. Our encoder has only these values.
_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def from_bert(arrays: Mapping[str, Array], classifier: bool) -> dict[str, Array]:
    """Return the arrays of a file under the names of an `Encoder`, or of an `EncoderClassifier`; nothing is copied.

    Raises:   LoadError: a tied weight that differs from its copy.
    """
    state: dict[str, Array] = {}
    for name, array in arrays.items():
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        state[f"bert.{name}" if re.match(r"(embeddings|encoder|pooler)\.", name) else name] = array
    for name, original in _COPIES.items():
        if name in state and original in state and not same_bits(state[name], state[original]):
            raise LoadError(f"{name} differs from {original}, with which an encoder shares it")
        if name in state:
            state.setdefault(original, state.pop(name))
    return {
        name: array
        for name, array in state.items()
        if not _LEFT_OUT.fullmatch(name) and (classifier or not name.startswith("bert.pooler."))
    }


def from_bert_config(fields: Mapping[str, Any], classifier: bool) -> dict[str, Any]:
    """Return the fields of an `EncoderConfig`, or of an `EncoderClassifierConfig`, that a config.json states.

    Dropout is not taken over.

    Raises:   ValueError: our encoder cannot represent the model; all fields that differ are listed.
    """
    wrong = [
        f"{name} {show(fields[name])} (only {values[0]!r})"
        for name, values in _FIXED.items()
        if fields.get(name, values[0]) not in values
    ]
    if fields.get("intermediate_size") not in (None, 4 * fields.get("hidden_size", 0)):
        wrong.append(f"intermediate_size {show(fields['intermediate_size'])} (only 4 hidden_size)")
    if wrong:
        raise ValueError(f"not a model that an encoder can represent: {', '.join(wrong)}; use transformers for it")
    found = {ours: fields[theirs] for ours, theirs in _SIZES.items() if theirs in fields} | {"dropout": 0.0}
    if classifier:
        labels = fields.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
        if not isinstance(labels, dict) or set(labels) != {str(i) for i in range(len(labels))}:
            raise ValueError(f"id2label must name the classes 0, 1, …, got {show(labels)}")
        found["labels"] = tuple(labels[str(i)] for i in range(len(labels)))
    return found


def to_bert_config(config: Any, dtype: str = "float32", padding: int | None = None) -> dict[str, Any]:
    """Return the fields of Hugging Face's config.json for an `EncoderConfig` or an `EncoderClassifierConfig`.

    Args:     padding: the id of [PAD].
    """
    labels: tuple[str, ...] = getattr(config, "labels", ())
    return {
        "architectures": ["BertForSequenceClassification" if labels else "BertForMaskedLM"],
        **{name: values[0] for name, values in _FIXED.items()},
        **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
        "intermediate_size": 4 * config.n_embd,
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), config.dropout),
        "pad_token_id": padding or 0,
        **({"id2label": {str(i): x for i, x in enumerate(labels)}} if labels else {}),
        **({"label2id": {x: i for i, x in enumerate(labels)}} if labels else {}),
        "torch_dtype": dtype,
    }
