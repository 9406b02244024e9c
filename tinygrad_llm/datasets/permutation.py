"""The shuffled order of very many numbers, without a list of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.datasets.checks import at_least_one
from tinygrad_llm.random import Generator


class Permutation:
    """A shuffled order of 0 … n − 1; each number is computed when it is asked for, so the order takes no memory.

    A Feistel network shuffles the 4ᵏ ≥ n numbers of 2k bits. Each round turns the halves (l, r) into (r, l ^ f(r)).
    This can be undone for any f, so no two numbers become the same. A result outside 0 … n − 1 goes through the network
    again until it is inside (cycle walking): fewer than four times on average.

    Source:   Luby and Rackoff 1988; Black and Rogaway 2002 (cycle walking); the mixing is SplitMix64's (Steele, Lea
              and Flood 2014).
    """

    ROUNDS = 6

    def __init__(self, n: int, seed: int) -> None:
        self.n = at_least_one("n", n)
        self._half = np.uint64(max(1, (self.n - 1).bit_length() + 1 >> 1))  # k
        self._mask = np.uint64((1 << int(self._half)) - 1)
        rng = Generator(seed)
        self._keys = [np.uint64(rng.random_seed()) for _ in range(self.ROUNDS)]

    def __getitem__(self, places: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers at these places, (k,) integers in 0 … n − 1."""
        x = self._shuffle(places.astype(np.uint64))
        while (outside := x >= self.n).any():
            x[outside] = self._shuffle(x[outside])
        return x.astype(np.int64)

    def _shuffle(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return left << self._half | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 bits that each depend on all bits of x; sums and products wrap around."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
