"""CRC32C (Castagnoli): the checksum of TensorFlow's files, at the speed of NumPy's xor.

A message is read as a polynomial over GF(2): each bit is a coefficient 0 or 1, and adding is xor. Its first bit
belongs to the highest power, and the lowest bit of a byte comes first. Its CRC is the remainder of dividing
message · x³² by

    P = x³² + x²⁸ + x²⁷ + x²⁶ + x²⁵ + x²³ + x²² + x²⁰ + x¹⁹ + x¹⁸ + x¹⁴ + x¹³ + x¹¹ + x¹⁰ + x⁹ + x⁸ + x⁶ + 1

which is 0x82F63B78 with its x³¹ in the lowest bit and without its x³². In addition, the first 32 bits of the message
and the 32 bits of the result are inverted.

The table. Byte by byte, the register holds the remainder so far. `_TABLE[b]` is the register after eight steps of
division that start from b. This is the whole algorithm, but it reaches only 10 MB/s in Python.

Folding. A multiple of P leaves no remainder, and one of them has only four terms:

    x⁶⁷⁷⁷ + x⁴⁸⁴ + x¹⁰⁰ + 1 ≡ 0   so   x⁶⁷⁷⁷ ≡ x⁴⁸⁴ + x¹⁰⁰ + 1   (mod P)

So a bit may be removed from the message if it is added 6777 − 484, 6777 − 100 and 6777 bits further on. Squaring over
GF(2) squares each term, f(x)² = f(x²). Six squarings turn bits into 64-bit words, so the rule for bits also holds for
words. No word moves to a place less than 6293 words away, so three xors of whole arrays move that many at once. The
message shrinks to 6777 words. The same with bytes (three squarings) shrinks those to 6777 bytes, which the table takes
in a millisecond. A shorter multiple makes that faster. It has six terms,

    x²⁶⁶ + x¹⁴³ + x¹²¹ + x⁸⁸ + x⁷¹ + 1 ≡ 0   (mod P)

and shrinks those bytes, or a short message, to 266 words of eight bytes, then of four, of two and of one.

Source: Castagnoli et al. 1993, doi:10.1109/26.231911; RFC 3720 appendix B.4; the multiples were found by search.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_DEGREE, _TERMS = 6777, (484, 100, 0)  # x^degree ≡ the sum of x^term
_SHIFTS = [_DEGREE - term for term in _TERMS]
_SHORT_DEGREE, _SHORT_TERMS = 266, (143, 121, 88, 71, 0)
_SHORT_SHIFTS = [_SHORT_DEGREE - term for term in _SHORT_TERMS]
_PIECE = 65536  # words at once: few enough for the cache, many enough that the calls cost little


def _remainder(octet: int) -> int:
    register = octet
    for _ in range(8):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register


_TABLE = [_remainder(octet) for octet in range(256)]


def crc32c(data: bytes | bytearray | memoryview | NDArray[Any], value: int = 0) -> int:
    """Return the CRC32C of some bytes, or of the bytes of an array in memory.

    Args:     value: the CRC of the bytes before: crc32c(b, crc32c(a)) == crc32c(a + b).
    Raises:   ValueError: an array that is not C-contiguous.
    """
    octets = np.frombuffer(data, np.uint8)
    register = value ^ 0xFFFFFFFF
    if len(octets) > _DEGREE:
        octets, register = _shrink(octets, register), 0
    if len(octets) > _SHORT_DEGREE:
        octets, register = _shrink_short(octets, register), 0
    for octet in octets.tobytes():
        register = _TABLE[(register ^ octet) & 0xFF] ^ register >> 8
    return register ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """Return the CRC as TensorFlow and LevelDB store it: a CRC over bytes that hold a plain CRC would be weak."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _shrink(octets: NDArray[np.uint8], register: int) -> NDArray[np.uint8]:
    """Return as many bytes as the degree that leave the same remainder when they start with a register of 0."""
    words = octets[: len(octets) // 8 * 8].view("<u8")
    # In front of every piece are the words that the pieces before it were folded to: at first zeros, which change
    # no remainder.
    buffer = np.zeros(_DEGREE + min(len(words), _PIECE), "<u8")
    for start in range(0, len(words), _PIECE):
        piece = words[start : start + _PIECE]
        folded = buffer[: _DEGREE + len(piece)]
        folded[_DEGREE:] = piece
        if start == 0:  # the table would add the register to the first four bytes too
            folded[_DEGREE] ^= register
        buffer[:_DEGREE] = _fold(folded, _DEGREE, _SHIFTS)
    return _fold(np.concatenate([buffer[:_DEGREE].view(np.uint8), octets[8 * len(words) :]]), _DEGREE, _SHIFTS)


def _shrink_short(octets: NDArray[np.uint8], register: int) -> NDArray[np.uint8]:
    """Do the same for a few thousand bytes, with the shorter multiple."""
    front = -len(octets) % 8
    buffer = np.zeros(front + len(octets), np.uint8)  # zeros in front change no remainder
    buffer[front:] = octets
    buffer[front : front + 4] ^= np.frombuffer(register.to_bytes(4, "little"), np.uint8)
    for unit in ("<u8", "<u4", "<u2", "|u1"):
        buffer = _fold(buffer.view(unit), _SHORT_DEGREE, _SHORT_SHIFTS)
    return buffer


def _fold(units: NDArray[Any], degree: int, shifts: list[int]) -> NDArray[Any]:
    """Fold all words (or bytes) into the last ones, as many as the degree, in place; return those."""
    for start in range(0, len(units) - degree, shifts[0]):
        stop = min(start + shifts[0], len(units) - degree)
        for shift in shifts:
            units[start + shift : stop + shift] ^= units[start:stop]
    return units[-degree:]
