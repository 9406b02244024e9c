"""Files of unknown origin: none is waited for, and JSON is strict."""

import os

import pytest

from tinygrad_llm.storage.files import LoadError, is_text, open_regular, parse_json


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(LoadError, match=str(tmp_path)):
        open_regular(tmp_path / "x")


def test_a_missing_file_and_a_folder_are_the_usual_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        open_regular(tmp_path / "none")
    with pytest.raises(OSError, match=tmp_path.name):
        open_regular(tmp_path)


def test_a_text_may_be_cut_inside_a_letter():
    text = "tée🦊\n".encode()
    assert all(is_text(text[:end]) for end in range(1, len(text) + 1))
    assert not any(map(is_text, [b"", b"\xff", b"tea\xff and more", b"tea\0", b"\x1b[1m"]))


def test_ambiguous_json_is_refused(for_each):
    def check(case):
        text, message = case
        with pytest.raises(LoadError, match=rf"^here: .*{message}"):
            parse_json("here", f"[{text}]".encode())

    cases = [
        ("1." + "1" * 1000, "a number of 1002 digits"),
        ("1e999", "1e999 is beyond float64"),
        ("-1e400", "beyond float64"),
        ("9" * 21, "an integer of 21 digits"),
        ("NaN", "NaN is not JSON"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
    ]
    for_each(cases, check)


def test_every_float64_is_read():
    for number in (1.7976931348623157e308, -2.2250738585072014e-308, 5e-324, 0.1, -0.0):
        assert parse_json("here", repr(number).encode()) == number
