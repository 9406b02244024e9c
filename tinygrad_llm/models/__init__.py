"""The models: GPT, the encoder, a classifier on top of each, and the translator of 2017.

`MODELS` are those that `tinygrad-llm train --model` makes. The `kind` of a config is its key there.
"""

from tinygrad_llm.models.config import CONFIGS, GPTConfig
from tinygrad_llm.models.encoder import Encoder, EncoderConfig, EncoderLayer
from tinygrad_llm.models.gpt import GPT, MLP, Block, Transformer
from tinygrad_llm.models.heads import (
    EncoderClassifier,
    EncoderClassifierConfig,
    GPTClassifier,
    GPTClassifierConfig,
    read_classifier,
)
from tinygrad_llm.models.translator import (
    Attention,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    Translator,
    TranslatorConfig,
)
from tinygrad_llm.weights import PreTrainedModel

__all__ = [
    "CONFIGS", "GPT", "MLP", "MODELS", "Attention", "Block", "Encoder", "EncoderClassifier",
    "EncoderClassifierConfig", "EncoderConfig", "EncoderLayer", "GPTClassifier", "GPTClassifierConfig",
    "GPTConfig", "Transformer", "TransformerDecoderLayer", "TransformerEncoderLayer", "Translator",
    "TranslatorConfig", "read_classifier",
]  # fmt: skip

MODELS: dict[str, type[PreTrainedModel]] = {"gpt": GPT, "encoder": Encoder, "translator": Translator}
