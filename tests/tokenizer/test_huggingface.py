"""Tokenizer files of Hugging Face.

`huggingface/` was written by tokenizers 0.23 and transformers 5.24: byte-level BPE of 275 tokens that begin with <pad>
and </s>, and <x>, which was added at the end. `ids.json` holds the ids that `AutoTokenizer` gives some texts.
"""

import copy
import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import (
    CharTokenizer,
    Tokenizer,
    TokenizerError,
    load_tokenizer,
    save_huggingface,
    vocabulary_hash,
)

THEIRS = Path(__file__).with_name("huggingface")
IDS = json.loads((THEIRS / "ids.json").read_text())
DOCUMENT = json.loads((THEIRS / "tokenizer.json").read_text())


def same(one, other):
    assert (one.special_tokens, one.eot_token) == (other.special_tokens, other.eot_token)
    assert vocabulary_hash(one) == vocabulary_hash(other)


def test_ids_are_those_of_transformers(tmp_path, for_each):
    theirs = load_tokenizer(THEIRS)
    assert (theirs.n_vocab, theirs.special_tokens, theirs.eot_token) == (276, {"<pad>": 0, "</s>": 1, "<x>": 275}, 1)
    theirs.save(tmp_path / "ours.json")
    copies = [theirs, load_tokenizer(THEIRS / "tokenizer.json"), load_tokenizer(tmp_path / "ours.json")]
    copies += [pickle.loads(pickle.dumps(theirs)), copy.deepcopy(theirs), theirs.with_special_tokens(["<new>"])]

    def check(tokenizer):
        for text, ids in IDS.items():
            for _ in range(2):  # the second time from the cache
                assert tokenizer.encode(text, allowed_special="all") == ids
            assert tokenizer.decode(ids) == text
            assert tokenizer.decode_with_offsets(ids)[0] == text
            assert tokenizer.encode_bytes(text.encode()) == tokenizer.encode(text, disallowed_special=())
        assert {tokenizer.decode(step) for step in tokenizer.explain_word("café\n")} == {"café\n"}
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(b"\xff\n")) == b"\xff\n"

    for_each(copies, check)


