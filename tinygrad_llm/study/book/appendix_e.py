"""Appendix E: adapters of low rank (LoRA) beside every linear layer of the classifier of chapter 6."""

import math
from functools import cache
from typing import Any

import numpy as np

from tinygrad_llm.models import GPT, GPTClassifier, GPTConfig
from tinygrad_llm.models.heads import GPTClassifierConfig
from tinygrad_llm.nn.lora import add_lora, lora_layers
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ch04 import matrices
from tinygrad_llm.study.book.ch06 import (
    LABELS,
    SMS,
    Tuned,
    accuracy,
    classification_loss,
    fine_tune,
    five_rows,
    gpt2_classifier,
    loaders,
    small_classifier,
)
from tinygrad_llm.study.book.ledger import TORCH, fact
from tinygrad_llm.study.book.material import train


def lora_parameters(config: GPTConfig, rank: int) -> int:
    """Of adapters beside every linear layer: rank · (in + out) each, where Q, K and V are three layers."""
    total = 0
    for name, (out, into) in matrices(config):
        parts = 3 if name.endswith("c_attn.weight") else 1
        total += rank * (parts * into + out)
    return total


def add_lora_as_the_book_does(model: GPT | GPTClassifier, rank: int, alpha: float, rng: Generator) -> None:
    """Freeze a model, and put adapters beside its linear layers, with the book's first weights.

    The book's A is (in, rank), the transpose of ours, and its bound is 1/√rank in place of 1/√in. It draws them in
    the order of the layers: Q, K, V, the output of attention, the two of the feed-forward part; the head last.
    """
    add_lora(model, rank, alpha, rng=Generator(0))
    bound = 1 / math.sqrt(rank)
    for _, layer in lora_layers(model):
        into = layer.lora_A.weight.shape[1]
        drawn = [rng.uniform(-bound, bound, (into, rank)).T for _ in layer.lora_B]
        layer.lora_A.weight.data = np.concatenate(drawn)


def classifier_config() -> GPTClassifierConfig:
    """GPT-2 small with two outputs."""
    return GPTClassifierConfig(labels=LABELS)


@fact("apE-01", "124,441,346")
def parameters() -> int:
    """Parameters of GPT-2 small with two outputs."""
    return classifier_config().num_parameters


@fact("apE-02", "2,666,528")
def parameters_of_the_adapters() -> int:
    """Parameters of adapters of rank 16 beside all its linear layers."""
    return lora_parameters(classifier_config(), 16)


@fact("apE-03", "0.25 0 0")
def first_weights() -> list[Any]:
    """Seed 123; a small classifier with adapters of rank 16: the largest number of A, whose bound is 1/√16; how many
    numbers of B are not 0; and how many outputs change.
    """
    rng = Generator(123)
    model = small_classifier(rng)
    ids = np.arange(12).reshape(2, 6)
    with model.evaluating():
        before = model(ids).data
        add_lora_as_the_book_does(model, 16, 16, rng)
        after = model(ids).data
    A = max(float(abs(layer.lora_A.weight.data).max()) for _, layer in lora_layers(model))
    B = sum(np.count_nonzero(up.weight.data) for _, layer in lora_layers(model) for up in layer.lora_B)
    return [A, B, np.count_nonzero(after != before)]


@fact(
    "apE-08",
    "0.75756 0.75645 / 0.75665 0.75551 / 0.75574 0.75458 / 0.75483 0.75365 / 0.75392 0.75272 / 0.75301 0.75179",
    origin=TORCH,
    needs=SMS,
    units=10,
)
def small_fine_tuning() -> list[Any]:
    """The small model of ch06-18 with adapters of rank 16; all but the embeddings is trained: losses of six steps."""
    rng = Generator(123)
    both = five_rows(rng)
    model = small_classifier(rng)
    add_lora_as_the_book_does(model, 16, 16, rng)
    for name, p in model.named_parameters():
        p.requires_grad = "transformer.wte" not in name and "transformer.wpe" not in name
    rng.manual_seed(123)
    optimizer = AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    return [pair for _, *pair in train(model, both, optimizer, 6, every=1, batches=1, loss=classification_loss)]


# ---- with OpenAI's weights -------------------------------------------------------------------------------------------


@fact("apE-04", "46.25 45.00 48.75 / 46.25 45.00 48.75", tier="large", needs=("gpt2", *SMS))
def accuracies_before() -> list[Any]:
    """Accuracies in 10 batches of training, validation and test, without and with adapters; seed 123 before both."""
    rng = Generator(123)
    three, model = loaders(rng), gpt2_classifier(rng)
    found = []
    for adapted in (False, True):
        if adapted:
            add_lora_as_the_book_does(model, 16, 16, rng)
        rng.manual_seed(123)
        found.append([accuracy(model, loader, 10) for loader in three])
    return found


@cache
def tuned(alpha: float, lr: float) -> Tuned:
    """GPT-2 small with adapters of rank 16, fine-tuned on the messages; the adapters alone are trained."""
    rng = Generator(123)
    three, model = loaders(rng), gpt2_classifier(rng)
    add_lora_as_the_book_does(model, 16, alpha, rng)
    return fine_tune(model, three, rng, lr)


@fact(
    "apE-05",
    "3.820 3.462 / 0.346 0.325 / 0.063 0.144 / 0.054 0.045 / 0.058 0.122 / 0.041 0.199 / 0.020 0.153 / 0.018 0.202 / "
    "0.014 0.134 / 0.000 0.145 / 0.002 0.205 / 0.016 0.153 / 0.038 0.159",
    tier="slow",
    needs=("gpt2", *SMS),
    units=5,
    follows=12,
)
def tuned_losses() -> list[Any]:
    """Alpha 16, rate 8e-4: losses at every 50th step."""
    return tuned(16, 8e-4).losses


@fact("apE-06", "99.81 97.99 97.33", tier="slow", needs=("gpt2", *SMS), units=100)
def tuned_accuracies() -> list[float]:
    """Its accuracies in training, validation and test."""
    return tuned(16, 8e-4).final


@fact("apE-07", "100.00 96.64 97.33", tier="slow", needs=("gpt2", *SMS), units=100)
def tuned_accuracies_of_the_first_print() -> list[float]:
    """The first print of the book scales by alpha, not by alpha / rank, at the rate 5e-5: the same accuracies."""
    return tuned(16 * 16, 5e-5).final
