"""What makes encoding fast changes no id: caches, known words, two ways to merge, threads, copies."""

import copy
import pickle
import re
import threading
from itertools import pairwise

import pytest
from definition import gpt2_words
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, bpe, cache, pattern
from tinygrad_llm.tokenizer import merge as merging

EOT = "<|endoftext|>"
TEXTS = st.text(alphabet="aabbc' \n\tsé1漢\x1c", max_size=60)


def naive(tokenizer, text):
    """The definition: words by `regex`, then the pair that was learned first, leftmost first."""
    ids = []
    for word in gpt2_words(text):
        parts = [bpe.BYTES.index(byte) for byte in word.encode()]
        while known := [(tokenizer.merges[p], at) for at, p in enumerate(pairwise(parts)) if p in tokenizer.merges]:
            made, at = min(known)
            parts[at : at + 2] = [made]
        ids += parts
    return ids


@st.composite
def any_merges(draw):
    """Lists that no training would learn: tokens that are never reached, two that spell the same."""
    made = [bpe.BYTES.index(byte) for byte in b"abc'"]
    merges = []
    for _ in range(draw(st.integers(0, 25))):
        pair = draw(st.sampled_from(made)), draw(st.sampled_from(made))
        if pair not in merges:
            made.append(256 + len(merges))
            merges.append(pair)
    return merges


@given(merges=any_merges(), texts=st.lists(TEXTS, max_size=4))
def test_any_list_of_merges_encodes_as_it_is_defined(merges, texts):
    tokenizer = Tokenizer(merges)
    for text in [*texts, *texts]:
        assert tokenizer.encode(text) == naive(tokenizer, text)


@given(corpus=TEXTS, texts=st.lists(TEXTS, max_size=4))
def test_learned_merges_encode_as_they_are_defined(corpus, texts):
    tokenizer = Tokenizer.train(corpus, 300)
    for text in [corpus, *texts]:
        assert tokenizer.encode(text) == naive(tokenizer, text)


@given(merges=any_merges(), text=st.text(alphabet="abc'", max_size=100))
def test_short_and_long_words_are_merged_alike(merges, text):
    table = Tokenizer(merges).merges
    word = text.encode().translate(bpe.BYTE_IDS)
    assert merging._merge_short(word, table) == merging._merge_long(word, table)


@given(corpus=st.text(alphabet="aab '", max_size=80))
def test_a_learned_token_is_reached_from_its_bytes_and_is_one_word(corpus):
    check_tokens(Tokenizer.train(corpus, 320, ()))


@pytest.mark.slow
def test_a_token_of_gpt2_is_reached_from_its_bytes_and_is_one_word():
    check_tokens(Tokenizer.gpt2())


def check_tokens(tokenizer):
    """What encoding relies on when it takes a word that spells a token for this token."""
    for token_id in range(256 + len(tokenizer.merges)):
        token = tokenizer.token_bytes(token_id)
        assert merging.merge(token.translate(bpe.BYTE_IDS), tokenizer.merges) == [token_id]


@given(texts=st.lists(TEXTS, max_size=6))
def test_a_cache_that_overflows_and_stretches_of_any_size_change_nothing(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "CACHE_SIZE", 50)
        patch.setattr(cache, "CACHED_LENGTH", 4)
        patch.setattr(pattern, "STRETCH", 5)
        tokenizer = Tokenizer.train("abab aab", 260)
        for text in texts:
            assert tokenizer.encode(text) == naive(tokenizer, text)


def test_the_cache_is_bounded_and_keeps_nothing_long(monkeypatch):
    monkeypatch.setattr(cache, "CACHE_SIZE", 1000)
    tokenizer = Tokenizer([])
    for number in range(1000):
        tokenizer.encode(f"word{number} {number}!")
        for known in (tokenizer._chunks, tokenizer._chunks.words):
            assert sum(16 + len(piece) + len(ids) for piece, ids in known.items()) <= 1000
    for known in (tokenizer._chunks, tokenizer._chunks.words):
        known.clear()
    tokenizer.encode("a" * (cache.CACHED_LENGTH + 1))
    assert not tokenizer._chunks
    assert set(tokenizer._chunks.words) == {"\n"}  # which parts one new chunk from the next


