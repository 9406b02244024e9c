"""The one source of randomness: PyTorch's CPU stream, number for number, from NumPy's Mersenne Twister.

Every draw is arithmetic on the same 32-bit outputs ("u32") of MT19937:

    u64 = first u32 · 2³² + second u32
    u24 = (u32 mod 2²⁴) · 2⁻²⁴        float32 uniform in [0, 1): all the bits a float32 can hold
    u53 = (u64 mod 2⁵³) · 2⁻⁵³        float64 uniform in [0, 1)

A distribution must use the same numbers as PyTorch, and the same count of them, because later draws depend on it.

Source: Matsumoto and Nishimura 1998 (MT19937); PyTorch's ATen CPUGeneratorImpl, DistributionTemplates.h and
TransformationHelper.h; Box and Muller 1958; Moshier's Cephes library (logf.c, sinf.c), whose polynomials PyTorch uses.
"""

import contextlib
import math
import operator
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Shape = int | tuple[int, ...]

MAX_SEED = (1 << 32) - 1  # a larger seed has the stream of a smaller one

_CHUNK = 1 << 16  # elements per draw: long loops of NumPy over arrays that fit the cache; a multiple of 16
_LARGE = 1 << 20  # elements from which on threads help
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_THREADS = min(_CORES, 4)  # a draw takes a fifth of the time, so more threads would wait for it
_BLOCK = 16  # normals are computed in blocks of 16 uniforms


