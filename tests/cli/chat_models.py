"""Shared by the tests of `chat`: models whose answers are known, a run's folder, and a server."""

import contextlib
import threading
import time

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.cli.chat_server import ChatServer
from tinygrad_llm.finetuning import STYLES
from tinygrad_llm.finetuning.conversation import Conversation
from tinygrad_llm.generation import KVCache
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import Tokenizer

BYTES = Tokenizer([])  # 256 bytes, and end of text
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def alphabet(ends=True, block_size=400):
    """A GPT that answers each text with the alphabet: its embedding of each byte is the byte that follows.

    Args:     ends: whether end of text follows z; else a space, and the next alphabet, until the block is full.
    """
    V = BYTES.n_vocab
    model = GPT(GPTConfig(V, block_size, n_layer=1, n_head=1, n_embd=V, tie_weights=False), Generator(0))
    after = dict(zip(ALPHABET, [*ALPHABET[1:], " "], strict=True)) | {" ": "a", "\n": "a"}
    weight = np.zeros((V, V), np.float32)
    for this, following in after.items():
        weight[BYTES.encode(this), BYTES.encode(following)] = 1
    if ends:
        weight[BYTES.encode("z")] = np.eye(V)[BYTES.eot_token]
    for p in model.parameters():
        if p.ndim == 2:
            p.data[:] = 0  # so each block adds nothing
    model.transformer.wte.weight.data[:] = weight
    model.lm_head.weight.data[:] = np.eye(V)
    return model


def save_alphabet(folder, **options):
    """A run's folder with this model; returns its path as text."""
    alphabet(**options).save_pretrained(folder)
    BYTES.save(folder / "tokenizer.json")
    return str(folder)


class Held:
    """A model whose answer is a text, or this text again and again. It counts the bytes that it wrote.

    Args:     free: whether it may write at once; else each byte waits until the test has released one.
    """

    block_size = 10**7

    def __init__(self, text="abc", free=True, ends=True):
        self.ids = [*BYTES.encode(text), *[BYTES.eot_token] * ends]
        self.written = 0
        self.allowed = threading.Semaphore(10**6 if free else 0)

    def new_cache(self):
        return KVCache(1, self.block_size)

    def evaluating(self):
        return contextlib.nullcontext()

    def __call__(self, ids, cache=None, logits_to_keep=None):
        if logits_to_keep == 0:  # an early stretch of a long prompt, after which nothing is written
            return Tensor(np.zeros((1, 0, BYTES.n_vocab), np.float32))
        assert self.allowed.acquire(timeout=60)
        logits = np.zeros((1, 1, BYTES.n_vocab), np.float32)
        logits[0, 0, self.ids[self.written % len(self.ids)]] = 1
        self.written += 1
        return Tensor(logits)


@contextlib.contextmanager
def serving(model=None, title="runs/a", system=""):
    """A server in a thread. At the end, nothing of it may be left: no thread and no socket."""
    model = model or alphabet()

    def new():
        chat = Conversation(model, BYTES, STYLES["phi3"], max_new_tokens=10**6)
        chat.system = system
        return chat

    with ChatServer(new, title) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(60)
    assert [thread.name for thread in threading.enumerate() if "process_request" in thread.name] == []
    assert not server._deadlines


def wait_until(condition):
    """Return when this is true; fail after a minute."""
    stop = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < stop, "it never became true"
        time.sleep(0.005)
