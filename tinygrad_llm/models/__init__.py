"""The models: GPT, and a classifier on top of it."""

from tinygrad_llm.models.config import CONFIGS, GPTConfig
from tinygrad_llm.models.gpt import GPT, MLP, Block, Transformer
from tinygrad_llm.models.heads import GPTClassifier, GPTClassifierConfig

__all__ = ["CONFIGS", "GPT", "MLP", "Block", "GPTClassifier", "GPTClassifierConfig", "GPTConfig", "Transformer"]
