"""Generating one text with a model of GPT-2's shape.

decode   greedy generation with a cache of keys and values: the time per token
prefill  the forward pass that reads a prompt, fills the cache and gives the first token: the time per prompt
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
from tinygrad_llm.generation.loop import read_prompt
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.weights import write_pretrained

THEIRS = ("transformers",)
# The weights are five times as large as GPT-2's initial ones. Attention and MLPs then outweigh the embedding of
# the token, which the head shares, so the model does not repeat one token forever.
CONFIG = GPTConfig(initializer_range=0.1)
PROMPT, NEW = 16, 64  # tokens
PREFILL = 512
TOLERANCE = 1e-3


def decode_cases(config: GPTConfig = CONFIG) -> Cases:
    """The time per token: reading PROMPT tokens and generating NEW, divided by NEW."""
    with _files(config) as options:
        name = f"a token, {NEW} after {PROMPT}"
        yield Case(name, _subjects("decoding"), options, traffic=weight_bytes(config))


def prefill_cases(config: GPTConfig = CONFIG) -> Cases:
    """The time to read a prompt of PREFILL tokens."""
    flops = prompt_flops(dataclasses.replace(config, block_size=PREFILL))
    with _files(config) as options:
        yield Case(f"{PREFILL} tokens", _subjects("prefill"), options, TOLERANCE, flops=flops)


def _subjects(function: str) -> dict[str, str]:
    modules = {OURS: __name__, "transformers": "tinygrad_llm.bench.against_transformers"}
    return {name: f"{module}:{function}" for name, module in modules.items()}


@contextlib.contextmanager
def _files(config: GPTConfig) -> Iterator[dict[str, str]]:
    """A folder of weights that all contenders read. It is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        write_pretrained(Path(folder), config, GPT(config, Generator(0)).state_dict(), "huggingface")
        yield {"folder": folder}


def prompt(vocab_size: int, length: int) -> NDArray[np.int64]:
    """(1, length) ids."""
    return Generator(1).randint(0, vocab_size, (1, length))


def sample(logits: NDArray[Any]) -> list[Any]:
    """An answer: the shape of the logits, which must be equal, and some logits of the last position."""
    return [list(logits.shape), logits[0, -1, ::97].tolist()]


# ---- in the worker -----------------------------------------------------------------------------------------------


def decoding(folder: str) -> Subject:
    """Generating greedily with `generate`."""
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
            return read_prompt(model, ids, model.new_cache()).data

    return Work(lambda: sample(read()), read, imported, numpy_facts)