class Generator:
    """Draws random arrays, exactly those of `torch.manual_seed(seed)` on a CPU.

    Only the low 32 bits of the seed are used, so −1 and 2³² − 1 give the same stream.

    All draws agree bit for bit with PyTorch's on an x86 processor, except float64 normals and exponentials, whose last
    bit depends on the logarithm and cosine of the system. So does that of PyTorch's own float32 normals on an ARM
    processor.
    Raises:   ValueError: an argument out of range, in any method.
    """

    def __init__(self, seed: int) -> None:
        self.manual_seed(seed)

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed})"

    def manual_seed(self, seed: int) -> None:
        """Start the stream of `seed` from its beginning, and drop a cached normal."""
        self.seed = _integer("seed", seed)
        if not -(2**63) <= self.seed < 2**64:  # PyTorch's range; of a larger one, only the lowest bits would count
            raise ValueError(f"seed must lie in −2⁶³ … 2⁶⁴ − 1, got {seed}")
        self._mt19937 = np.random.RandomState(self.seed & MAX_SEED)
        self._cached_normal: float | None = None

    # The state

    def get_state(self) -> dict[str, NDArray[Any] | int]:
        """Everything needed to continue the stream from here, as arrays and integers.

        Returns:  seed; key: (624,) uint32 and position, the twister's state; cached_normal: (0,) or (1,)
                  float64.
        """
        _, key, position, *_ = self._mt19937.get_state(legacy=True)
        cached = [] if self._cached_normal is None else [self._cached_normal]
        return {
            "seed": self.seed,
            "key": np.array(key, np.uint32),
            "position": int(position),
            "cached_normal": np.array(cached, np.float64),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `get_state` returned.

        Raises:   ValueError: an entry is missing, unknown or malformed; the message names it, and nothing changes.
        """
        names = {"seed", "key", "position", "cached_normal"}
        if set(state) != names:
            raise ValueError(f"random state: entries must be {sorted(names)}, got {sorted(map(str, state))}")
        seed = _integer("random state: seed", state["seed"])
        key, cached = np.asarray(state["key"]), np.asarray(state["cached_normal"])
        position = _integer("random state: position", state["position"])
        if key.dtype != np.uint32 or key.shape != (624,) or not key.any():
            raise ValueError(
                f"random state: key must be 624 uint32, not all zero; got {key.dtype} of shape {key.shape}"
            )
        if not 0 <= position <= 624:
            raise ValueError(f"random state: position must be 0 to 624, got {position}")
        if cached.dtype != np.float64 or cached.shape not in ((0,), (1,)) or not np.isfinite(cached).all():
            raise ValueError("random state: cached_normal must be at most one finite float64")
        self.seed = seed
        # NumPy's own cache of normals stays empty, because its pairs differ from PyTorch's.
        self._mt19937.set_state(("MT19937", key, position, 0, 0.0))
        self._cached_normal = float(cached[0]) if cached.size else None

    # copy, deepcopy and pickle: a copy continues the stream independently.

    def __getstate__(self) -> dict[str, NDArray[Any] | int]:
        return self.get_state()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.manual_seed(state["seed"])
        self.set_state(state)

    def fork(self, n: int) -> list["Generator"]:
        """n generators with streams of their own, for workers: worker i has the seed `random_seed()` + i.

        Source:   torch.utils.data.DataLoader, which seeds `torch` in its worker processes like this.
        """
        if _integer("fork: n", n) < 0:
            raise ValueError(f"fork: n must be ≥ 0, got {n}")
        base = self.random_seed()
        return [type(self)(base + i) for i in range(n)]

    # Bits

    def _u32(self, n: int) -> NDArray[Any]:
        if not _PAIRS or n < 2:
            bits: NDArray[Any] = self._mt19937.randint(0, 2**32, n, dtype=np.uint32)
            return bits
        # Two at a time is twice as fast. In memory, the lower half comes first on most machines.
        pairs = self._u64(n // 2)
        if sys.byteorder == "little":
            pairs = pairs << 32 | pairs >> 32
        bits = pairs.view(np.uint32)
        return np.concatenate([bits, self._u32(1)]) if n % 2 else bits

    def _u64(self, n: int) -> NDArray[Any]:
        if _PAIRS:
            bits: NDArray[Any] = self._mt19937.randint(0, 2**64, n, dtype=np.uint64)
            return bits
        pairs = self._u32(2 * n)
        bits = pairs[0::2].astype(np.uint64) << 32 | pairs[1::2]
        return bits

    def _u24(self, n: int) -> NDArray[Any]:
        return self._24_bits(n) * np.float32(2.0**-24)

    def _24_bits(self, n: int) -> NDArray[Any]:
        """The lower 24 bits of n u32, as float32, which holds them exactly."""
        bits = self._u32(n)
        bits &= 0xFFFFFF
        return bits.view(np.int32).astype(np.float32)  # a processor converts signed integers faster

    def _u53(self, n: int) -> NDArray[Any]:
        return self._53_bits(n) * 2.0**-53

    def _53_bits(self, n: int) -> NDArray[Any]:
        bits = self._u64(n)
        bits &= 2**53 - 1
        return bits.view(np.int64)

    # Floating point

    def rand(self, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Uniform in [0, 1): u24 for float32, u53 for float64."""
        dtype = _float_dtype(dtype)
        return _fill(shape, dtype, self._u24 if dtype == np.float32 else self._u53)

    def uniform(self, low: float, high: float, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Uniform between `low` and `high`: x · (high − low) + low, x as in `rand`.

        PyTorch's float32 code multiplies and adds with a single rounding (a fused multiply-add). Doing both
        in float64, where the product is exact, and rounding at the end gives the same bits.
        """
        dtype = _float_dtype(dtype)
        start = dtype.type(_finite("low", low))
        width = float(dtype.type(_finite("high", high)) - start)
        if width < 0 or not math.isfinite(width):
            raise ValueError(f"uniform: high − low must be ≥ 0 and finite, got low={low}, high={high}")
        if dtype == np.float64:
            return _fill(shape, dtype, lambda n: self._u53(n) * width + float(start))

        def draw(n: int) -> NDArray[Any]:
            x = self._24_bits(n).astype(np.float64)
            x *= width * 2.0**-24
            x += float(start)
            return x

        return _fill(shape, dtype, draw)

    def randn(self, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Standard normal; see `normal`."""
        return self.normal(0.0, 1.0, shape, dtype)

    def normal(self, mean: float, std: float, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Normal: mean + std · z, with z by Box and Muller's transform of two uniforms.

        Sixteen or more elements are transformed in blocks of 16, in the array's own precision; if the count
        is not a multiple of 16, the last 16 elements are computed again from 16 new uniforms. Fewer than sixteen
        are computed one by one in float64. They come in pairs, and the second is cached for the next small call.

        In float32, mean + std · z is rounded once, as in `uniform`.
        """
        mean, std = _finite("mean", mean), _finite("std", std)
        if std < 0:
            raise ValueError(f"normal: std must be ≥ 0, got {std}")
        dtype, shape = _float_dtype(dtype), _shape(shape)
        n = math.prod(shape)
        if n < _BLOCK:
            return np.array([mean + std * self._small_normal() for _ in range(n)], dtype).reshape(shape)

        unit = self._u24 if dtype == np.float32 else self._u53
        # As Python floats, so that the product is exact: PyTorch's are float32 here.
        scale, shift = float(dtype.type(std)), float(dtype.type(mean))

        def transform(d: NDArray[Any]) -> None:
            whole = d[: d.size - d.size % _BLOCK].reshape(-1, _BLOCK)
            whole[:] = _scaled(_box_muller(whole), scale, shift)

        out = _fill(n, dtype, unit, transform)
        if n % _BLOCK:
            out[-_BLOCK:] = _scaled(_box_muller(unit(_BLOCK).reshape(1, _BLOCK)), scale, shift)
        return out.reshape(shape)

    def _small_normal(self) -> float:
        if self._cached_normal is not None:
            z, self._cached_normal = self._cached_normal, None
            return z
        a, b = self._u53(2).tolist()
        r, theta = math.sqrt(-2 * math.log1p(-b)), 2 * math.pi * a
        self._cached_normal = r * math.sin(theta)
        return r * math.cos(theta)

    def exponential(self, shape: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Exponential of rate 1: −log(1 − u53), rounded to dtype."""
        return _fill(shape, _float_dtype(dtype), lambda n: -np.log1p(-self._u53(n)))

    # Choices

    def bernoulli_keep(self, p: float, shape: Shape) -> NDArray[np.bool_]:
        """Dropout's mask: True ("keep") where u53 < 1 − p, so with probability 1 − p.

        p = 0 and p = 1 draw nothing.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability must be in [0, 1], got {p}")
        if p in (0, 1):
            return np.full(_shape(shape), p == 0)
        return _fill(shape, np.dtype(bool), lambda n: self._keep(p, n))

    def _keep(self, p: float, n: int) -> NDArray[np.bool_]:
        keep: NDArray[np.bool_] = self._53_bits(n) < math.ceil((1 - p) * 2**53)  # the same comparison, in integers
        return keep

    def multinomial(self, probs: ArrayLike, num_samples: int = 1, replacement: bool = False) -> NDArray[np.int64]:
        """Indices drawn in proportion to `probs`, which need not sum to 1.

        Without replacement (or for a single sample): draw an exponential for every entry, and take the indices of
        the largest probs / exponential. Of exponentials with rates p, the i-th is the smallest with probability
        pᵢ / Σp, and dividing by p turns rate 1 into rate p. With replacement: the first index whose cumulative
        probability reaches a u53.

        Args:     probs: (n,) or (B, n) float32 or float64, ≥ 0; the exponentials have its dtype.
        Returns:  (num_samples,) or (B, num_samples) int64; rows are drawn one after the other.
        """
        p = np.asarray(probs)
        k = _integer("multinomial: num_samples", num_samples)
        if p.ndim not in (1, 2) or p.dtype not in (np.float32, np.float64):
            raise ValueError(f"multinomial: probs must be 1-D or 2-D floats, got {p.dtype} {p.shape}")
        if not (np.isfinite(p) & (p >= 0)).all():
            raise ValueError("multinomial: probs must be finite and ≥ 0")
        positive = (p > 0).sum(axis=-1).min(initial=p.shape[-1])
        if k < 1 or positive < (1 if replacement else k):
            raise ValueError(f"multinomial: cannot draw {k} samples from {positive} of probability > 0")
        if k == 1 or not replacement:
            scores: NDArray[Any] = p / self.exponential(p.shape, p.dtype)
            if k == 1:  # each generated token takes this path, which needs no sort
                best: NDArray[np.int64] = scores.argmax(axis=-1, keepdims=True)
                return best
            return np.argsort(-scores, axis=-1, kind="stable")[..., :k]
        cdf = p.cumsum(axis=-1)
        cdf /= cdf[..., -1:]
        rows = [row.astype(np.float64).searchsorted(self._u53(k)) for row in np.atleast_2d(cdf)]
        return np.array(rows, np.int64).reshape(*p.shape[:-1], k)

    def randperm(self, n: int) -> NDArray[np.int64]:
        """A random order of 0 … n−1: the shuffle of Fisher and Yates from the front, with n − 1 u32."""
        n = _integer("randperm: n", n)
        if not 0 <= n < 2**32 // 20:  # PyTorch draws 64 bits for larger n
            raise ValueError(f"randperm: n must be 0 to {2**32 // 20 - 1}, got {n}")
        order = list(range(n))
        draws = max(n - 1, 0)
        offsets = self._u32(draws) % np.arange(n, n - draws, -1, dtype=np.uint32)
        for i, offset in enumerate(offsets.tolist()):
            order[i], order[i + offset] = order[i + offset], order[i]
        return np.array(order, np.int64)

    def randint(self, low: int, high: int, shape: Shape) -> NDArray[np.int64]:
        """Integers low … high−1: low + u32 mod (high − low), u64 where that range is 2²⁸ or more."""
        low, high = _integer("randint: low", low), _integer("randint: high", high)
        if not -(2**63) <= low < high < 2**63:
            raise ValueError(f"randint: needs −2⁶³ ≤ low < high < 2⁶³, got low={low}, high={high}")
        span = high - low
        bits = self._u64 if span >= 2**28 else self._u32
        offset = np.uint64(low % 2**64)  # two's complement: the sum wraps to the correct int64
        return _fill(shape, np.dtype(np.int64), lambda n: (bits(n) % span + offset).view(np.int64))

    def random_seed(self) -> int:
        """A seed for another generator: u64 mod 2⁶³, as `torch.empty((), dtype=torch.int64).random_()`."""
        return int(self._u64(1)[0]) % 2**63


class QuickMasks(Generator):
    """The same stream, except that its dropout masks come from another generator, NumPy's SFC64, at 16 bits an element.

    PyTorch's stream takes 64 bits an element and computes each one more slowly. The masks are not PyTorch's, and keep
    an element with the probability 1 − p rounded to a multiple of 2⁻¹⁶. All other draws are those of `Generator`.

    Source:   Chris Doty-Humphrey's PractRand (SFC64).
    """

    def manual_seed(self, seed: int) -> None:
        super().manual_seed(seed)
        self._sfc64 = np.random.SFC64(self.seed & MAX_SEED)

    def get_state(self) -> dict[str, Any]:
        """As `Generator.get_state`, and the four 64-bit numbers of SFC64."""
        numbers: Any = self._sfc64.state["state"]
        return {**super().get_state(), "masks": [int(n) for n in numbers["state"]]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `get_state` returned.

        Raises:   ValueError: as `Generator.set_state`.
        """
        masks = state.get("masks")
        if not isinstance(masks, list) or len(masks) != 4 or not all(0 <= _integer("masks", n) < 2**64 for n in masks):
            raise ValueError(f"random state: masks must be four integers of 64 bits, got {masks!r:.80}")
        super().set_state({name: value for name, value in state.items() if name != "masks"})
        numbers = np.array(masks, np.uint64)
        self._sfc64.state = {
            "bit_generator": "SFC64", "state": {"state": numbers}, "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip

    def _keep(self, p: float, n: int) -> NDArray[np.bool_]:
        bits: NDArray[Any] = self._sfc64.random_raw(-(-n // 4))
        return bits.view(np.uint16)[:n] < round((1 - p) * 2**16)


def check_generator(rng: Any) -> Generator:
    """Return rng.

    Raises:   TypeError: it is something else, such as a seed or NumPy's generator; the message says what to write.
    """
    if not isinstance(rng, Generator):
        seed = rng if type(rng) is int else "seed"
        raise TypeError(f"rng must be a tinygrad_llm.Generator, got {rng!r:.60}: write rng=Generator({seed})")
    return rng


def _box_muller(d: NDArray[Any]) -> NDArray[Any]:
    """Uniforms (rows, 16) → normals: r·cos θ then r·sin θ, r = √(−2 ln(1 − d₀₋₇)), θ = 2π·d₈₋₁₅."""
    x, angles = d.reshape(-1, 2, 8).swapaxes(0, 1).copy().reshape(2, -1)  # all first halves, then all second ones
    np.subtract(1, x, out=x)
    angles *= 2 * math.pi
    if d.dtype == np.float32:
        r, (sines, cosines) = _log_float32(x), _sin_cos_float32(angles)
    else:
        r, sines, cosines = np.log(x), np.sin(angles), np.cos(angles)
    r *= -2
    np.sqrt(r, out=r)
    normals = np.stack([r * cosines, r * sines])
    return normals.reshape(2, -1, 8).swapaxes(0, 1).reshape(d.shape)


def _scaled(z: NDArray[Any], scale: float, shift: float) -> NDArray[Any]:
    """scale · z + shift, rounded once."""
    if scale != 1.0 or shift:
        z = z.astype(np.float64)
        z *= scale
    z += shift  # also 0, which turns −0 into 0
    return z


# PyTorch's own logarithm, sine and cosine for float32 normals on x86: the polynomials of Cephes, in the order in which
# its compiler fuses a product and a sum into one operation that rounds once. NumPy has no such operation, so these
# products are formed in float64, where they are exact. The other products and sums are float32's.


def _fused(x: NDArray[Any], factor: NDArray[Any] | float, term: NDArray[Any] | float) -> NDArray[Any]:
    """x · factor + term in float32, rounded once.

    Args:     factor: a number, or float64. term: a number, or an array. All are numbers that float32 holds.
    """
    wide = x.astype(np.float64)
    wide *= factor
    wide += term
    return wide.astype(np.float32)


def _polynomial(coefficients: list[float], x: NDArray[Any]) -> NDArray[Any]:
    """Horner's scheme, each step rounded once. Args: x: float64. Returns: float32."""
    first, *rest = [float(np.float32(c)) for c in coefficients]
    y = (x * first + rest[0]).astype(np.float32)
    for c in rest[1:]:
        y = _fused(y, x, c)
    return y


_LOG = [
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
]  # fmt: skip
_ROOT_OF_HALF = np.float32(math.sqrt(0.5)).view(np.int32)
_SIN = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1]
_COS = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2]


def _log_float32(x: NDArray[Any]) -> NDArray[Any]:
    """ln x for x in (0, 1]: x = 2ᵉ · (1 + m), ln x = e ln 2 + m − m²/2 + m³ P(m), √½ ≤ 1 + m < √2."""
    # The bits of a float32: sign, 8 of the exponent, 23 of the mantissa. Counted from √½, they give e and 1 + m.
    bits = x.view(np.int32) - _ROOT_OF_HALF
    e = (bits >> 23).astype(np.float32)
    bits &= (1 << 23) - 1
    bits += _ROOT_OF_HALF
    m = bits.view(np.float32) - 1
    m2 = m * m
    tail = _polynomial(_LOG, m.astype(np.float64)) * m
    # ln 2 in two parts: the products with the first, 355/512, are exact.
    tail = _fused(tail, m2.astype(np.float64), e * np.float32(-2.12194440e-4))
    m2 *= 0.5
    tail -= m2
    m += tail
    e *= np.float32(0.693359375)
    m += e
    return m


def _sin_cos_float32(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """sin x and cos x for x in [0, 2π]: x = j · π/4 + z with j even, |z| ≤ π/4, and j decides which is ±sin z."""
    j = (x * np.float32(4 / math.pi)).astype(np.int32)
    j += 1
    j &= ~1
    multiple = j.astype(np.float32)
    # π/4 in three parts: the products with the first two are exact.
    z = x - multiple * np.float32(0.78515625)
    z -= multiple * np.float32(2.4187564849853515625e-4)
    z = _fused(multiple, float(np.float32(-3.77489497744594108e-8)), z)
    z2 = z * z
    wide = z2.astype(np.float64)
    cosine = _polynomial(_COS, wide) * z2
    cosine = _fused(cosine, wide, -0.5 * wide)
    cosine += 1
    sine = _polynomial(_SIN, wide) * z2
    sine = _fused(sine, z.astype(np.float64), z)
    # On their bits: j = 2 and 6 swap the two, j = 4 and 6 change the sign of the sine, j = 2 and 4 that of the cosine.
    s, c = sine.view(np.int32), cosine.view(np.int32)
    swap = s ^ c
    swap &= -(j >> 1 & 1)
    s ^= swap
    s ^= (j & 4) << 29
    c ^= swap
    c ^= (j + 2 & 4) << 29
    return sine, cosine


def _pairs() -> bool:
    """Whether NumPy's 64 bits of MT19937 are two u32, the first one above: C leaves the order to the compiler."""
    one, other = np.random.RandomState(0), np.random.RandomState(0)
    first, second = other.randint(0, 2**32, 2, dtype=np.uint64).tolist()
    return bool(one.randint(0, 2**64, dtype=np.uint64) == first << 32 | second)


_PAIRS = _pairs()


def _fill(
    shape: Shape,
    dtype: np.dtype[Any],
    draw: Callable[[int], NDArray[Any]],
    transform: Callable[[NDArray[Any]], None] | None = None,
) -> NDArray[Any]:
    """An array filled in memory order by `draw(n)`, a chunk at a time; `transform(chunk)` then changes it in place.

    Draws come one after another. The transforms of a large array run in threads beside them, and change no result.
    """
    shape = _shape(shape)
    out = np.empty(math.prod(shape), dtype)
    with contextlib.ExitStack() as stack:
        pool, jobs = None, []
        if transform is not None and out.size >= _LARGE and _THREADS > 1:
            from concurrent.futures import ThreadPoolExecutor  # takes long to load, and few programs need it

            pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        for start in range(0, out.size, _CHUNK):
            chunk = out[start : start + _CHUNK]
            chunk[:] = draw(chunk.size)
            if pool is not None and transform is not None:
                jobs.append(pool.submit(transform, chunk))
            elif transform is not None:
                transform(chunk)
        for job in jobs:
            job.result()  # raises what the thread raised
    return out.reshape(shape)


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def _shape(shape: Shape) -> tuple[int, ...]:
    sizes = tuple(_integer("shape", size) for size in (shape if isinstance(shape, tuple) else (shape,)))
    if min(sizes, default=0) < 0:
        raise ValueError(f"shape must not be negative, got {shape}")
    return sizes


def _float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {result}")
    return result
