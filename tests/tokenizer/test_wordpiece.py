"""`WordPieceTokenizer`: BERT's words and pieces, against their definitions and against the library `tokenizers`."""

import copy
import json
import pickle
import re
import sys
from collections import Counter
from itertools import pairwise

import pytest
from definition import PIECES
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm.datasets import load_corpus
from tinygrad_llm.tokenizer import (
    StreamDecoder,
    Tokenizer,
    TokenizerError,
    WordPieceTokenizer,
    load_tokenizer,
    save_huggingface,
    vocabulary_hash,
)
from tinygrad_llm.tokenizer.basic import split_basic

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, "un", "##aff", "##able", "##a", "fox", "##es", "the", ",", "[", "]", "mask", "f", "##o", "ß"]


@pytest.fixture(scope="module")
def small():
    return WordPieceTokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def stories():
    """Pieces of the stories, and of a text with all kinds of characters."""
    return WordPieceTokenizer.train([load_corpus("stories")[:100_000], " ".join(PIECES) * 2], 700)


# ---- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Héllo,  WORLD\t!", ["hello", ",", "world", "!"]),
        ("don't stop--it's $5", ["don", "'", "t", "stop", "-", "-", "it", "'", "s", "$", "5"]),
        ("漢字 tea", ["漢", "字", "tea"]),
        ("ΑΣ ΟΔΟΣ", ["ας".replace("ς", "σ"), "οδοσ"]),  # no final ς: each character by itself
        ("a\0b\u200dc\ufffdd\x1ce\x85f", ["abcdef"]),  # control characters are dropped, not replaced
        ("a\u2028b\u3000c\xa0d", ["a", "b", "c", "d"]),
        ("İ e\u0301 ﬁ ẞ", ["i", "e", "ﬁ", "ß"]),
        ("𐐀 ¡¿ ～ \u166d", ["𐐨", "¡", "¿", "～", "\u166d"]),
        ("\U0002b820\U0002b920", ["\U0002b820", "\U0002b920"]),  # the gap of the library stands alone here, too
        ("x\U0002b820x\U0002b920x", ["x\U0002b820x", "\U0002b920", "x"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_words_are_cleaned_and_split(text, words):
    assert split_basic(text) == words


def test_case_and_accents_may_stay():
    assert WordPieceTokenizer(VOCABULARY, True, False).split("Ä É") == ["ä", "é"]
    assert split_basic("Ä É\u0301, Σ", lowercase=False, strip_accents=False) == ["Ä", "É\u0301", ",", "Σ"]
    assert split_basic("Ä É", lowercase=True, strip_accents=False) == ["ä", "é"]
    assert split_basic("Ä É", lowercase=False, strip_accents=True) == ["A", "E"]


# ---- pieces ------------------------------------------------------------------------------------------------------


def test_a_word_becomes_its_longest_pieces_or_unknown(small):
    names = [[small.vocabulary[i] for i in small.encode(text)] for text in ("unaffable", "foxes", "Fo", "foxy fox")]
    assert names == [["un", "##aff", "##able"], ["fox", "##es"], ["f", "##o"], ["[UNK]", "fox"]]
    assert small.encode("un" + "a" * 98) == [5] + [8] * 98
    assert small.encode("un" + "a" * 99) == [1]  # 101 characters
    assert small.encode("Un, \n UN") == [5, 12, 5]


def slow_encode(tokenizer, text):
    """By the definition, without a cache."""
    ids = {token: i for i, token in enumerate(tokenizer.vocabulary)}
    result = []
    for word in split_basic(text):
        pieces, rest = [], word
        while rest and len(word) <= 100:
            fits = [rest[:n] for n in range(len(rest), 0, -1) if ("##" if pieces else "") + rest[:n] in ids]
            if not fits:
                break
            pieces.append(("##" if pieces else "") + fits[0])
            rest = rest[len(fits[0]) :]
        result += [ids["[UNK]"]] if rest else [ids[piece] for piece in pieces]
    return result


@given(text=st.lists(st.sampled_from([*PIECES, "The fox ", "unaffable"]) | st.text(max_size=6)).map("".join))
def test_encode_equals_its_definition(small, stories, text):
    for tokenizer in (small, stories):
        ids = slow_encode(tokenizer, text)
        for _ in range(2):  # the second time from the cache
            assert tokenizer.encode_ordinary(text) == ids


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip", [True, False, None])
def test_training_reads_words_as_encode_does(lowercase, strip):
    text = "Thé thé THÉ the Über über Ubers " * 3
    tokenizer = WordPieceTokenizer.train(text, 60, lowercase, strip)
    words = " ".join(split_basic(text, lowercase, lowercase if strip is None else strip))
    assert tokenizer.vocabulary == WordPieceTokenizer.train(words, 60, False, False).vocabulary
    assert tokenizer.special_tokens["[UNK]"] not in tokenizer.encode(text)


def test_special_tokens_raise_or_are_allowed_or_are_text(small):
    text = "the [MASK]fox"
    with pytest.raises(TokenizerError, match=r"holds the special token '\[MASK\]' at position 4"):
        small.encode(text)
    assert small.encode(text, allowed_special="all") == [11, 4, 9]
    assert small.encode_ordinary(text) == [11, 13, 15, 14, 9]
    assert small.special_tokens == {token: i for i, token in enumerate(SPECIAL)}
    assert WordPieceTokenizer(["a", "[UNK]"]).special_tokens == {"[UNK]": 1}


def test_ids_become_readable_text(small):
    assert small.decode([11, 5, 6, 7, 12, 9, 10, 1]) == "the unaffable, foxes [UNK]"
    assert small.decode([10]) == "##es"
    assert small.decode_batch([[9], []]) == ["fox", ""]
    assert small.decode_bytes([18]) == "ß".encode()
    assert small.encode_single_token(b"##es") == small.encode_single_token("##es") == 10
    with pytest.raises(KeyError, match="not one of the 19 tokens"):
        small.encode_single_token("es")
    with pytest.raises(TokenizerError, match="token id 19 is unknown"):
        small.decode([19])


@given(ids=st.lists(st.integers(0, len(VOCABULARY) - 1)))
def test_streamed_pieces_join_to_the_decoded_text(small, ids):
    stream = StreamDecoder(small)
    for _ in range(2):
        assert "".join([*map(stream.push, ids), stream.finish()]) == small.decode(ids)


# ---- training ----------------------------------------------------------------------------------------------------


def naive_train(text, vocab_size):
    """Count all pairs again before each merge."""
    words = Counter(split_basic(text))
    letters = sorted(set("".join(words)))
    tokens = [*letters, *sorted({"##" + c for word in words for c in word[1:]})]
    place = {token: i for i, token in enumerate(tokens)}
    rows = [[place[c if i == 0 else "##" + c] for i, c in enumerate(word)] for word in words]
    counts = list(words.values())
    while len({*tokens}) + len(SPECIAL) < vocab_size:
        pairs = Counter()
        for row, count in zip(rows, counts, strict=True):
            for pair in pairwise(row):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        made = len(tokens)
        tokens.append(tokens[best[0]] + tokens[best[1]].removeprefix("##"))
        for row in rows:
            at = 0
            while at < len(row) - 1:
                if (row[at], row[at + 1]) == best:
                    row[at : at + 2] = [made]
                at += 1
    return [*SPECIAL, *tokens]


@given(text=st.text("abcé, \n", max_size=80), more=st.integers(0, 12))
def test_training_merges_the_most_frequent_pair_first(text, more):
    smallest = len(naive_train(text, 0))
    assert WordPieceTokenizer.train(text, smallest + more).vocabulary == naive_train(text, smallest + more)
    if smallest > 5:
        with pytest.raises(TokenizerError, match=f"vocab_size is {smallest - 1}; .* at least {smallest}$"):
            WordPieceTokenizer.train(text, smallest - 1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (12, "; 5 special tokens and 8 characters, alone and with ##, need an integer of at least 13"),
        (13.0, "; 5 special tokens and 8 characters, alone and with ##, need an integer of at least 13"),
        (1_114_113, "; this trainer learns at most 1114112"),
    ],
)
def test_a_vocabulary_of_the_wrong_size_is_refused(size, message):
    with pytest.raises(TokenizerError, match=f"^vocab_size is {size}{re.escape(message)}$"):
        WordPieceTokenizer.train("the hat", size)


def test_training_takes_texts_skips_special_tokens_and_keeps_case():
    one = WordPieceTokenizer.train("the [MASK] Thé the", 100)
    assert one.vocabulary == WordPieceTokenizer.train(["the ", "Thé the"], 100).vocabulary
    assert one.vocabulary[-2:] == ["th", "the"]
    calls = []
    WordPieceTokenizer.train("the the", 14, progress=lambda done, wanted: calls.append((done, wanted)))
    assert calls == [(1, 4), (2, 4)]
    assert "m" not in one.vocabulary
    assert "T" in WordPieceTokenizer.train("the Thé the", 100, lowercase=False).vocabulary
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 1001)]
    rare = WordPieceTokenizer.train("".join(reversed(letters)) * 2 + "ab", 1005)
    # The alphabet ends before the rare characters; of equally frequent ones, the first by code point are in it.
    assert rare.vocabulary == [*SPECIAL, *letters[:1000]]
    assert rare.encode(f"ab {letters[0]}") == [1, 5]


