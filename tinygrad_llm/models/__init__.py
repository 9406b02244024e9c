"""The models: GPT."""

from tinygrad_llm.models.gpt import GPT, MLP, WEIGHTS, Block, GPTConfig, Transformer

__all__ = ["GPT", "MLP", "WEIGHTS", "Block", "GPTConfig", "Transformer"]
