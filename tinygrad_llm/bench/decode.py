"""Writing with a model of GPT-2's shape, one text at a time: a token after the other, and the reading before the first.

decode   greedy, with a cache of keys and values: the time of a token
prefill  one forward pass that fills the cache and tells the next token, as generating begins: the time of a prompt
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import no_grad
from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.limits import prompt_flops, weight_bytes
from tinygrad_llm.bench.measure import OURS, Case, Cases
from tinygrad_llm.bench.work import Work, numpy_facts
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.weights import write_pretrained

THEIRS = ("transformers",)
# Weights five times as large as GPT-2 begins with: what attention and MLPs say then outweighs the embedding of the
# token itself, which is the head's too, so that the model does not write one token again and again.
CONFIG = GPTConfig(initializer_range=0.1)
PROMPT, NEW = 16, 64  # tokens
PREFILL = 512
TOLERANCE = 1e-3


def decode_cases(config: GPTConfig = CONFIG) -> Cases:
    """The time of a token: that of reading PROMPT and writing NEW, divided by NEW."""
    with _files(config) as options:
        name = f"a token, {NEW} after {PROMPT}"
        yield Case(name, _subjects("decoding"), options, traffic=weight_bytes(config))


def prefill_cases(config: GPTConfig = CONFIG) -> Cases:
    """The time of a prompt of PREFILL tokens."""
    flops = prompt_flops(dataclasses.replace(config, block_size=PREFILL))
    with _files(config) as options:
        yield Case(f"{PREFILL} tokens", _subjects("prefill"), options, TOLERANCE, flops=flops)


def _subjects(function: str) -> dict[str, str]:
    modules = {OURS: __name__, "transformers": "tinygrad_llm.bench.against_transformers"}
    return {name: f"{module}:{function}" for name, module in modules.items()}


@contextlib.contextmanager
def _files(config: GPTConfig) -> Iterator[dict[str, str]]:
    """A folder that both read; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        write_pretrained(Path(folder), config, GPT(config, Generator(0)).state_dict(), "huggingface")
        yield {"folder": folder}


def prompt(vocab_size: int, length: int) -> NDArray[np.int64]:
    """(1, length) ids."""
    return Generator(1).randint(0, vocab_size, (1, length))


def sample(logits: NDArray[Any]) -> list[Any]:
    """An answer: the shape of the logits, so that all compute as many, and some of the last position's."""
    return [list(logits.shape), logits[0, -1, ::97].tolist()]


# ---- in the worker -----------------------------------------------------------------------------------------------


def decoding(folder: str) -> Subject:
    """Writing with `generate`, greedily."""
    imported = peak_memory()
    model = GPT.from_pretrained(folder)
    ids = prompt(model.config.vocab_size, PROMPT)

    def write() -> list[int]:
        new: list[int] = model.generate(ids, NEW, temperature=0)[0, PROMPT:].tolist()
        return new

    return Work(write, write, imported, numpy_facts, pieces=NEW)


def prefill(folder: str) -> Subject:
    """Reading a prompt, with a cache, up to the next token's logits."""
    imported = peak_memory()
    model = GPT.from_pretrained(folder)
    model.eval()
    ids = prompt(model.config.vocab_size, PREFILL)

    def read() -> NDArray[Any]:
        with no_grad():
            logits: NDArray[Any] = model(ids, model.new_cache(), logits_to_keep=1).data
        return logits

    return Work(lambda: sample(read()), read, imported, numpy_facts)
