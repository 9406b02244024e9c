"""FLOPs and bytes of the work against counts by hand; the limits of the machine."""

import math

import pytest

from tinygrad_llm import GPT, Generator, GPTConfig
from tinygrad_llm.bench import limits
from tinygrad_llm.bench.limits import Limits, attention_flops, prompt_flops, step_flops, weight_bytes
from tinygrad_llm.bench.train import CONFIGS
from tinygrad_llm.runs import plan

CONFIG = GPTConfig(n_layer=3, n_head=2, n_embd=8, block_size=5, vocab_size=11)


def product(n, k, m):
    return 2 * n * k * m


def by_hand(B, T, H, D, L, V, head_rows):
    """FLOPs of a forward pass: each product by itself, attention by pairs of positions."""
    C, N = H * D, B * T
    pairs = sum(1 for query in range(T) for key in range(T) if key <= query)
    attention = B * H * pairs * 2 * product(1, D, 1)  # a score, and a value weighted and added
    block = product(N, C, 3 * C) + attention + product(N, C, C) + product(N, C, 4 * C) + product(N, 4 * C, C)
    return L * block + product(head_rows, C, V)


def test_flops_of_a_step_are_those_counted_by_hand():
    forward = by_hand(B=7, T=5, H=2, D=4, L=3, V=11, head_rows=35)
    assert step_flops(CONFIG, 7) == 3 * forward  # each product has two gradients


def test_flops_of_a_prompt_are_those_counted_by_hand():
    assert prompt_flops(CONFIG) == by_hand(B=1, T=5, H=2, D=4, L=3, V=11, head_rows=1)


def test_flops_of_attention_are_those_counted_by_hand():
    alone = by_hand(B=7, T=5, H=2, D=4, L=1, V=11, head_rows=0) - 35 * 2 * 12 * 8 * 8
    assert attention_flops(7, 2, 5, 4) == 3 * alone


@pytest.mark.parametrize(
    ("name", "milliseconds"), [("char-cpu", 8), ("book-mini", 41), ("baby", 285), ("gpt2-124M", 375)]
)
def test_time_of_a_step_at_510_gigaflops(name, milliseconds):
    """Attention is counted in full here. Its causal half is less, most of all where T is large compared to C."""
    config, batch = CONFIGS[name]
    full = plan.flops(config, batch * config.block_size)
    assert full / 510e9 == pytest.approx(milliseconds / 1e3, rel=0.03)
    assert 0.94 * full < step_flops(config, batch) < full


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_of_a_token_are_those_of_the_weights_it_reads(tied):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=5, vocab_size=11, tie_weights=tied)
    sizes = {name: p.numel() for name, p in GPT(config, Generator(0)).named_parameters()}
    looked_up = {"transformer.wpe.weight", *([] if tied else ["transformer.wte.weight"])}
    assert weight_bytes(config) == 4 * sum(size for name, size in sizes.items() if name not in looked_up)


def test_gpt2_reads_half_a_gigabyte_per_token():
    assert weight_bytes(GPTConfig()) / 74e9 == pytest.approx(6.7e-3, rel=0.01)


def test_seconds_at_the_limit():
    assert Limits(2e9, 4e9).seconds(flops=1e9, traffic=2e9) == 1.0


def test_the_best_rates_of_all_rounds_count(monkeypatch):
    found = iter([(100.0, 9.0, 1.0, 2.0), (300.0, 7.0, 11.0, 3.0), (200.0, 8.0, 1.0, 10.0)])
    asked = []

    def measure(seconds):
        asked.append(seconds)
        return dict(zip(("matmul_gflops", *limits.machine.BANDWIDTHS), next(found), strict=True))

    monkeypatch.setattr(limits.machine, "measure", measure)
    subject = limits.best()
    assert subject.answer() is None
    assert all(subject.round() > 0 for _ in range(3))
    assert Limits(**subject.about()) == Limits(300e9, 11e9)
    assert len(asked) == 3


def test_this_machine_has_limits(monkeypatch):
    monkeypatch.setattr(limits, "ROUND", 0.01)
    subject = limits.best()
    subject.round()
    assert all(0 < rate < math.inf for rate in subject.about().values())
