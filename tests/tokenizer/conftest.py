"""GPT-2's merges, loaded once for all tests of the tokenizer."""

import pytest
from definition import BYTE_NAMES, VOCAB


@pytest.fixture(scope="session")
def gpt2_merges():
    """GPT-2's merges as ids, read from the file without the package."""
    ids = {name: token_id for token_id, name in enumerate(BYTE_NAMES)}
    merges = {}
    for line in VOCAB.read_bytes().decode().split("\n")[1:-1]:
        left, right = line.split(" ")
        merges[ids[left], ids[right]] = ids[left + right] = len(ids)
    return merges