def test_stories_need_fewer_pieces_than_characters(stories):
    text = load_corpus("stories")[-50_000:]
    assert len(stories.encode(text)) < 0.4 * len(text)


# ---- files -------------------------------------------------------------------------------------------------------


def same(one, other):
    assert one.vocabulary == other.vocabulary
    assert (one.lowercase, one.strip_accents) == (other.lowercase, other.strip_accents)
    assert vocabulary_hash(one) == vocabulary_hash(other)


@pytest.mark.parametrize("cases", [(True, None), (False, None), (True, False)])
def test_saved_tokenizers_come_back_in_every_form(tmp_path, cases):
    tokenizer = WordPieceTokenizer([*VOCABULARY, "\u2028", "##\x85"], *cases)
    tokenizer.save(tmp_path / "ours.json")
    copies = [pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer), load_tokenizer(tmp_path / "ours.json")]
    copies.append(WordPieceTokenizer.load(tmp_path / "ours.json"))
    tokenizer.save_vocab(tmp_path / "vocab.txt")
    copies.append(WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt", *cases))
    save_huggingface(tmp_path, tokenizer)
    copies.append(load_tokenizer(tmp_path))
    (tmp_path / "tokenizer.json").unlink()  # vocab.txt and tokenizer_config.json remain
    copies += [load_tokenizer(tmp_path), load_tokenizer(tmp_path / "vocab.txt")]
    for again in copies:
        same(again, tokenizer)
    hashes = {vocabulary_hash(WordPieceTokenizer(VOCABULARY, *case)) for case in ((True,), (False,), (True, False))}
    assert len(hashes) == 3


def test_files_for_hugging_face_are_those_of_bert(tmp_path, small):
    """As `bert-base-uncased` has them."""
    save_huggingface(tmp_path, WordPieceTokenizer(VOCABULARY, True, False))
    no = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    cases = {"strip_accents": False, "lowercase": True}
    model = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    around = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    expected = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **no} for i, token in enumerate(SPECIAL)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, **cases},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", **model, "vocab": {token: i for i, token in enumerate(VOCABULARY)}},
    }
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": False}
    config |= {"tokenize_chinese_chars": True, "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    config |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    written = [json.loads((tmp_path / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")]
    assert written == [expected, config]
    save_huggingface(tmp_path, WordPieceTokenizer(["[UNK]", "[SEP]", "a"]))  # without [CLS], nothing goes around
    names = ("tokenizer.json", "tokenizer_config.json")
    document, config = (json.loads((tmp_path / name).read_text()) for name in names)
    assert document["post_processor"] is None
    assert {name: token for name, token in config.items() if name.endswith("_token")} == {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
    }


