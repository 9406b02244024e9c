"""From a language model to a classifier, an assistant, and a model trained on preferences. Each is a small `Task`."""

from tinygrad_llm.finetuning.assistant import STYLES, Instructions, collate, encode_entries, prompt_of, refuse_special
from tinygrad_llm.finetuning.classifier import Classification, balanced_weights, classify, token_influence
from tinygrad_llm.finetuning.preference import Preference, encode_pairs, with_reference
from tinygrad_llm.training.padded import PaddedExamples, in_batches, pad

__all__ = [
    "STYLES", "Classification", "Instructions", "PaddedExamples", "Preference", "balanced_weights", "classify",
    "collate", "encode_entries", "encode_pairs", "in_batches", "pad", "prompt_of", "refuse_special",
    "token_influence", "with_reference",
]  # fmt: skip