def test_merges_may_be_written_in_one_string(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    loaded = load_tokenizer(tmp_path)
    assert loaded.merges == load_tokenizer(THEIRS).merges


def test_fields_that_an_older_program_left_out_have_their_defaults(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    kept = {"model": {"vocab", "merges"}, "pre_tokenizer": {"type", "add_prefix_space"}}
    for part, fields in kept.items():
        document[part] = {key: value for key, value in document[part].items() if key in fields}
    document["added_tokens"] = [{key: token[key] for key in ("id", "content")} for token in document["added_tokens"]]
    document = {key: document[key] for key in (*kept, "added_tokens")}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert vocabulary_hash(load_tokenizer(tmp_path)) == vocabulary_hash(load_tokenizer(THEIRS))


def test_the_first_file_that_names_the_end_of_a_text_decides_it(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(DOCUMENT))
    steps = [
        (None, None, None),
        ("config.json", {"eos_token_id": 50256}, None),  # the default of transformers; no token has this id
        ("config.json", [1], None),
        ("config.json", {"eos_token_id": 1}, 1),
        ("tokenizer_config.json", {"eos_token": "<x>"}, 275),
        ("special_tokens_map.json", {"eos_token": {"content": "<pad>"}}, 0),
        ("special_tokens_map.json", {"eos_token": None}, 275),
    ]
    for name, fields, expected in steps:
        if name is not None:
            (tmp_path / name).write_text(json.dumps(fields))
        assert load_tokenizer(tmp_path).eot_token == expected


def test_a_pair_with_added_tokens_and_specials_first_is_read_as_tokenizer_json(tmp_path, for_each):
    """As transformers wrote them before version 5."""
    vocab = DOCUMENT["model"]["vocab"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8-sig")
    merges = "".join(f"{left} {right}\n" for left, right in DOCUMENT["model"]["merges"])
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8-sig")
    (tmp_path / "added_tokens.json").write_text('{"<x>": 275}')

    def check(eos):
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": eos}))
        same(load_tokenizer(tmp_path), load_tokenizer(THEIRS))

    for_each(["</s>", {"content": "</s>", "lstrip": False}], check)


KINDS = {
    "bpe": Tokenizer.train("the cat sat on the mat " * 9, 270),
    "other end": Tokenizer.train("the cat sat on the mat " * 9, 270, ["<a>", "</s>"]),
    "first": load_tokenizer(THEIRS),
    "char": CharTokenizer("\n the"),
}
KINDS["other end"].end_of_text = "</s>"


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_we_write_come_back_and_transformers_gives_the_same_ids(tmp_path, kind):
    tokenizer, text = KINDS[kind], "the\n hehe"
    save_huggingface(tmp_path, tokenizer)
    same(load_tokenizer(tmp_path), tokenizer)
    assert type(load_tokenizer(tmp_path)) is type(tokenizer)
    tokenizer.save(tmp_path / "ours.json")
    same(load_tokenizer(tmp_path / "ours.json"), tokenizer)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(text) == tokenizer.encode(text)
    assert theirs.decode(theirs.encode(text)) == text
    assert (len(theirs), theirs.eos_token_id) == (tokenizer.n_vocab, tokenizer.eot_token)


def test_files_that_we_write_are_those_of_the_library(tmp_path):
    """Except that the steps behind the splitter say what it says, and that a merge is one string."""
    level = DOCUMENT["pre_tokenizer"]
    merges = [" ".join(merge) for merge in DOCUMENT["model"]["merges"]]
    model = DOCUMENT["model"] | {"vocab": DOCUMENT["model"]["vocab"] | {"<x>": 275}, "merges": merges}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    ends = {"bos_token": "</s>", "eos_token": "</s>"}
    expected = DOCUMENT | {"model": model, "decoder": level, "post_processor": level}
    save_huggingface(tmp_path, KINDS["first"])
    written = [json.loads((tmp_path / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")]
    assert written == [expected, config | ends]
    expected |= {"added_tokens": [], "model": model | {"vocab": {c: i for i, c in enumerate("\n the")}, "merges": []}}
    expected |= {"pre_tokenizer": None, "post_processor": None, "decoder": {"type": "Fuse"}}
    save_huggingface(tmp_path, KINDS["char"])
    written = [json.loads((tmp_path / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json")]
    assert written == [expected, config]


def changed(*path, value):
    document = copy.deepcopy(DOCUMENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


VOCAB, MERGES = DOCUMENT["model"]["vocab"], DOCUMENT["model"]["merges"]
REFUSED = [
    (changed("normalizer", value={"type": "NFC"}), "normalizer: normalizer is .*'NFC'.*, and .* only None"),
    (changed("model", "type", value="WordPiece"), "model: unk_token is None"),
    (changed("model", "type", value="Unigram"), "model: type is 'Unigram'"),
    (changed("model", "dropout", value=0.1), "model: dropout is 0.1"),
    (changed("model", "continuing_subword_prefix", value="##"), "continuing_subword_prefix is '##'"),
    (changed("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix is '</w>'"),
    (changed("model", "byte_fallback", value=True), "byte_fallback is True"),
    (changed("model", "ignore_merges", value=True), "ignore_merges is True"),
    (changed("pre_tokenizer", value=None), "pre_tokenizer: type is None"),
    (changed("pre_tokenizer", value={"type": "Sequence", "pretokenizers": []}), "pre_tokenizer: type is 'Sequence'"),
    (changed("pre_tokenizer", "add_prefix_space", value=True), "pre_tokenizer: add_prefix_space is True"),
    (changed("pre_tokenizer", "use_regex", value=False), "pre_tokenizer: use_regex is False"),
    (changed("post_processor", value={"type": "TemplateProcessing"}), "post_processor: type is 'TemplateProcessing'"),
    (changed("added_tokens", 1, "lstrip", value=True), "added token '</s>': lstrip is True"),
    (changed("added_tokens", 1, "rstrip", value=True), "added token '</s>': rstrip is True"),
    (changed("added_tokens", 0, "single_word", value=True), "added token '<pad>': single_word is True"),
    (changed("added_tokens", 1, "id", value=7), "'</s>' has two ids: 1, 7"),
    (changed("added_tokens", 2, "id", value=299), "'<x>' has the id 299; ids must be 0 … 275, each once"),
    (changed("added_tokens", value=[{}]), "not a tokenizer.json of Hugging Face: KeyError"),
    (changed("model", value=[]), "not a tokenizer.json of Hugging Face"),
    (changed("model", "merges", value=[["a"]]), "merge 0: expected two tokens"),
    (changed("model", "merges", value=[["th", "e"]]), "merge 0: no line above makes the token 'th'"),
    (changed("model", "merges", value=[7]), "not a tokenizer.json of Hugging Face"),
    (changed("model", "vocab", value={k: v for k, v in VOCAB.items() if k != "!"}), "no entry for '!'"),
    (changed("model", "vocab", value=VOCAB | {"!": VOCAB["a"], "a": VOCAB["!"]}), "the id of '!' is"),
    (changed("model", "vocab", value=VOCAB | {"!": "7"}), "the id of '!' must be an integer"),
]


def test_a_pipeline_that_this_package_does_not_compute_is_refused_by_name(tmp_path, for_each):
    path = tmp_path / "tokenizer.json"

    def check(case):
        document, message = case
        path.write_text(json.dumps(document))
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: .*{message}"):
            load_tokenizer(tmp_path)

    for_each(REFUSED, check)


def test_a_file_of_characters_must_number_them_from_0(tmp_path):
    save_huggingface(tmp_path, KINDS["char"])
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["vocab"]["t"] = 9
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match="the ids of its 5 characters must be 0 … 4"):
        load_tokenizer(tmp_path)


@given(data=st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_document_is_read_or_refused_with_its_path(tmp_path, data):
    """Whatever stands in the place of a value: no other error than TokenizerError."""
    document, path = copy.deepcopy(DOCUMENT), tmp_path / "tokenizer.json"
    place = document
    key = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    values = [None, True, 0, -1, 1.5, 10**30, "", "x", "\ud800", [], {}, [1], {"a": 1}, ["a", "b"], [["a"]]]
    place[key] = data.draw(st.sampled_from(values))
    path.write_text(json.dumps(document))
    message, tokenizer = "", None
    try:
        tokenizer = load_tokenizer(path)
    except TokenizerError as error:
        message = str(error)
    if tokenizer is None:
        assert message.startswith(str(path))
        assert len(message) < 1000
    else:
        assert tokenizer.decode(tokenizer.encode("the cat", disallowed_special=())) == "the cat"
