"""The models: GPT, and the files it is read from."""

from tinygrad_llm.models.config import CONFIGS, GPTConfig
from tinygrad_llm.models.gpt import GPT, MLP, Block, Transformer
from tinygrad_llm.models.pretrained import (
    FORMS,
    WEIGHTS,
    Pretrained,
    find_tokenizer,
    read_pretrained,
    tokenizer_for,
    write_pretrained,
    write_tokenizer,
)

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
    "find_tokenizer",
    "read_pretrained",
    "tokenizer_for",
    "write_pretrained",
    "write_tokenizer",
]
