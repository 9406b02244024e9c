# mypy: disable-error-code="import-not-found"
"""In the worker: transformers generates on PyTorch, from the same files."""

import os
from typing import Any

from tinygrad_llm.bench.decode import NEW, PREFILL, PROMPT, prompt, sample
from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.work import Work
from tinygrad_llm.runtime import peak_memory


def _model(folder: str) -> tuple[Any, int | None]:
    """The model, and the peak memory before it was created."""
    import torch
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    imported = peak_memory()
    model = GPT2LMHeadModel.from_pretrained(folder, local_files_only=True).eval()
    model.generation_config.eos_token_id = None  # so that it generates as many tokens as requested
    model.generation_config.pad_token_id = 0
    return model, imported


def _facts() -> dict[str, Any]:
    import torch
    import transformers

    blas = f"PyTorch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} thread(s)"
    return {"version": transformers.__version__, "blas": blas}


def decoding(folder: str) -> Subject:
    """Generating greedily with `generate`."""
    import torch

    model, imported = _model(folder)
    ids = torch.from_numpy(prompt(model.config.vocab_size, PROMPT))
    mask = torch.ones_like(ids)

    def write() -> list[int]:
        new = model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, use_cache=True)
        ids_written: list[int] = new[0, PROMPT:].tolist()
        return ids_written

    return Work(write, write, imported, _facts, pieces=NEW)


def prefill(folder: str) -> Subject:
    """Reading a prompt, with a cache, up to the next token's logits."""
    import torch

    model, imported = _model(folder)
    ids = torch.from_numpy(prompt(model.config.vocab_size, PREFILL))

    def read() -> Any:
        with torch.inference_mode():
            return model(ids, use_cache=True, logits_to_keep=1).logits

    return Work(lambda: sample(read().numpy()), read, imported, _facts)