def test_vocab_txt_holds_one_token_a_line(tmp_path, small):
    path = tmp_path / "vocab.txt"
    small.save_vocab(path)
    assert path.read_text(encoding="utf-8") == "".join(f"{token}\n" for token in VOCABULARY)
    path.write_bytes("\r\n".join(VOCABULARY).encode())
    same(load_tokenizer(tmp_path), small)
    with pytest.raises(TokenizerError, match="holds a line end"):
        WordPieceTokenizer(["[UNK]", "a\nb"]).save_vocab(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", r"the vocabulary has no \[UNK\]"),
        ("[UNK]\na\n\nb\n", r"token 2 is empty .*line n \+ 1"),
        ("[UNK]\na\na\n", "token 2, 'a', occurs twice"),
        ("", r"no \[UNK\]"),
        ("\xff", "not UTF-8"),
    ],
)
def test_wrong_vocab_txt_is_named(tmp_path, text, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: .*{message}"):
        load_tokenizer(tmp_path)


def test_a_str_is_no_vocabulary():
    with pytest.raises(TokenizerError, match="must be a list of tokens, got one str"):
        WordPieceTokenizer("[UNK]")


def test_a_pipeline_of_hugging_face_that_is_not_berts_is_refused_by_name(tmp_path, small, for_each):
    save_huggingface(tmp_path, small)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text())
    wrong = [
        ("model", "unk_token", "<unk>", "model: unk_token is '<unk>'.*: use a tokenizer of WordPiece with BERT's set"),
        ("model", "continuing_subword_prefix", "@@", "continuing_subword_prefix is '@@'"),
        ("model", "max_input_chars_per_word", 200, "max_input_chars_per_word is 200"),
        ("model", "vocab", document["model"]["vocab"] | {"x": 99}, "the ids of its 20 tokens must be 0 … 19"),
        ("model", "vocab", {"[UNK]": "0"}, "not in the vocabulary with its id"),
        ("model", "vocab", [], "not a tokenizer.json"),
        ("normalizer", "type", "NFC", "normalizer: type is 'NFC'"),
        ("normalizer", "clean_text", False, "clean_text is False"),
        ("normalizer", "handle_chinese_chars", False, "handle_chinese_chars is False"),
        ("normalizer", "strip_accents", 1, "strip_accents that or null"),
        ("normalizer", "lowercase", 1, "lowercase must be true or false"),
        ("pre_tokenizer", "type", "Whitespace", "pre_tokenizer: type is 'Whitespace'.*use a tokenizer of WordPiece"),
    ]

    def check(case):
        part, field, value, message = case
        path.write_text(json.dumps(document | {part: document[part] | {field: value}}))
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: .*{message}"):
            load_tokenizer(tmp_path)

    for_each(wrong, check)
    path.write_text(json.dumps(document | {"normalizer": {"type": "BertNormalizer"}, "added_tokens": None}))
    same(load_tokenizer(tmp_path), small)  # fields that are left out have BERT's values
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "yes"}')
    path.unlink()
    with pytest.raises(TokenizerError, match="do_lower_case must be true or false"):
        load_tokenizer(tmp_path)


