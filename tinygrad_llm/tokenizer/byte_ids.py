"""GPT-2's ids 0 … 255 are the 256 bytes, in an order of its own: first the bytes that print as a character.

GPT-2's files write each byte as one printable character: itself where it prints, else U+0100, U+0101, … in turn. A
space is therefore "Ġ" (U+0120) in these files.
"""

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]

BYTES = bytes(_PRINTABLE + [byte for byte in range(256) if byte not in _PRINTABLE])  # id → byte
BYTE_IDS = bytes(BYTES.index(byte) for byte in range(256))  # byte → id: a table for bytes.translate
BYTE_NAMES = [*map(chr, _PRINTABLE), *map(chr, range(0x100, 0x200 - len(_PRINTABLE)))]  # id → how the files write it
