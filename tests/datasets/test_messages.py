"""Messages with labels: reading, balancing, splitting."""

import collections
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import DataError, Message, balance, messages, read_messages, split_messages
from tinygrad_llm.random import Generator

MESSAGES = [Message("See you.", "ham"), Message('A "big" prize!', "spam")]


def written(folder, text, name="messages.tsv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("header", ["label,message", "id,text", "Text,spam", "label,text,source"])
def test_a_header_without_both_columns_is_named(tmp_path, header):
    (tmp_path / "rows.csv").write_text(f"{header}\nham,hello\nspam,buy\n")
    words = rf"line 1: the columns must be label and text, got {header.replace(',', ', ')}: rename them"
    with pytest.raises(DataError, match=words):
        read_messages(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.tsv", 'ham\tSee you.\nspam\tA "big" prize!\n'),
        ("m.tsv", 'label\ttext\nham\tSee you.\nspam\tA "big" prize!'),
        ("m.tsv", 'Text\tLabel\r\nSee you.\tham\r\n\r\nA "big" prize!\tspam\r\n'),
        ("m.csv", 'ham,See you.\nspam,"A ""big"" prize!"\n'),
        ("m.txt", '\ufeffham\tSee you.\nspam\t"A ""big"" prize!"\n'),
    ],
)
def test_a_table_is_read_with_and_without_a_header(tmp_path, name, text):
    assert read_messages(written(tmp_path, text, name)) == (MESSAGES, [])


def test_a_quoted_text_that_swallows_lines_is_reported(tmp_path):
    messages, notes = read_messages(written(tmp_path, 'ham\ta\nspam\t"b\nham\tc"\nham\td\n'))
    assert [message.text for message in messages] == ["a", "b\nham\tc", "d"]
    assert len(notes) == 1
    assert notes[0].endswith("a quoted text holds several lines, at line 2: is that meant?")
    _, notes = read_messages(written(tmp_path, "spam\ta\n" + 'ham\t"b\nc"\n' * 7))
    assert notes[0].endswith("at line 2, 4, 6, 8, 10: is that meant?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ham\ta\nspam\n", r"line 2: must have two columns, label and text, with a tab between them; got 1: \["),
        ("ham\ta\nspam\tb\tc\n", "line 2: must have two columns, label and text, with a tab between them; got 3"),
        ("ham\ta\n\tb\n", "line 2: the label is empty: remove the line, or fill it"),
        ("ham\ta\nspam\t \n", "line 2: the text is empty"),
        ("ham\ta\nham\tb\n", r"has 1 classes \(ham\), and at least two are needed"),
        ("a prize\tspam\nsee you\tham\nhello\tham\n", r"more labels \(3\) than texts \(2\): are the columns swapped"),
        ("", "has no messages: give lines of a label, a tab and a text"),
        (b"ham\t\xff\n", r"not UTF-8 text \(byte 0xff in line 1\): save it as UTF-8$"),
        (
            "ham\t" + "a" * 200_000 + "\n",
            r"line 1: field larger than field limit .*: is a quotation mark not",
        ),
    ],
)
def test_a_file_that_is_not_a_table_of_messages_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_messages(written(tmp_path, text))


def test_a_file_without_an_end_is_read_up_to_a_limit(tmp_path, monkeypatch):
    path = written(tmp_path, "ham\ta\nspam\tb\n")
    monkeypatch.setattr(messages, "_MAX_BYTES", path.stat().st_size)
    assert len(read_messages(path)[0]) == 2
    monkeypatch.setattr(messages, "_MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"messages\.tsv: longer than the 12 bytes accepted"):
        read_messages(path)


def test_a_missing_file_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.tsv: cannot be read: No such file"):
        read_messages(tmp_path / "none.tsv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_messages(tmp_path / "pipe")


ANY = st.lists(
    st.tuples(st.sampled_from(["a", "A ", "b", "c", "d", "e"]), st.sampled_from("xyz")), min_size=3, max_size=60
)


@given(ANY, st.integers(0, 9))
def test_balance_keeps_as_many_of_each_class_as_the_rarest_has(pairs, seed):
    messages = [Message(*pair) for pair in pairs]
    kept = balance(messages, Generator(seed))
    before, after = (collections.Counter(m.label for m in some) for some in (messages, kept))
    assert set(after.values()) == {min(before.values())}
    assert after.keys() == before.keys()
    assert not collections.Counter(kept) - collections.Counter(messages)


def test_balance_leaves_out_messages_at_random_and_keeps_their_order():
    messages = [Message(str(i), "ham") for i in range(100)] + [Message("x", "spam")] * 50
    kept = [[int(m.text) for m in balance(messages, Generator(seed)) if m.label == "ham"] for seed in (0, 1)]
    assert kept[0] != kept[1]
    for numbers in kept:
        assert numbers == sorted(set(numbers))
        assert 10 < sum(n >= 50 for n in numbers) < 40


@given(ANY, st.integers(0, 9))
def test_split_loses_nothing_and_keeps_equal_texts_together(pairs, seed):
    messages = [Message(*pair) for pair in pairs]
    try:
        parts = split_messages(messages, Generator(seed), (0.4, 0.3))
    except DataError:
        return  # too few different texts
    assert collections.Counter(m for part in parts for m in part) == collections.Counter(messages)
    texts = [{m.text.strip().lower() for m in part} for part in parts]
    assert not texts[0] & texts[1] | texts[1] & texts[2] | texts[0] & texts[2]


@given(st.integers(10, 400), st.integers(0, 9))
def test_split_has_the_shares_that_were_asked_for(n, seed):
    numbers = np.random.default_rng(seed).integers(0, n, n)  # about a third of the texts occur twice or more
    messages = [Message(f"text {i}", "x") for i in numbers]
    parts = split_messages(messages, Generator(seed))
    assert [len(part) for part in parts] == [int(0.7 * n), int(0.1 * n), n - int(0.7 * n) - int(0.1 * n)]


def test_another_seed_gives_another_split():
    messages = [Message(f"text {i}", "x") for i in range(50)]
    one, same, other = (split_messages(messages, Generator(seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_too_few_messages_are_refused():
    with pytest.raises(DataError, match="2 messages are too few for three parts"):
        split_messages(MESSAGES, Generator(0))


def test_the_sms_spam_collection_has_the_book_s_sizes():
    """Where it is at hand: the folder that TINYGRAD_LLM_DATA names."""
    path = Path(os.environ.get("TINYGRAD_LLM_DATA", "")) / "SMSSpamCollection"
    if not path.is_file():
        pytest.skip("TINYGRAD_LLM_DATA names no folder with SMSSpamCollection")
    messages, notes = read_messages(path)
    assert collections.Counter(m.label for m in messages) == {"ham": 4825, "spam": 747}
    assert len(notes) == 1  # two quoted texts swallow a line
    even = balance(messages, Generator(123))
    assert collections.Counter(m.label for m in even) == {"ham": 747, "spam": 747}
    assert [len(part) for part in split_messages(even, Generator(123))] == [1045, 149, 300]