# ---- the library -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizers():
    return pytest.importorskip("tokenizers")


def theirs_of(tokenizers, ours):
    vocabulary = {token: i for i, token in enumerate(ours.vocabulary)}
    return tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=ours.lowercase, strip_accents=ours.strip_accents)


TEXTS = st.lists(st.sampled_from([*PIECES, "[MASK]", "[UNK]"]) | st.text(max_size=8), max_size=12).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [(True, True), (False, False)])
def test_random_texts_have_the_ids_and_the_text_of_the_library(tokenizers, stories, cases):
    ours = WordPieceTokenizer(stories.vocabulary, *cases)
    theirs, seen = theirs_of(tokenizers, ours), []

    @settings(max_examples=1000)
    @given(text=TEXTS)
    def same_ids(text):
        seen.append(text)
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special="all") == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)

    same_ids()
    assert len(seen) >= 1000


@pytest.mark.slow
def test_every_code_point_alone_has_the_words_of_the_library(tokenizers):
    normalizer = tokenizers.normalizers.BertNormalizer()
    pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()

    def words(text):
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))]

    codes = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]  # without surrogates
    for start in range(0, len(codes), 256):
        some = [chr(code) for code in codes[start : start + 256]]
        if split_basic("\n".join(some)) != words("\n".join(some)):  # a line feed separates words
            assert {c: split_basic(c) for c in some} == {c: words(c) for c in some}


def test_stories_train_to_pieces_that_the_library_learns_too(tokenizers):
    """Only the order of equally frequent pairs differs: the library's depends on a hash table."""
    text = load_corpus("stories")[:60_000]
    ours = WordPieceTokenizer.train(text, 600)
    theirs = tokenizers.BertWordPieceTokenizer()
    theirs.train_from_iterator([text], 600, show_progress=False)
    assert len(set(ours.vocabulary) & theirs.get_vocab().keys()) >= 590
    assert ours.vocabulary[:5] == [theirs.id_to_token(i) for i in range(5)]


def test_files_that_we_write_give_transformers_the_same_ids(tmp_path, stories):
    transformers = pytest.importorskip("transformers")
    save_huggingface(tmp_path, stories)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Once there was a [MASK] fox, wasn't there? É 漢"
    ids = stories.encode(text, allowed_special="all")
    assert theirs.encode(text) == [stories.special_tokens["[CLS]"], *ids, stories.special_tokens["[SEP]"]]
    theirs.save_pretrained(tmp_path / "theirs")
    same(load_tokenizer(tmp_path / "theirs"), stories)


def test_gpt2s_tokenizer_is_not_read_as_wordpiece(tmp_path):
    Tokenizer([]).save(tmp_path / "t.json")
    with pytest.raises(TokenizerError, match="kind is 'bpe', not 'wordpiece'"):
        WordPieceTokenizer.load(tmp_path / "t.json")
