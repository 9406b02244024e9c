"""Layers: objects that hold parameters and have a `forward`."""

from tinygrad_llm.nn.attention import LayerCache, MultiHeadAttention
from tinygrad_llm.nn.attention_steps import (
    CausalAttention,
    MultiHeadAttentionWrapper,
    MultiHeadWrapper,
    SelfAttention,
    simple_self_attention,
)
from tinygrad_llm.nn.layers import GELU, Dropout, Embedding, LayerNorm, Linear, ModuleList, ReLU, RMSNorm, Sequential
from tinygrad_llm.nn.lora import LoRA, LoRAEmbedding, LoRALinear, adapt, add_lora, lora_layers, merge_lora
from tinygrad_llm.nn.module import Module, Parameter
from tinygrad_llm.nn.report import LearningReport, learning_report

__all__ = [
    "GELU", "CausalAttention", "Dropout", "Embedding", "LayerCache", "LayerNorm", "LearningReport", "Linear",
    "LoRA", "LoRAEmbedding", "LoRALinear", "Module", "ModuleList", "MultiHeadAttention",
    "MultiHeadAttentionWrapper", "MultiHeadWrapper", "Parameter", "RMSNorm", "ReLU", "SelfAttention",
    "Sequential", "adapt", "add_lora", "learning_report", "lora_layers", "merge_lora", "simple_self_attention",
]  # fmt: skip
