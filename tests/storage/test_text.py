"""Text that leaves the program: strict JSON, and messages of one line."""

import json
import math

import numpy as np
import pytest

from tinygrad_llm.storage.text import columns, finite, nearest, one_line, padded, printable, shortened, to_json


def test_one_line_joins_every_run_of_white_space():
    assert one_line(ValueError("two\n  words\tand more\n")) == "two words and more"


def test_controls_of_a_terminal_become_a_sign_in_every_text():
    controls = "\x00\x1b\x07\x7f\x9b\u202e\u2066"
    assert printable(f"a{controls}\tb\n") == "a" + "\ufffd" * len(controls) + "\tb\n"
    assert one_line(f"a{controls}\x0c\u2028b") == "a" + "\ufffd" * len(controls) + " b"


def test_columns_are_those_of_a_terminal():
    assert [columns(text) for text in ("", "abc", "垃圾", "e\u0301")] == [0, 3, 4, 1]
    assert (padded("垃圾", 6), padded("垃圾", 6, right=True), padded("long", 2)) == ("垃圾  ", "  垃圾", "long")
    assert [shortened(text, 6) for text in ("a\nb", "abcdef", "abcdefg", "垃圾邮件")] == [
        "a b",
        "abcdef",
        "abcd …",
        "垃圾 …",
    ]


def test_nearest_names_the_most_similar_name_or_all():
    assert nearest("layernorm", iter(["linear", "layer_norm", "norm"])) == ": did you mean layer_norm?"
    assert nearest("xyz", {"linear": 1, "tanh": 2}) == ": there are linear, tanh"


def test_to_json_writes_null_for_nan_and_infinity_at_every_depth():
    value = {"a": math.nan, "b": [1.5, (math.inf, {"c": -math.inf})], "d": np.float64("nan"), "e": "NaN", "f": True}
    text = to_json(value)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None, "b": [1.5, [None, {"c": None}]], "d": None, "e": "NaN", "f": True,
    }  # fmt: skip


def test_finite_keeps_every_finite_number():
    assert finite([0, -1, 1e308, 5e-324, "x", None, False]) == [0, -1, 1e308, 5e-324, "x", None, False]
