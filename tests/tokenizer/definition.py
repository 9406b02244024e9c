"""GPT-2's words by its own pattern, with `regex` set to the Unicode that GPT-2's ids go by: the tests' oracle."""

import re

import regex

from tinygrad_llm.tokenizer.pattern import NEWER

_newer = re.sub("[0-9A-F]+", lambda code: rf"\U{int(code[0], 16):08X}", NEWER)
_letter, _number = (rf"[\p{{{kind}}}--[{''.join(_newer.split())}]]" for kind in "LN")
gpt2_words = regex.compile(
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?{_letter}+| ?{_number}+| ?[^\s{_letter}{_number}]+|\s+(?!\S)|\s+", regex.V1
).findall
