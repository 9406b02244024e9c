"""data/translations.tsv.gz is the output of its script, and its sentences agree in gender, number, case and order."""

import gzip
import re
from collections import Counter

import make_translations as script
import pytest

TEXT = gzip.decompress(script.SHIPPED.read_bytes()).decode()
ROWS = [tuple(line.split("\t")) for line in TEXT.splitlines()]
NOUNS = {name: noun for group in script.NOUNS.values() for noun in group for name in [noun.english[0]]}
ADJECTIVES = {a.english: a for group in script.ADJECTIVES.values() for a in group}


def test_the_shipped_file_is_the_output_of_the_script():
    assert script.make() == TEXT


def test_the_seed_determines_the_sentences():
    assert script.make_rows(1, 50) == script.make_rows(1, 50) != script.make_rows(2, 50)


def test_there_are_ten_thousand_different_sentences_of_every_kind():
    header, *rows = ROWS
    assert header == ("english", "german", "french")
    assert len(rows) == len({row[0] for row in rows}) == 10_000
    assert all(len(row) == 3 and all(part and part == part.strip() for part in row) for row in rows)
    starts = Counter(german.split()[0] for _, german, _ in rows)
    assert {"Heute", "Gestern", "Hat", "Der", "Eine", "Mein", "Zwei"} <= set(starts)
    assert sum(", weil " in row[1] for row in rows) > 1_000
    assert sum(" nicht" in row[1] for row in rows) == sum(" not " in row[0] for row in rows) > 1_000
    assert sum(row[1].endswith("?") for row in rows) == sum(row[2].endswith(" ?") for row in rows) > 1_000
    assert script.SHIPPED.stat().st_size < 450_000


def phrase(article, plural, adjectives, noun):
    return script.Phrase(article, plural, [ADJECTIVES[a] for a in adjectives.split()], NOUNS[noun])


# (article, plural, adjectives, noun) → English; German in the nominative, accusative, dative; French, and after à.
PHRASES = [
    (("the", False, "little red", "ball"), "the little red ball", "der kleine rote Ball", "den kleinen roten Ball",
     "dem kleinen roten Ball", "le petit ballon rouge", "au petit ballon rouge"),
    (("a", False, "old", "owl"), "an old owl", "eine alte Eule", "eine alte Eule", "einer alten Eule",
     "une vieille chouette", "à une vieille chouette"),
    (("my", False, "good", "horse"), "my good horse", "mein gutes Pferd", "mein gutes Pferd", "meinem guten Pferd",
     "mon bon cheval", "à mon bon cheval"),
    (("this", False, "old", "squirrel"), "this old squirrel", "dieses alte Eichhörnchen", "dieses alte Eichhörnchen",
     "diesem alten Eichhörnchen", "ce vieil écureuil", "à ce vieil écureuil"),
    (("the", False, "", "bear"), "the bear", "der Bär", "den Bären", "dem Bären", "l'ours", "à l'ours"),
    (("this", False, "", "bear"), "this bear", "dieser Bär", "diesen Bären", "diesem Bären", "cet ours", "à cet ours"),
    (("my", False, "", "goose"), "my goose", "meine Gans", "meine Gans", "meiner Gans", "mon oie", "à mon oie"),
    (("the", False, "", "hedgehog"), "the hedgehog", "der Igel", "den Igel", "dem Igel", "le hérisson", "au hérisson"),
    (("a", True, "beautiful blue", "hat"), "beautiful blue hats", "schöne blaue Hüte", "schöne blaue Hüte",
     "schönen blauen Hüten", "de beaux chapeaux bleus", "à de beaux chapeaux bleus"),
    (("a", True, "tired", "mouse"), "tired mice", "müde Mäuse", "müde Mäuse", "müden Mäusen", "des souris fatiguées",
     "à des souris fatiguées"),
    (("the", True, "", "child"), "the children", "die Kinder", "die Kinder", "den Kindern", "les enfants",
     "aux enfants"),
    (("my", True, "happy", "horse"), "my happy horses", "meine glücklichen Pferde", "meine glücklichen Pferde",
     "meinen glücklichen Pferden", "mes chevaux heureux", "à mes chevaux heureux"),
    (("two", True, "young", "boy"), "two young boys", "zwei junge Jungen", "zwei junge Jungen", "zwei jungen Jungen",
     "deux jeunes garçons", "à deux jeunes garçons"),
    (("a", False, "new", "umbrella"), "a new umbrella", "ein neuer Regenschirm", "einen neuen Regenschirm",
     "einem neuen Regenschirm", "un nouveau parapluie", "à un nouveau parapluie"),
    (("this", True, "new", "egg"), "these new eggs", "diese neuen Eier", "diese neuen Eier", "diesen neuen Eiern",
     "ces nouveaux œufs", "à ces nouveaux œufs"),
]  # fmt: skip


@pytest.mark.parametrize("row", PHRASES, ids=lambda row: row[1])
def test_phrases_agree(row):
    drawn = phrase(*row[0])
    found = [drawn.english(), *(drawn.german(case) for case in range(3)), drawn.french(), drawn.french(to=True)]
    assert found == list(row[1:])


def test_a_german_verb_is_second_and_last_after_weil():
    finite = {
        form
        for group in (script.DO_IT_VERBS, script.GIVE_VERBS, script.DO_VERBS)
        for v in group
        for form in v.german[:2]
    }
    finite |= {"hat", "haben", "will", "wollen", "kann", "können", "muss", "müssen", "ist", "sind", "war", "waren"}
    prefixed = {v.prefix + form for v in script.DO_IT_VERBS for form in v.german[:2]}
    times = sorted((words for table in script.TIMES.values() for _, words, _ in table), key=len, reverse=True)
    for _, german, _ in ROWS[1:]:
        main, _, reason = german[:-1].partition(", weil ")
        if reason:
            assert reason.split()[-1] in finite | prefixed, german
        lowered = main[0].lower() + main[1:]
        time = next((t for t in times if main.lower().startswith(t.lower() + " ")), None)
        if german.endswith("?"):
            assert lowered.split()[0] in finite, german
        elif time:
            assert main[len(time) + 1 :].split()[0] in finite, german
        else:
            assert sum(word in finite for word in main.split()[1:6]) >= 1, german


def test_french_words_elide_before_vowels_alone():
    vowel = f"[{script.VOWELS}]"
    for _, _, french in ROWS[1:]:
        assert not re.search(rf"(?i)\b(le|la|ce|de|que|ne|ma) {vowel}", french), french
        assert not re.search(rf"(?i)\b[lnmd]'(?!{vowel})", french), french
        assert "à le " not in french
        assert "à les " not in french


def test_every_word_of_the_grammar_is_used_and_no_english_article_is_wrong():
    text = " ".join(row[0] for row in ROWS).lower()
    seen = set(re.findall(r"\w+", text))
    assert {word for noun in NOUNS.values() for word in noun.english} | set(ADJECTIVES) <= seen
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_the_program_compares_and_names_a_file_that_it_cannot_write(tmp_path, monkeypatch, capsys):
    out = tmp_path / "few.tsv"
    call = ["make_translations.py", "--out", str(out), "--size", "20"]
    for more, status in [([], 0), (["--check"], 0), (["--seed", "3", "--check"], 1)]:
        monkeypatch.setattr("sys.argv", call + more)
        assert script.main() == status
    assert len(out.read_text(encoding="utf-8").splitlines()) == 21
    monkeypatch.setattr("sys.argv", [*call[:2], str(tmp_path / "no" / "x.tsv")])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "give another --out" in capsys.readouterr().err
