"""data/stories.txt is the output of its script, is correct English, and does not repeat itself."""

import importlib.util
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_stories.py"
SHIPPED = ROOT / "data" / "stories.txt"

spec = importlib.util.spec_from_file_location("make_stories", SCRIPT)
assert spec is not None
assert spec.loader is not None
make_stories = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_stories)

END = "\n<|endoftext|>\n"
TEXT = SHIPPED.read_bytes().decode("ascii")
STORIES = TEXT.removesuffix(END).split(END)
NAMES = dict.fromkeys(make_stories.NAMES_SHE, "she") | dict.fromkeys(make_stories.NAMES_HE, "he")
PRONOUNS = {**dict.fromkeys(("she", "her", "herself"), "she"), **dict.fromkeys(("he", "him", "his", "himself"), "he")}


def split_sentences(story: str) -> list[str]:
    return re.split(r"(?<=[.!?]) |(?<=[.!?]\") ", story)


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def share_of_distinct(items: Sequence[object]) -> float:
    return len(set(items)) / len(items)


def narration(story: str) -> str:
    """The story without the speech in it."""
    return " ".join(story.split('"')[::2])


def names_in_order(story: str) -> list[str]:
    return list(dict.fromkeys(word for word in re.findall(r"\w+", story) if word in NAMES))


def offenders(pattern: str) -> list[str]:
    return [found[0] for story in STORIES for found in re.finditer(pattern, story)][:5]


def test_the_shipped_file_is_the_output_of_the_script() -> None:
    assert make_stories.make().encode("ascii") == SHIPPED.read_bytes()


def test_the_seed_determines_the_stories() -> None:
    assert make_stories.make(seed=1, size=3000) == make_stories.make(seed=1, size=3000)
    assert make_stories.make(seed=1, size=3000) != make_stories.make(seed=2, size=3000)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function: the script's arguments → its exit status. Its stories are "a story"."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["make_stories.py", *map(str, arguments)])
        try:
            return make_stories.main()
        except SystemExit as stop:
            return stop.code

    monkeypatch.setattr(make_stories, "make", lambda seed: "a story")
    return run


