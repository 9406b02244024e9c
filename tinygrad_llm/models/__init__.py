"""The models: GPT."""

from tinygrad_llm.models.config import CONFIGS, GPTConfig
from tinygrad_llm.models.gpt import GPT, MLP, Block, Transformer

__all__ = ["CONFIGS", "GPT", "MLP", "Block", "GPTConfig", "Transformer"]
