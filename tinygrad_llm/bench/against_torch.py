# mypy: allow-subclassing-any, disable-error-code="import-not-found"
"""In the worker: PyTorch does the same work, as its users write it, with its fastest options on a CPU."""

import os
from collections.abc import Sequence
from typing import Any

from tinygrad_llm.bench import attention as attention_theme
from tinygrad_llm.bench import learn as learn_theme
from tinygrad_llm.bench import optimizer as optimizer_theme
from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.train import FIRST, SETTINGS, batches
from tinygrad_llm.bench.work import Work
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.training import TrainSettings
from tinygrad_llm.weights import read_pretrained


def _torch() -> Any:
    """The module torch, with as many threads as the other contenders."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return torch


def _facts() -> dict[str, Any]:
    import torch

    parts = [name for name, there in (("MKL", torch.backends.mkl), ("oneDNN", torch.backends.mkldnn)) if
             there.is_available()]  # fmt: skip
    blas = f"{', '.join(parts)} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} thread(s)"
    return {"version": torch.__version__, "blas": blas}


def training(folder: str, batch: int, compiled: bool = False) -> Subject:
    """A training step, eager or compiled. Its batches are prepared before the clock starts."""
    torch = _torch()
    imported = peak_memory()
    config, model = _loaded(folder)
    optimizer = adamw(list(model.parameters()))
    loss_of = torch.compile(model) if compiled else model
    stream = batches(config, batch)
    ready: list[Any] = []

    def prepare() -> None:
        ready[:] = [torch.from_numpy(ids) for ids in next(stream)]

    def do() -> Any:
        loss = loss_of(*ready)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()  # a training loop reports it

    def first() -> list[float]:
        losses = []
        for _ in range(FIRST):
            prepare()
            losses.append(do())
        return losses

    return Work(first, do, imported, _facts, prepare)


def learning(folder: str, steps: int, lr: float) -> Subject:
    """Training with AdamW up to a loss, on the batches of our side."""
    torch = _torch()
    settings = learn_theme.settings(steps + 1, lr)
    stream, held_out = learn_theme.data(folder, settings)
    _, model = _loaded(folder)
    optimizer = adamw(list(model.parameters()), settings)
    taken = 0

    def step() -> None:
        nonlocal taken
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate(taken)
        loss = model(*map(torch.from_numpy, next(stream)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        taken += 1

    def measure() -> float:
        with torch.inference_mode():
            losses = [(model(*map(torch.from_numpy, batch)).item(), batch[1].size) for batch in held_out]
        return float(sum(loss * size for loss, size in losses) / sum(size for _, size in losses))

    return learn_theme.Learning(step, measure, _facts)


def training_compiled(folder: str, batch: int) -> Subject:
    """`training`, by torch.compile."""
    return training(folder, batch, compiled=True)


def _loaded(folder: str) -> tuple[GPTConfig, Any]:
    """PyTorch's model with the weights of our file."""
    import torch

    config, state, _ = read_pretrained(folder, GPTConfig)
    model = gpt(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(state.pop(name)))
    assert not state, f"no parameters for {', '.join(state)}"
    return config, model


def gpt(config: GPTConfig) -> Any:
    """GPT-2 in PyTorch, with its names; called with ids and targets, it gives the mean loss."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    C, H = config.n_embd, config.n_head

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = nn.Linear(C, 3 * C)
            self.c_proj = nn.Linear(C, C)

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape
            q, k, v = (part.view(B, T, H, C // H).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc = nn.Linear(C, 4 * C)
            self.gelu = nn.GELU(approximate="tanh")
            self.c_proj = nn.Linear(4 * C, C)

        def forward(self, x: Any) -> Any:
            return self.c_proj(self.gelu(self.c_fc(x)))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn, self.ln_2, self.mlp = nn.LayerNorm(C), Attention(), nn.LayerNorm(C), MLP()

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.ModuleDict({
                "wte": nn.Embedding(config.vocab_size, C),
                "wpe": nn.Embedding(config.block_size, C),
                "h": nn.ModuleList(Block() for _ in range(config.n_layer)),
                "ln_f": nn.LayerNorm(C),
            })  # fmt: skip
            self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
            if config.tie_weights:
                self.lm_head.weight = self.transformer.wte.weight

        def forward(self, ids: Any, targets: Any) -> Any:
            x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
            for block in self.transformer.h:
                x = block(x)
            logits = self.lm_head(self.transformer.ln_f(x))
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    return GPT()


def adamw(parameters: Sequence[Any], settings: TrainSettings = SETTINGS) -> Any:
    """AdamW, fused; matrices decay, vectors do not."""
    import torch

    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def attention(shape: tuple[int, int, int, int]) -> Subject:
    """Attention and its gradient with PyTorch's scaled_dot_product_attention."""
    torch = _torch()
    imported = peak_memory()
    B, H, T, D = shape
    x, g = map(torch.from_numpy, attention_theme.inputs(shape))
    qkv = x.requires_grad_()

    def do() -> tuple[Any, Any]:
        q, k, v = (part.view(B, T, H, D).transpose(1, 2) for part in qkv.split(H * D, dim=2))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, H * D)
        return y, torch.autograd.grad(y, qkv, g)[0]

    def first() -> list[float]:
        y, dqkv = do()
        return attention_theme.sample(y.detach().numpy(), dqkv.numpy())

    return Work(first, do, imported, _facts)


def updating(shapes: Sequence[Sequence[int]]) -> Subject:
    """Clipping and an update with PyTorch's own functions."""
    torch = _torch()
    imported = peak_memory()
    parameters = [torch.nn.Parameter(torch.from_numpy(array)) for array in optimizer_theme.values(shapes)]
    for p in parameters:
        p.grad = torch.empty_like(p)
    optimizer = adamw(parameters)

    def prepare() -> None:
        with torch.no_grad():
            for p in parameters:
                p.grad.copy_(p)

    def do() -> float:
        norm = torch.nn.utils.clip_grad_norm_(parameters, SETTINGS.clip)
        optimizer.step()
        return float(norm)

    def first() -> list[float]:
        prepare()
        arrays = [p.detach().numpy() for p in parameters]  # views
        before = optimizer_theme.sample(arrays)
        return optimizer_theme.answer(do(), before, optimizer_theme.sample(arrays))

    return Work(first, do, imported, _facts, prepare)
