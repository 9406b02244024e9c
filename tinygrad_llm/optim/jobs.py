"""How the work of an update is cut: stretches that fit the processor's cache, and jobs that are worth a thread."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tinygrad_llm.kernels import Array

# An update passes over its arrays a dozen times. Stretches that stay in the cache from one pass to the next make it
# as fast as one pass over memory. With shorter stretches, threads would spend their time waiting for one another.
STRETCH = 1 << 18
JOB = 1 << 20  # numbers: enough work for the cost of handing it to a thread
MOST_JOBS = 32  # few, since each is handed over, and enough to keep several threads equally busy
SMALL = 1 << 13  # numbers: parameters of at most so many are updated together

_T = TypeVar("_T")


def stretches(*arrays: Array, length: int = STRETCH) -> Iterator[tuple[Array, ...]]:
    """Yield the same stretch of each array, one after another.

    Args:     arrays: of one shape.
    Returns:  tuples of flat views of at most `length` elements, where all arrays lie in memory in the same order;
              otherwise one tuple, the arrays themselves.
    """
    if not (all(a.flags.c_contiguous for a in arrays) or all(a.flags.f_contiguous for a in arrays)):
        yield arrays
        return
    flat = [a.reshape(-1, order="A") for a in arrays]
    for start in range(0, flat[0].size, length):
        yield tuple(a[start : start + length] for a in flat)


def jobs(entries: Iterable[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Yield the entries in order, in at most MOST_JOBS lists of JOB numbers or more: a thread takes one at a time.

    Args:     size: returns how many numbers an entry holds.
    """
    entries = list(entries)
    least = max(JOB, sum(map(size, entries)) / MOST_JOBS)
    some: list[_T] = []
    total = 0
    for entry in entries:
        some.append(entry)
        total += size(entry)
        if total >= least:
            yield some
            some, total = [], 0
    if some:
        yield some
