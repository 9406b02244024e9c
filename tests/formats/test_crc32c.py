"""CRC32C against published numbers, the definition, and a slow version that shares nothing with the fast one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.formats import crc32c as module
from tinygrad_llm.formats.crc32c import crc32c, mask

POLYNOMIAL = 0x11EDC6F41  # x³² in the highest place: the other way round than in the package
DEGREE = 6777
SHORT_DEGREE = 266


def bitwise(data, value=0):
    """The definition, bit by bit."""
    register = value ^ 0xFFFFFFFF
    for octet in bytes(data):
        for bit in range(8):
            register = register >> 1 ^ 0x82F63B78 * ((register ^ octet >> bit) & 1)
    return register ^ 0xFFFFFFFF


TABLE = [bitwise([octet], 0xFFFFFFFF) ^ 0xFFFFFFFF for octet in range(256)]


def slow(data, value=0):
    """The CRC of every beginning of the data, from none of it to all."""
    register = value ^ 0xFFFFFFFF
    found = [value]
    for octet in bytes(data):
        register = TABLE[(register ^ octet) & 0xFF] ^ register >> 8
        found.append(register ^ 0xFFFFFFFF)
    return found


def noise(length, seed=0):
    return np.random.default_rng(seed).bytes(length)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4, whose bytes are in the order of transmission
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_numbers(data, expected):
    assert crc32c(data) == bitwise(data) == slow(data)[-1] == expected


@pytest.mark.parametrize("powers", [(DEGREE, 484, 100, 0), (SHORT_DEGREE, 143, 121, 88, 71, 0)])
def test_both_folding_rules_are_multiples_of_the_polynomial(powers):
    multiple = sum(1 << power for power in powers)
    while multiple.bit_length() >= POLYNOMIAL.bit_length():
        multiple ^= POLYNOMIAL << multiple.bit_length() - POLYNOMIAL.bit_length()
    assert multiple == 0


@pytest.mark.parametrize("start", [0, 12345])
def test_short_lengths_and_those_where_folding_begins(start):
    data = noise(DEGREE + 300)
    expected = slow(data, start)
    for length in [*range(100), *range(SHORT_DEGREE - 20, 1200), *range(DEGREE - 50, DEGREE + 300)]:
        assert crc32c(data[:length], start) == expected[length], length


@pytest.mark.slow
def test_every_length():
    data = noise(10_000)
    expected = slow(data)
    for length in range(len(data) + 1):
        assert crc32c(data[:length]) == expected[length], length


def test_lengths_where_words_and_pieces_end():
    """Words are folded beyond 8 · 6777 bytes or a full piece; the first fold takes up to 6293 words."""
    piece = 8 * module._PIECE
    data = noise(2 * piece + 20, seed=1)
    expected = slow(data, 7)
    for border in (8 * DEGREE, 8 * 6293, 16 * 6293, piece, piece + 8 * DEGREE, 2 * piece):
        for length in range(border - 9, border + 10):
            assert crc32c(data[:length], 7) == expected[length], length


@pytest.mark.parametrize("piece", [1, 7, 1000, DEGREE, 6293 + DEGREE])
def test_any_size_of_piece(monkeypatch, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    data = noise(DEGREE + 4000 if piece == 1 else 70_001)
    assert crc32c(data) == slow(data)[-1]


@given(st.integers(0, 120_000), st.integers(0, 120_000), st.integers(0, 2**32 - 1))
def test_the_crc_of_two_pieces_is_that_of_both(first, second, seed):
    a, b = noise(first, seed), noise(second, seed + 1)
    assert crc32c(b, crc32c(a)) == crc32c(a + b)


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_the_crc_of_two_short_pieces_is_that_of_both(a, b, value):
    assert crc32c(b, crc32c(a, value)) == crc32c(a + b, value) == bitwise(a + b, value)


@given(st.integers(0, 80_000), st.data())
def test_a_flipped_bit_is_seen(length, choose):
    data = bytearray(noise(length + 1))
    before = crc32c(data)
    data[choose.draw(st.integers(0, length))] ^= 1 << choose.draw(st.integers(0, 7))
    assert crc32c(data) != before


def test_the_container_of_the_bytes_makes_no_difference():
    data = noise(8 * 9000)
    expected = crc32c(data)
    array = np.frombuffer(data, np.float64)
    assert crc32c(bytearray(data)) == crc32c(memoryview(data)) == expected
    assert crc32c(array) == crc32c(array.reshape(9, 10, 100)) == crc32c(array.view(np.int16)) == expected
    assert crc32c(memoryview(b"x" + data)[1:]) == expected  # not aligned to words
    assert data == array.tobytes()


def test_arrays_without_elements_or_dimensions():
    assert crc32c(np.zeros((0, 3))) == 0
    assert crc32c(np.array(1.5, np.float32)) == crc32c(b"\x00\x00\xc0\x3f")


def test_an_array_that_is_not_contiguous_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        crc32c(np.zeros((3, 4)).T)


@given(st.integers(0, 2**32 - 1))
def test_the_mask_is_a_rotation_by_fifteen_and_a_number(crc):
    turned = (mask(crc) - 0xA282EAD8) % 2**32
    assert 0 <= mask(crc) < 2**32
    assert (turned << 15 | turned >> 17) % 2**32 == crc
