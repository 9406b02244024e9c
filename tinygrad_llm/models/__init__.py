"""The models: GPT, and a classifier on top of it.

`MODELS` are those that `tinygrad-llm train --model` makes. The `kind` of a config is its key there.
"""

from tinygrad_llm.models.config import CONFIGS, GPTConfig
from tinygrad_llm.models.gpt import GPT, MLP, Block, Transformer
from tinygrad_llm.models.heads import GPTClassifier, GPTClassifierConfig
from tinygrad_llm.weights import PreTrainedModel

__all__ = [
    "CONFIGS",
    "GPT",
    "MLP",
    "MODELS",
    "Block",
    "GPTClassifier",
    "GPTClassifierConfig",
    "GPTConfig",
    "Transformer",
]

MODELS: dict[str, type[PreTrainedModel]] = {"gpt": GPT}