def test_check_compares_and_writes_nothing(
    script: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stories.txt"
    assert script("--out", out) == 0
    assert out.read_bytes() == b"a story"
    assert script("--check", "--out", out) == 0
    out.write_bytes(b"another")
    assert script("--check", "--out", out) == 1
    assert str(out) in capsys.readouterr().err
    assert out.read_bytes() == b"another"


def test_a_missing_folder_costs_one_line(
    script: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("--out", tmp_path / "none" / "stories.txt") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_every_line_of_every_plot_can_be_filled() -> None:
    teller = make_stories.Teller(0)
    for plot in make_stories.PLOTS.values():
        drawn, *beats = make_stories.blocks(plot)
        words = teller.cast()
        teller.draw(drawn, words)
        for line in (line for beat in beats for line in beat):
            assert not re.search(r"[(){}|/]", teller.fill(line, words)), line


def test_format_is_ascii_stories_of_similar_length() -> None:
    assert 1_000_000 <= len(TEXT) <= 1_100_000
    assert TEXT.endswith(END)
    assert not re.search(r"[^ -~\n]", TEXT)
    assert len(set(STORIES)) == len(STORIES)
    assert all(50 <= len(story.split()) <= 125 for story in STORIES)


def test_vocabulary_is_small_but_not_tiny() -> None:
    words = Counter(re.findall(r"[a-z]+", TEXT.lower()))
    assert 1_000 <= len(words) <= 1_300
    assert sum(count == 1 for count in words.values()) <= 20


def test_sentences_are_not_repeated() -> None:
    sentences = [sentence for story in STORIES for sentence in split_sentences(story)]
    assert share_of_distinct(sentences) > 0.52
    long_ones = Counter(sentence for sentence in sentences if len(sentence.split()) > 8)
    assert max(long_ones.values()) < len(STORIES) / 50


@pytest.mark.parametrize(("n", "floor"), [(8, 0.65), (12, 0.85), (16, 0.94), (24, 0.99)])
def test_passages_are_not_repeated(n: int, floor: float) -> None:
    all_grams = [gram for story in STORIES for gram in grams(story.split(), n)]
    assert share_of_distinct(all_grams) > floor


def test_no_two_stories_share_half_their_passages() -> None:
    told = [set(grams(story.split(), 8)) for story in STORIES]
    where = defaultdict(list)
    for number, found in enumerate(told):
        for gram in found:
            where[gram].append(number)
    for number, found in enumerate(told):
        shared = Counter(other for gram in found for other in where[gram] if other != number)
        assert max(shared.values(), default=0) < len(found) / 2, STORIES[number]


def test_no_story_repeats_a_sentence() -> None:
    for story in STORIES:
        long_ones = [sentence for sentence in split_sentences(story) if len(sentence.split()) > 3]
        assert share_of_distinct(long_ones) == 1, story


def test_spaces_and_punctuation_are_correct() -> None:
    assert not offenders(r".?(?:  | [,.!?;:]|[,.!?;:]{2}|^ | $|[A-Za-z][,.!?;:][A-Za-z]).?")
    assert not offenders(r"[^A-Za-z ,.!?;:'\"-]")


def test_a_and_an_are_correct() -> None:
    assert not offenders(r"(?i)\ba (?:[aeiou]|hour|honest)\w*")
    assert not offenders(r"(?i)\ban (?!hour|honest)[^aeiou]\w*")


def test_no_word_is_doubled() -> None:
    assert not offenders(r"(?i)\b(\w+) \1\b")


def test_capitals_are_correct() -> None:
    known = {*NAMES, "I", "Mama", "Papa", "Grandma", "Grandpa", "Auntie"}
    known |= {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
    for story in STORIES:
        assert all(re.match(r'"?[A-Z]', part) for part in re.split(r'(?<=\.) |(?<=\.") ', story)), story
        inside = re.findall(r"(?<=[a-z,;:] )[A-Z][a-z]*|(?<=,\" )[A-Z][a-z]*", story)
        assert set(inside) <= known, set(inside) - known


def test_quotes_are_balanced() -> None:
    for story in STORIES:
        parts = story.split('"')
        assert len(parts) % 2 == 1, story
        for before, said in zip(parts[0::2], parts[1::2], strict=False):
            assert before == "" or before.endswith(" "), story
            assert re.fullmatch(r"[A-Z].*[.,!?]" if not before.endswith(", ") else r"\w.*[.,!?]", said), said
        for said, after in zip(parts[1::2], parts[2::2], strict=True):
            assert after == "" or after.startswith(" "), story
            assert not said.endswith(",") or re.match(r" \w", after), story


def test_every_sentence_ends() -> None:
    assert all(re.search(r"[.!?]\"?$", story) for story in STORIES)
    assert max(len(sentence.split()) for story in STORIES for sentence in split_sentences(story)) < 45


def test_the_hero_is_the_same_to_the_end() -> None:
    for story in STORIES:
        sentences = split_sentences(story)
        names = names_in_order(story)
        assert names_in_order(" ".join(sentences[:2]))[:1] == names[:1], story
        assert 1 <= len(names) <= 2, story
        ending = re.findall(r"\w+", " ".join(sentences[-(len(sentences) // 3) :]))
        meant = {PRONOUNS.get(word.lower()) for word in ending}
        assert names[0] in ending or NAMES[names[0]] in meant, story
        # the friend, if there is one, has the other pronoun
        assert len({NAMES[name] for name in names}) == len(names), story


def test_pronouns_agree_with_the_hero() -> None:
    for story in STORIES:
        hero, *friend = names_in_order(story)
        alone = narration(story.split(friend[0])[0] if friend else story)
        used = {PRONOUNS[word] for word in re.findall(r"\w+", alone.lower()) if word in PRONOUNS}
        assert used <= {NAMES[hero]}, story
    assert sum(len(names_in_order(story)) == 1 for story in STORIES) > len(STORIES) / 10


def test_girls_and_boys_have_matching_names() -> None:
    before = re.findall(r"(girl|boy) (?:named|called) ([A-Z]\w+)", TEXT)
    after = re.findall(r"([A-Z]\w+)(?: was|,) an? (?:\w+ )+?(girl|boy)\b", TEXT)
    pairs = {*before, *((kind, name) for name, kind in after)}
    assert {name for _, name in pairs} >= NAMES.keys()
    assert all({"girl": "she", "boy": "he"}[kind] == NAMES[name] for kind, name in pairs if name in NAMES)