def test_threads_can_share_a_tokenizer(monkeypatch):
    monkeypatch.setattr(cache, "CACHE_SIZE", 300)  # so that they clear what another has just put in
    monkeypatch.setattr(pattern, "STRETCH", 50)
    shared = Tokenizer.gpt2()
    shared._chunks.words.tokens = {}  # refilling with 50,000 at each overflow would be most of the test
    text = " ".join(f"word{number % 37}ish it's {number}\n" for number in range(400))
    expected = naive(shared, text)
    wrong = []

    def work():
        wrong.extend(1 for _ in range(5) if shared.encode(text) != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_encodes_alike_and_carries_no_cache(again):
    tokenizer = Tokenizer.train("the cat sat on the other mat. " * 3, 300)
    size = len(pickle.dumps(tokenizer))
    ids = tokenizer.encode("the other cat")
    assert len(pickle.dumps(tokenizer)) == size
    other = again(tokenizer)
    assert other.encode("the other cat") == ids
    assert (other.merges, other.special_tokens, other.n_vocab) == (
        tokenizer.merges,
        tokenizer.special_tokens,
        tokenizer.n_vocab,
    )


# --- more ways in and out --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


def test_a_batch_is_each_text(gpt2):
    texts = ["Hello,", "", f"a{EOT}"]
    assert gpt2.encode_batch(texts, "all") == [[15496, 11], [], [64, 50256]]
    assert gpt2.encode_batch(iter(texts), disallowed_special=()) == [
        gpt2.encode(text, disallowed_special=()) for text in texts
    ]
    with pytest.raises(TokenizerError, match="special token"):
        gpt2.encode_batch(texts)
    with pytest.raises(TokenizerError, match="give a list"):
        gpt2.encode_batch("Hello")


@given(
    data=st.binary() | st.lists(st.sampled_from([b"a", b" the", b"\xff", "é".encode(), b"\xc3", b"\n"])).map(b"".join)
)
def test_any_bytes_come_back(gpt2, data):
    assert gpt2.decode_bytes(gpt2.encode_bytes(data)) == data


@given(text=TEXTS | st.text())
def test_the_bytes_of_a_text_have_the_ids_of_the_text(gpt2, text):
    assert gpt2.encode_bytes(text.encode()) == gpt2.encode(text, disallowed_special=())


def test_bytes_that_are_no_text_are_a_token_each(gpt2):
    def ids(*data):
        return [bpe.BYTE_IDS[byte] for byte in data]

    the = gpt2.encode(" the")
    assert gpt2.encode_bytes(b" the\xff\xfe the") == [*the, *ids(0xFF, 0xFE), *the]
    assert gpt2.encode_bytes("é".encode()[:1]) == ids(0xC3)
    assert gpt2.encode_bytes("\ud83d".encode(errors="surrogatepass")) == ids(0xED, 0xA0, 0xBD)
    assert 50256 not in gpt2.encode_bytes(EOT.encode())
    with pytest.raises(TokenizerError, match="not str"):
        gpt2.encode_bytes("text")


def test_all_256_bytes_and_a_long_run_of_wrong_ones_come_back(gpt2):
    for data in (bytes(range(256)), b"\xff\xc3" * 100_000, b"\xffa" * 100_000):
        assert gpt2.decode_bytes(gpt2.encode_bytes(data)) == data


@given(ids=st.lists(st.integers(0, 1000) | st.sampled_from([50256, *range(100, 256)]), max_size=20))
def test_an_offset_is_the_character_that_holds_the_first_byte(gpt2, ids):
    """The oracle cuts the bytes behind each token's first one: this byte is in the last character of what is left."""
    text, offsets = gpt2.decode_with_offsets(ids)
    assert text == gpt2.decode(ids)
    before = 0
    for token_id, offset in zip(ids, offsets, strict=True):
        data = gpt2.decode_bytes(ids)[: before + 1]
        assert offset == len(data.decode(errors="replace")) - 1
        before += len(gpt2.token_bytes(token_id))


def test_offsets_of_words_and_of_the_parts_of_an_emoji(gpt2):
    assert gpt2.decode_with_offsets([]) == ("", [])
    text, offsets = gpt2.decode_with_offsets(gpt2.encode("Hi 👩 there"))
    assert (text, offsets) == ("Hi 👩 there", [0, 2, 3, 4])
    assert gpt2.decode_with_offsets([50256, 64]) == (f"{EOT}a", [0, len(EOT)])


def test_offsets_in_bytes_that_are_no_text(gpt2):
    ids = list(b"\xed\xa1a\xf0\x9f\x91\xed".translate(bpe.BYTE_IDS))
    assert gpt2.decode_with_offsets(ids) == ("\ufffd\ufffda\ufffd\ufffd", [0, 1, 2, 3, 3, 3, 4])


def test_offsets_are_those_of_tiktoken(gpt2):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {gpt2.token_bytes(token_id): token_id for token_id in range(50256)}
    theirs = tiktoken.Encoding("gpt2", pat_str=bpe.PATTERN, mergeable_ranks=ranks, special_tokens={EOT: 50256})

    @given(text=TEXTS | st.text())
    def same(text):
        ids = gpt2.encode(text, disallowed_special=())
        assert gpt2.decode_with_offsets(ids) == theirs.decode_with_offsets(ids)

    same()


@given(word=st.text(max_size=12))
def test_an_explanation_begins_with_the_bytes_and_each_step_is_one_merge(gpt2, word):
    steps = gpt2.explain_word(word)
    assert steps[0] == list(word.encode().translate(bpe.BYTE_IDS))
    for before, after in pairwise(steps):
        assert len(after) == len(before) - 1
        assert gpt2.decode_bytes(after) == word.encode()
    if len(gpt2.split(word)) == 1:
        assert steps[-1] == gpt2.encode(word)


def test_a_text_is_split_before_it_is_merged(gpt2):
    assert gpt2.split("I'll  buy 12é!\n") == ["I", "'ll", " ", " buy", " 12", "é", "!", "\n"]
    with pytest.raises(TokenizerError, match="surrogate"):
        gpt2.split("\ud800")


def test_special_tokens_can_be_added(gpt2):
    longer = gpt2.with_special_tokens(["<|user|>", "<|end of turn|>"])
    assert longer.special_tokens == {EOT: 50256, "<|user|>": 50257, "<|end of turn|>": 50258}
    assert longer.n_vocab == 50259
    assert longer.encode("<|user|>Hello,<|end of turn|>", "all") == [50257, 15496, 11, 50258]
    assert longer.decode([50258, 11]) == "<|end of turn|>,"
    assert (gpt2.n_vocab, gpt2.special_tokens) == (50257, {EOT: 50256})
    for tokens, message in (
        ([EOT], "exists already, with id 50256"),
        (["a", "a"], "given twice"),
        ("ab", "give a list"),
    ):
        with pytest.raises(TokenizerError, match=re.escape(message)):
            gpt2.with_special_tokens(tokens)


def test_the_bytes_of_one_token(gpt2):
    assert gpt2.token_bytes(15496) == b"Hello"
    with pytest.raises(TokenizerError, match="unknown"):
        gpt2.token_bytes(50257)
