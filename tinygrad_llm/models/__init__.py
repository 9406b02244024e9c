"""The models: GPT, and the files it is read from."""

from tinygrad_llm.models.config import CONFIGS, GPTConfig
from tinygrad_llm.models.gpt import GPT, MLP, Block, Transformer
from tinygrad_llm.models.pretrained import FORMS, WEIGHTS, Pretrained, read_pretrained, write_pretrained

__all__ = [
    "CONFIGS",
    "FORMS",
    "GPT",
    "MLP",
    "WEIGHTS",
    "Block",
    "GPTConfig",
    "Pretrained",
    "Transformer",
    "read_pretrained",
    "write_pretrained",
]
