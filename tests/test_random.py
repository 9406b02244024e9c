"""The stream against numbers that PyTorch prints, and against a slow version written from its definition."""

import copy
import hashlib
import json
import math
import pickle
import random as python_random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tinygrad_llm import GPT, GPTConfig
from tinygrad_llm import random as random_module
from tinygrad_llm.datasets import DataLoader
from tinygrad_llm.random import Generator, QuickMasks

SEEDS = [0, 123, 137, 2**31]


class SlowStream:
    """One number at a time: MT19937 seeded as in its authors' C code, and each rule as scalar arithmetic."""

    def __init__(self, seed: int) -> None:
        key = [seed % 2**32]
        for i in range(1, 624):
            key.append((1812433253 * (key[-1] ^ key[-1] >> 30) + i) % 2**32)
        self.twister = python_random.Random()
        self.twister.setstate((3, (*key, 624), None))
        self.cached: float | None = None

    def u32(self) -> int:
        return self.twister.getrandbits(32)

    def u64(self) -> int:
        return self.u32() * 2**32 + self.u32()

    def u24(self) -> float:
        return self.u32() % 2**24 / 2**24

    def u53(self) -> float:
        return self.u64() % 2**53 / 2**53

    def normal(self) -> float:
        if self.cached is not None:
            z, self.cached = self.cached, None
            return z
        angle, radius = 2 * math.pi * self.u53(), math.sqrt(-2 * math.log1p(-self.u53()))
        self.cached = radius * math.sin(angle)
        return radius * math.cos(angle)

    def normals(self, n: int, uniform: str) -> list[float]:
        draw = getattr(self, uniform)
        if n < 16:
            return [self.normal() for _ in range(n)]
        out = [draw() for _ in range(n)]
        for start in range(0, n - 15, 16):
            out[start : start + 16] = self.block(out[start : start + 16])
        if n % 16:
            out[-16:] = self.block([draw() for _ in range(16)])
        return out

    @staticmethod
    def block(d: list[float]) -> list[float]:
        radii = [math.sqrt(-2 * math.log(1 - x)) for x in d[:8]]
        angles = [2 * math.pi * x for x in d[8:]]
        pairs = list(zip(radii, angles, strict=True))
        return [r * math.cos(a) for r, a in pairs] + [r * math.sin(a) for r, a in pairs]


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.replace("−", "-").split()]


def three_then_one(g):
    """Three normals leave one in the cache, and it survives a large fill."""
    first = g.randn(3)
    g.randn(16)
    return np.concatenate([first, g.randn(1)])


TENTHS = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
PRINTED = 0.5e-6 + 2.4e-7  # six digits, and the ulp by which float32 logarithms and cosines differ between libraries

# What PyTorch prints: a call, its dtype, how near its numbers must be, and the numbers for each of SEEDS.
PUBLISHED = {
    # The remainders of three u32. Those of seed 0 are 2357136044 2546248239 3071714933.
    "integers below 2²⁸ − 1": (lambda g: g.randint(0, 2**28 - 1, 3), np.int64, 0, """
        209652404 130329144 118924928 | 38522377 109329784 155217282 |
        27273965 26396974 111858254 | 115976476 97784841 34543390
    """),
    "rand": (lambda g: g.rand(4), np.float32, 0.51e-7, """
        .4962566 .7682218 .0884774 .1320305 | .2961119 .5165623 .2516707 .6885568 |
        .6256541 .5733818 .6672714 .7461635 | .9127365 .8284304 .0589457 .3256246
    """),
    "rand float64": (lambda g: g.rand(2, np.float64), np.float64, 0.51e-12, """
        .970053001807 .707819864400 | .368895870664 .013365949855 |
        .005233052323 .338171619449 | .301892440447 .471565895389
    """),
    "uniform": (lambda g: g.uniform(-0.5, 0.5, 3), np.float32, 0.51e-7, """
        −.0037434 .2682218 −.4115226 | −.2038881 .0165623 −.2483293 |
        .1256541 .0733818 .1672714 | .4127365 .3284304 −.4410543
    """),
    "three normals leave one cached": (three_then_one, np.float32, PRINTED, """
        1.540996 −.293429 −2.178789 .568431 | −.111467 .120363 −.369635 −.240418 |
        .908078 .029869 .961959 .900427 | −.361769 1.069952 .091462 .487646
    """),
    "one block of normals": (lambda g: g.randn(16)[[0, 1, 2, 8, 9]], np.float32, PRINTED, """
        −1.125840 −1.152360 −.250579 .322275 −1.263335 | .337370 −.177777 −.303528 .767107 −1.192502 |
        1.122025 −.663128 −.528973 −.840364 −1.124274 | −1.846597 1.118582 −.110446 −1.211497 1.508080
    """),
    "the last sixteen normals are drawn again": (lambda g: g.randn(20)[[4, 5, -2, -1]], np.float32, PRINTED, """
        .598839 −1.555095 2.004981 .053737 | 1.580970 1.301040 −.407627 .795326 |
        1.077274 .776724 −1.118670 −.183053 | .352878 .470213 −.249394 .734645
    """),
    "exponential": (lambda g: g.exponential(3), np.float32, PRINTED, """
        3.508326 1.230385 .615044 | .460284 .013456 .895949 |
        .005247 .412749 .127542 | .359382 .637837 .249092
    """),
    "multinomial, one by one": (lambda g: np.array([g.multinomial(TENTHS)[0] for _ in range(10)]), np.int64, 0, """
        2 2 3 3 1 2 0 1 1 3 | 1 3 3 2 3 3 3 3 1 0 | 0 3 3 3 2 1 3 3 3 3 | 3 2 1 2 2 0 0 1 3 2
    """),
    "multinomial without replacement": (lambda g: g.multinomial(TENTHS, 3), np.int64, 0, """
        2 1 3 | 1 3 2 | 0 2 1 | 3 2 1
    """),
    "multinomial with replacement": (lambda g: g.multinomial(TENTHS, 8, replacement=True), np.int64, 0, """
        3 3 2 3 3 3 1 2 | 2 0 2 0 2 2 3 2 | 0 2 1 2 1 2 2 1 | 2 2 1 1 3 2 2 3
    """),
    "randperm": (lambda g: g.randperm(8), np.int64, 0, """
        4 0 7 3 2 5 1 6 | 6 2 1 3 4 7 0 5 | 6 4 7 3 1 2 0 5 | 2 6 3 5 0 4 1 7
    """),
    "randint": (lambda g: g.randint(0, 50257, 4), np.int64, 0, """
        32487 27591 7093 953 | 15742 11036 24681 8041 | 25913 14079 49247 28489 | 8956 48809 32694 46207
    """),
    "randint of a wide range takes 64 bits": (lambda g: g.randint(0, 2**31, 2), np.int64, 0, """
        398764591 1478610112 | 914636141 1840268610 | 26396966 1237255315 | 1439962116 1548966947
    """),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    call, dtype, atol, printed = PUBLISHED[name]
    for seed, column in zip(SEEDS, printed.split("|"), strict=True):
        x = call(Generator(seed))
        assert x.dtype == dtype
        np.testing.assert_allclose(x, numbers(column), rtol=0, atol=atol, err_msg=f"seed {seed}")


# What PyTorch drew, as stored in a file. `scripts/make_torch_random.py` wrote it, and describes its contents.

with np.load(Path(__file__).with_name("torch_random.npz"), allow_pickle=False) as file:
    STORED = dict(file)
STORED_SEEDS = [0, 123, 137, 2**31, 2**32 + 5, -1]
SIZES = [0, 1, 15, 16, 17, 31, 33, 1, 2]
SYSTEM = {"randn float64", "normal float64", "exponential", "exponential float64"}  # by the system's ln and cos
f4, f8 = np.float32, np.float64
DRAWS = {
    "rand": lambda g, n: g.rand(n),
    "rand float64": lambda g, n: g.rand(n, f8),
    "uniform": lambda g, n: g.uniform(-0.3, 0.7, n),
    "uniform float64": lambda g, n: g.uniform(-0.3, 0.7, n, f8),
    "randn": lambda g, n: g.randn(n),
    "randn float64": lambda g, n: g.randn(n, f8),
    "normal": lambda g, n: g.normal(0.3, 0.02, n),
    "normal float64": lambda g, n: g.normal(0.3, 0.02, n, f8),
    "exponential": lambda g, n: g.exponential(n),
    "exponential float64": lambda g, n: g.exponential(n, f8),
    "keep 0.1": lambda g, n: g.bernoulli_keep(0.1, n),
    "keep 0.5": lambda g, n: g.bernoulli_keep(0.5, n),
    "randint": lambda g, n: g.randint(-7, 50250, n),
    "randint wide": lambda g, n: g.randint(-(2**40), 2**62, n),
    "randperm": lambda g, n: g.randperm(n),
    "multinomial": lambda g, n: g.multinomial(np.arange(1, n + 2, dtype=f4), min(n + 1, 5)),
    "multinomial replaced": lambda g, n: g.multinomial(np.arange(1, 8, dtype=f8), n + 1, replacement=True),
}


def digest(arrays):
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return list(total.digest())


@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_every_size_are_those_of_pytorch(name, for_each):
    def check(seed):
        g, stored = Generator(seed), STORED[f"{seed}/{name}"]
        found = np.concatenate([DRAWS[name](g, n) for n in SIZES])
        assert found.dtype == stored.dtype
        # Less than 16 normals are computed by the system, too, in float64.
        rounding = 2 * np.finfo(stored.dtype).eps if name in SYSTEM | {"randn", "normal"} else 0
        np.testing.assert_allclose(found, stored, rtol=rounding, atol=rounding)

    for_each(STORED_SEEDS, check)


@pytest.mark.parametrize("name", DRAWS)
def test_a_million_draws_are_those_of_pytorch(name, for_each):
    def check(seed):
        g = Generator(seed)
        for n in SIZES:
            DRAWS[name](g, n)
        found, stored = DRAWS[name](g, 2**20), STORED[f"{seed}/{name}/large"]
        if name in SYSTEM:
            rounding = 2 * np.finfo(stored.dtype).eps
            np.testing.assert_allclose(found[::65537], stored, rtol=rounding, atol=rounding)
        else:
            assert found[::65537].tolist() == stored.tolist()
            assert digest([found]) == STORED[f"{seed}/{name}/sha256"].tolist()

    for_each(STORED_SEEDS[1:2] if name in ("randperm", "multinomial") else STORED_SEEDS, check)  # these take longer


def test_workers_draw_what_the_workers_of_a_data_loader_draw():
    for seed in STORED_SEEDS:
        workers = Generator(seed).fork(2)
        assert [g.rand(()).item() for g in workers] == STORED[f"{seed}/workers"].tolist()
    assert Generator(3).fork(0) == []


def test_a_shuffled_data_loader_gives_the_order_of_pytorch_and_costs_the_same_draws():
    for seed in STORED_SEEDS:
        g = Generator(seed)
        loader = DataLoader(range(9), batch_size=2, shuffle=True, rng=g)
        order = [i for _ in range(2) for batch in loader for i in batch.tolist()]
        assert [*order, g.rand(()).item()] == STORED[f"{seed}/loader"].tolist()


def weights(config, seed):
    """The first weights of a GPT in the order in which they are drawn: those of queries, keys and values one by one."""
    state = GPT(config, Generator(seed)).state_dict()
    C = config.n_embd
    for name, array in state.items():
        if not name.split(".")[-2].startswith("ln_"):  # these draw nothing
            if name.endswith("c_attn.weight") and config.qkv_bias:
                bias = state[name.replace("weight", "bias")]
                yield from (part[i : i + C] for i in (0, C, 2 * C) for part in (array, bias))
            elif not name.endswith("c_attn.bias"):
                yield array


@pytest.mark.parametrize("bias", [False, True])
def test_a_model_has_the_first_weights_of_one_made_of_pytorch_layers(bias):
    sizes = {"vocab_size": 5, "block_size": 3, "n_embd": 4, "n_layer": 1, "n_head": 2}
    config = GPTConfig(**sizes, qkv_bias=bias, tie_weights=False, initializer_range=None)
    for seed in STORED_SEEDS:
        found = np.concatenate([array.reshape(-1) for array in weights(config, seed)])
        stored = STORED[f"{seed}/model" + "/biased" * bias]
        np.testing.assert_allclose(found, stored, rtol=0, atol=2e-7)  # the system computes the 12 normals of wpe
        assert (found == stored)[20:].sum() >= (found.size - 20) - 12


@pytest.mark.slow
def test_the_books_gpt_of_163_million_parameters_has_the_first_weights_of_pytorch():
    config = GPTConfig(qkv_bias=False, tie_weights=False, initializer_range=None)
    assert digest(weights(config, 123)) == STORED["gpt2/sha256"].tolist()


def test_the_other_order_of_64_bits_gives_the_same_numbers(monkeypatch):
    calls = [DRAWS[name] for name in ("rand", "uniform", "randn float64", "keep 0.1", "randint wide")]
    expected = [call(Generator(5), n).tolist() for call in calls for n in (1, 40)]
    assert random_module._pairs()
    monkeypatch.setattr(random_module, "_PAIRS", False)
    assert [call(Generator(5), n).tolist() for call in calls for n in (1, 40)] == expected


# Bits


def test_only_the_low_32_bits_of_a_seed_are_used():
    for one, other in ((-1, 2**32 - 1), (2**32 + 123, 123), (-(2**32), 0)):
        assert Generator(one).randint(0, 2**62, 9).tolist() == Generator(other).randint(0, 2**62, 9).tolist()


@given(st.integers(-(2**63), 2**64 - 1), st.integers(0, 1300))
def test_stream_is_the_mersenne_twister(seed, n):
    slow = SlowStream(seed)
    assert Generator(seed).randint(0, 2**20, n).tolist() == [slow.u32() % 2**20 for _ in range(n)]


def test_random_seed_is_the_base_seed_of_a_data_loader():
    expected = [900450186894289455, 3624216819017203053, 8187591257704548646, 2803958173589050372]
    assert [Generator(seed).random_seed() for seed in SEEDS] == expected


# Uniforms


@pytest.mark.parametrize(("seed", "n"), [(1, 0), (2, 623), (3, 70_001)])
def test_rand_is_exact(seed, n):
    slow = SlowStream(seed)
    rng = Generator(seed)
    assert rng.rand(n).tolist() == [slow.u24() for _ in range(n)]
    assert rng.rand(9, np.float64).tolist() == [slow.u53() for _ in range(9)]


@given(st.integers(0, 99), st.floats(-10, 10, width=32), st.floats(0.125, 10, width=32))
def test_uniform_rounds_once(seed, low, width):
    high = np.float32(low + width)
    rng = Generator(seed)
    exact = Generator(seed).rand(100).astype(np.float64) * float(high - np.float32(low)) + low
    assert rng.uniform(low, high, 100).tolist() == exact.astype(np.float32).tolist()


# Normals


@given(st.integers(0, 2**32), st.lists(st.integers(0, 70), max_size=5), st.sampled_from(["f4", "f8"]))
def test_normals_by_definition(seed, sizes, dtype):
    rng, slow = Generator(seed), SlowStream(seed)
    for n in sizes:
        expected = slow.normals(n, "u24" if dtype == "f4" else "u53")
        # float32 logarithms and cosines differ by an ulp between libraries, and the angle itself is rounded
        atol = 2e-6 if dtype == "f4" else 2e-15
        np.testing.assert_allclose(rng.randn(n, dtype), expected, rtol=0, atol=atol)
    assert rng.random_seed() == slow.u64() % 2**63


def test_normals_of_several_chunks_by_definition():
    n = 70_001
    x = Generator(5).randn(n, np.float64)
    np.testing.assert_allclose(x, SlowStream(5).normals(n, "u53"), rtol=0, atol=2e-15)


def test_normals_of_several_threads_are_those_of_one(monkeypatch):
    n = (1 << 18) + 5
    expected = Generator(5).normal(1.0, 0.02, n)
    monkeypatch.setattr(random_module, "_LARGE", n)
    monkeypatch.setattr(random_module, "_THREADS", 3)
    rng = Generator(5)
    np.testing.assert_array_equal(rng.normal(1.0, 0.02, n), expected)
    monkeypatch.setattr(random_module, "_box_muller", lambda d: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rng.normal(1.0, 0.02, n)


@pytest.mark.parametrize("n", [3, 50])
def test_normal_scales_and_shifts(n):
    np.testing.assert_allclose(
        Generator(1).normal(3.0, 0.5, n, np.float64), 3 + 0.5 * Generator(1).randn(n, np.float64), rtol=1e-15
    )


def test_the_cache_survives_every_other_call_and_seeding_empties_it():
    rng, slow = Generator(7), SlowStream(7)
    rng.randn(1)
    slow.normal()
    rng.rand(3), rng.randn(40), rng.randperm(5), rng.exponential(2), rng.bernoulli_keep(0.5, 3)
    assert rng.randn((), np.float64) == slow.cached
    rng.randn(1)
    rng.manual_seed(7)
    assert rng.randn(2, np.float64).tolist() == Generator(7).randn(2, np.float64).tolist()


# Dropout


def test_dropout_mask():
    half = "00100011011110111100 11011000010111110101 11101011000011010110 11110000110000111011"
    tenth = f"01101111111111111111 11111111011111111111 11111111111111011111 {'1' * 20}"
    for p, masks in ((0.5, half), (0.1, tenth)):
        for seed, mask in zip(SEEDS, masks.split(), strict=True):
            assert Generator(seed).bernoulli_keep(p, 20).tolist() == [digit == "1" for digit in mask]


@given(st.integers(0, 2**32), st.floats(0.001, 0.999), array_shapes(min_side=0, max_dims=4))
def test_dropout_mask_by_definition(seed, p, shape):
    mask, slow = Generator(seed).bernoulli_keep(p, shape), SlowStream(seed)
    assert mask.dtype == bool
    assert mask.shape == shape
    assert mask.ravel().tolist() == [slow.u53() < 1 - p for _ in range(math.prod(shape))]


def test_certain_dropout_draws_nothing():
    rng = Generator(3)
    for p, kept in ((0, True), (0.0, True), (1, False)):
        assert rng.bernoulli_keep(p, (2, 3)).tolist() == [[kept] * 3] * 2
    assert rng.random_seed() == Generator(3).random_seed()


# Exponential and multinomial


@given(st.integers(0, 2**32), st.integers(0, 50))
def test_exponential_by_definition(seed, n):
    slow = SlowStream(seed)
    expected = [-math.log1p(-slow.u53()) for _ in range(n)]
    np.testing.assert_allclose(Generator(seed).exponential(n, np.float64), expected, rtol=1e-15)


@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_rows_of_a_multinomial_are_drawn_one_after_the_other(seed, rows, k, replacement):
    probs = Generator(seed).uniform(0.1, 1, (rows, 6), np.float64)
    batch, single = Generator(seed), Generator(seed)
    together = batch.multinomial(probs, k, replacement)
    assert together.dtype == np.int64
    assert together.tolist() == [single.multinomial(row, k, replacement).tolist() for row in probs]
    assert batch.random_seed() == single.random_seed()


def test_a_single_sample_is_the_same_with_replacement_as_without():
    one, other = Generator(6), Generator(6)
    draws = [one.multinomial(TENTHS, 1, replacement=True).item() for _ in range(20)]
    assert draws == [other.multinomial(TENTHS, 1).item() for _ in range(20)]
    assert one.random_seed() == other.random_seed()


def test_entries_of_probability_0_draw_but_are_never_taken():
    rng, slow = Generator(4), SlowStream(4)
    probs = np.zeros(50257, np.float32)
    probs[[7, 40_000]] = 0.5
    assert sorted(rng.multinomial(probs, 2).tolist()) == [7, 40_000]
    for _ in range(100_514):
        slow.u32()
    assert rng.random_seed() == slow.u64() % 2**63


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_has_the_right_frequencies(replacement):
    rng = Generator(0)
    draws = rng.multinomial(np.tile(TENTHS, (20_000, 1)), 2, replacement)[:, 0]
    # a count's standard deviation is at most √(20000 · .24) ≈ 69
    np.testing.assert_allclose(np.bincount(draws), [2000, 4000, 6000, 8000], atol=5 * 69)


# Each distribution as a whole. Kolmogorov and Smirnov: √n · the largest distance of the two cumulative curves exceeds
# 2.2 once in 8,000 samples. Pearson's χ² of k classes has the mean k − 1 and the variance 2(k − 1).

DISTRIBUTIONS = {
    "rand": lambda x: x,
    "rand float64": lambda x: x,
    "uniform": lambda x: x + 0.3,
    "uniform float64": lambda x: x + 0.3,
    "randn": lambda x: normal_cdf(x),
    "randn float64": lambda x: normal_cdf(x),
    "normal": lambda x: normal_cdf((x - 0.3) / 0.02),
    "normal float64": lambda x: normal_cdf((x - 0.3) / 0.02),
    "exponential": lambda x: -np.expm1(-x),
    "exponential float64": lambda x: -np.expm1(-x),
}


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_numbers_have_their_distribution(name):
    n = 50_000
    x = np.sort(DRAWS[name](Generator(17), n).astype(f8))
    curve, steps = DISTRIBUTIONS[name](x), np.arange(n + 1) / n
    distance = max(np.max(steps[1:] - curve), np.max(curve - steps[:-1]))
    assert math.sqrt(n) * distance < 2.2


def test_small_normals_have_their_distribution():
    g = Generator(18)
    x = np.sort(np.concatenate([g.randn(15, f8) for _ in range(1000)]))
    assert np.max(np.abs(normal_cdf(x) - np.arange(len(x)) / len(x))) * math.sqrt(len(x)) < 2.2


def chi_square(counts, probabilities):
    """χ² in standard deviations from its mean."""
    expected = np.asarray(probabilities) * np.sum(counts)
    k = len(expected)
    return abs(np.sum((counts - expected) ** 2 / expected) - (k - 1)) / math.sqrt(2 * (k - 1))


def test_integers_have_their_distribution():
    g = Generator(19)
    assert chi_square(np.bincount(g.randint(0, 7, 70_000)), np.full(7, 1 / 7)) < 4
    wide = g.randint(-(2**62), 2**62, 70_000)
    assert chi_square(np.bincount(wide // 2**60 + 4), np.full(8, 1 / 8)) < 4
    places = np.array([g.randperm(5) for _ in range(8000)])  # each number at each place
    for column in places.T:
        assert chi_square(np.bincount(column), np.full(5, 1 / 5)) < 4
    assert chi_square(np.bincount(places[:, 0] * 5 + places[:, 1])[[1, 7, 13, 19, 20]], np.full(5, 1 / 5)) < 4


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_masks_have_their_distribution(p):
    keep = Generator(20).bernoulli_keep(p, 100_000)
    assert chi_square(np.bincount(keep), [p, 1 - p]) < 4
    pairs = keep[:-1] * 2 + keep[1:]  # neighbors are independent
    assert chi_square(np.bincount(pairs[::2]), [p * p, p * (1 - p), (1 - p) * p, (1 - p) ** 2]) < 4


def test_second_samples_without_replacement_have_their_distribution():
    draws = Generator(21).multinomial(np.tile(TENTHS, (40_000, 1)), 2)
    p = TENTHS.astype(f8)
    second = [sum(p[i] * p[j] / (1 - p[i]) for i in range(4) if i != j) for j in range(4)]
    assert chi_square(np.bincount(draws[:, 1]), second) < 4


# Permutations and integers


@given(st.integers(0, 2**32), st.integers(0, 300))
def test_randperm_is_a_permutation_of_n_minus_1_draws(seed, n):
    rng, slow = Generator(seed), SlowStream(seed)
    assert sorted(rng.randperm(n).tolist()) == list(range(n))
    for _ in range(n - 1):
        slow.u32()
    assert rng.random_seed() == slow.u64() % 2**63


@given(st.integers(0, 99), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_randint_by_definition(seed, a, b):
    low, high = min(a, b), max(a, b) + (a == b < 2**63 - 1)
    if low == high:
        low -= 1
    slow = SlowStream(seed)
    draw = slow.u64 if high - low >= 2**28 else slow.u32
    assert Generator(seed).randint(low, high, 3).tolist() == [low + draw() % (high - low) for _ in range(3)]


def test_randint_changes_to_64_bits_at_2_to_the_28():
    for span in (2**28 - 1, 2**28):
        slow = SlowStream(11)
        draw = slow.u32 if span < 2**28 else slow.u64
        assert Generator(11).randint(-3, span - 3, 5).tolist() == [draw() % span - 3 for _ in range(5)]


# State, shapes and errors

CALLS = [
    lambda g: g.rand(5),
    lambda g: g.randn(1),
    lambda g: g.randn((3, 7)),
    lambda g: g.exponential(2),
    lambda g: g.randperm(9),
    lambda g: g.bernoulli_keep(0.5, 4),
]


@given(st.integers(0, 99), st.lists(st.sampled_from(CALLS), max_size=6), st.lists(st.sampled_from(CALLS)))
def test_state_continues_the_stream(seed, before, after):
    rng, other = Generator(seed), Generator(seed + 1)
    for call in before:
        call(rng)
    state = rng.get_state()
    expected = [call(rng).tolist() for call in after]
    other.set_state(state)
    assert other.seed == seed
    assert [call(other).tolist() for call in after] == expected


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda rng: pickle.loads(pickle.dumps(rng))])
def test_a_copy_continues_the_stream_by_itself(make):
    rng, expected = Generator(3), Generator(3)
    rng.randn(1)
    expected.randn(1)
    other = make(rng)
    rng.randn(20)
    np.testing.assert_array_equal(other.randn(20), expected.randn(20))
    assert other.seed == 3


def test_state_is_plain_and_a_copy():
    rng = Generator(1)
    rng.randn(1)
    state = rng.get_state()
    assert all(isinstance(value, int | np.ndarray) for value in state.values())
    state["key"][:] = 0
    assert rng.rand(700).any()


BAD_STATES = [
    {"key": np.zeros(624, np.uint32)},
    {"key": np.ones(623, np.uint32)},
    {"key": np.ones(624)},
    {"position": 625},
    {"position": -1},
    {"position": 1.5},
    {"seed": "x"},
    {"cached_normal": np.array([np.nan])},
    {"cached_normal": np.zeros(2)},
    {"cached_normal": np.zeros(1, np.int64)},
    {"more": 1},
]


def test_a_bad_state_is_refused_and_changes_nothing(for_each):
    def check(change):
        rng = Generator(9)
        (name,) = change
        with pytest.raises(ValueError, match=f"random state.*{name}"):
            rng.set_state(Generator(8).get_state() | change)
        assert rng.rand(5).tolist() == Generator(9).rand(5).tolist()

    for_each(BAD_STATES, check)
    with pytest.raises(ValueError, match="random state: entries"):
        Generator(9).set_state({})


@given(st.integers(0, 99), st.lists(st.integers(0, 40_000), max_size=4))
def test_uniforms_do_not_depend_on_how_they_are_grouped(seed, sizes):
    rng = Generator(seed)
    parts = [rng.rand(n) for n in sizes]
    np.testing.assert_array_equal(np.concatenate([*parts, []]), Generator(seed).rand(sum(sizes)))


SHAPED = [
    lambda g, shape: g.rand(shape),
    lambda g, shape: g.uniform(0, 1, shape),
    lambda g, shape: g.randn(shape),
    lambda g, shape: g.exponential(shape),
    lambda g, shape: g.randint(0, 9, shape),
    lambda g, shape: g.bernoulli_keep(0.5, shape),
]


def test_shapes():
    rng = Generator(0)
    for shape in ((), 3, (0,), (2, 0, 3), (2, 3, 4), np.int64(3)):
        assert {draw(rng, shape).shape for draw in SHAPED} == {np.empty(shape).shape}


WRONG = [
    lambda g: g.rand(-1),
    lambda g: g.rand((2, -3)),
    lambda g: g.rand(1.5),
    lambda g: g.rand(2, np.float16),
    lambda g: g.rand(2, np.int64),
    lambda g: g.uniform(1, 0, 2),
    lambda g: g.uniform(0, math.inf, 2),
    lambda g: g.normal(0, -1, 2),
    lambda g: g.normal(math.nan, 1, 2),
    lambda g: g.bernoulli_keep(-0.1, 2),
    lambda g: g.bernoulli_keep(1.1, 2),
    lambda g: g.bernoulli_keep(math.nan, 2),
    lambda g: g.multinomial([0.5, 0.5], 0),
    lambda g: g.multinomial([0.5, 0.5], 1.5),
    lambda g: g.multinomial([0.5, 0.5], 3),
    lambda g: g.multinomial([0.5, 0.0, 0.5], 3),
    lambda g: g.multinomial([0.0, 0.0]),
    lambda g: g.multinomial([[0.5, 0.5], [0.0, 0.0]], 1, True),
    lambda g: g.multinomial([0.5, -0.5]),
    lambda g: g.multinomial([0.5, math.nan]),
    lambda g: g.multinomial([1, 2]),
    lambda g: g.multinomial(0.5),
    lambda g: g.multinomial(np.zeros(0)),
    lambda g: g.randperm(-1),
    lambda g: g.randperm(2**31),
    lambda g: g.randint(3, 3, 2),
    lambda g: g.randint(0, 2**64, 2),
    lambda g: g.randint(0.5, 2, 2),
    lambda g: g.fork(-1),
    lambda g: g.fork(1.5),
    lambda g: g.manual_seed(1.5),
]


def test_bad_arguments_raise_one_line_and_draw_nothing(for_each):
    def check(i):
        rng = Generator(2)
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            WRONG[i](rng)
        assert rng.random_seed() == Generator(2).random_seed()

    for_each(range(len(WRONG)), check)


def test_a_seed_beyond_64_bits_is_refused():
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match="seed must lie in"):
            Generator(seed)
    assert Generator(-1).rand(3).tolist() == Generator(2**64 - 1).rand(3).tolist()


# Quick masks


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_quick_masks_have_their_distribution_and_all_other_draws_are_the_streams(p):
    rng, plain = QuickMasks(20), Generator(20)
    keep = rng.bernoulli_keep(p, (10, 10_000)).ravel()
    assert chi_square(np.bincount(keep), [p, 1 - p]) < 4
    pairs = keep[:-1] * 2 + keep[1:]
    assert chi_square(np.bincount(pairs[::2]), [p * p, p * (1 - p), (1 - p) * p, (1 - p) ** 2]) < 4
    assert rng.randn(5).tolist() == plain.randn(5).tolist()
    assert rng.bernoulli_keep(0, 3).all()


@given(st.integers(-3, 2**33), st.integers(0, 99), st.integers(0, 99))
def test_quick_masks_continue_from_a_state(seed, before, after):
    rng = QuickMasks(seed)
    rng.bernoulli_keep(0.5, before)
    state = json.loads(json.dumps({k: v for k, v in rng.get_state().items() if not isinstance(v, np.ndarray)}))
    state |= {k: v for k, v in rng.get_state().items() if isinstance(v, np.ndarray)}
    other = pickle.loads(pickle.dumps(rng))
    expected = rng.bernoulli_keep(0.5, after).tolist()
    assert other.bernoulli_keep(0.5, after).tolist() == expected
    again = QuickMasks(seed + 1)
    again.set_state(state)
    assert again.bernoulli_keep(0.5, after).tolist() == expected
    for wrong in (None, [1, 2, 3], [0, 0, 0, 2**64], "abcd"):
        with pytest.raises(ValueError, match=r"random state: masks must be|masks must be an integer"):
            again.set_state({**state, "masks": wrong})
