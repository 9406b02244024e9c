"""`train --model translator` and `translate`: from pairs to a translation, a picture, and one line for each mistake."""

import contextlib
import io
import json

import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.models import TranslatorConfig
from tinygrad_llm.runs.presets import PRESETS

NUMBERS = ("one", "two", "three", "four", "five")
SAYING = "".join(f"say {n}\t{n} said\n" for n in NUMBERS)
PAIRS = "left\tright\n" + SAYING * 3 + "".join(f"{v} {n}\t{n} {v}\n" for v in ("see", "take", "hide") for n in NUMBERS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A saved run of a tiny translator that has learned very little. Tests do not change it."""
    folder = tmp_path_factory.mktemp("translator")
    (folder / "pairs.tsv").write_text(PAIRS)
    sizes = ["n_embd=8", "n_head=2", "n_layer=1", "vocab_size=290", "block_size=12", "batch_size=4", "warmup=1"]
    command = ["train", "--model", "translator", "--pairs", str(folder / "pairs.tsv"), "--out", str(folder / "run")]
    command += ["--steps", "2", "--workers", "1", *(word for size in sizes for word in ("--set", size))]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(command) == 0
    assert "\n1 test sentences: greedy 0.0% exact, BLEU" in out.getvalue()
    assert ". It translates:\n" in out.getvalue()
    assert json.loads((folder / "run" / "results.json").read_text()).keys() == {"sentences", "greedy", "beam"}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["train", "--resume", str(folder / "run"), "--steps", "1", "--json"]) == 0
    assert json.loads(out.getvalue())["test"]["sentences"] == 1
    return folder / "run"


def test_a_sentence_a_file_and_stdin_are_translated_alike(cli, run, place, monkeypatch):
    status, out, err = cli("translate", run, "say one")
    assert (status, err) == (0, "")
    (place / "lines.txt").write_text("say one\n\nhide two\n")
    status, lines, _ = cli("translate", run, "--file", "lines.txt", "--json")
    assert [json.loads(line)["text"] for line in lines.splitlines()] == ["say one", "hide two"]
    assert json.loads(lines.splitlines()[0])["translation"] == out.removesuffix("\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"say one\nhide two\n")))
    assert cli("translate", run, "-")[1].splitlines() == [json.loads(x)["translation"] for x in lines.splitlines()]
    assert cli("translate", run, "say one", "--beam", 3)[0] == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], (1, 0.6)), (["--beam", 3], (3, 0.6)), (["--beam", 3, "--length-penalty", 0], (3, 0.0))],
)
def test_the_options_of_a_beam_reach_the_search(cli, run, monkeypatch, options, expected):
    asked = []
    monkeypatch.setattr(
        "tinygrad_llm.cli.translate.translate", lambda model, tokenizer, texts, *how, names: asked.append(how) or ["x"]
    )
    assert cli("translate", run, "say one", *options)[0] == 0
    assert asked == [expected]
    monkeypatch.setattr("tinygrad_llm.cli.translate.translate", lambda *_, **more: ["grün"])
    assert cli("translate", run, "über", "--json")[1] == '{"text": "über", "translation": "grün"}\n'


def test_the_attention_is_drawn_in_words(cli, run, place, monkeypatch):
    drawn = {}
    monkeypatch.setattr("tinygrad_llm.cli.translate.save_figure", lambda figure, path: drawn.update({path: figure}))
    monkeypatch.setattr("tinygrad_llm.cli.translate.attention_map", lambda *looks: looks)
    monkeypatch.setattr("tinygrad_llm.cli.translate.translate", lambda *_, **options: ["one said."])
    status, _, err = cli("translate", run, "say one, two.", "--attention", "a.png")
    assert (status, err) == (0, "drawn: a.png\n")
    ((source, target, weights),) = drawn.values()
    assert source == ["say", "one", ",", "two", ".", "end"]
    assert target == ["one", "said", "."]
    assert weights.shape == (3, 6)
    assert weights.sum(axis=1) == pytest.approx(1)
    monkeypatch.setattr("tinygrad_llm.cli.translate.translate", lambda *_, **options: ["one " * 50])  # never ended
    assert cli("translate", run, "say one", "--attention", "a.png")[0] == 0
    monkeypatch.setattr("tinygrad_llm.cli.translate.translate", lambda *_, **options: [""])
    status, _, err = cli("translate", run, "say one", "--attention", "a.png")
    assert (status, "the translation is empty" in err) == (2, True)


def test_a_picture_is_a_png(cli, run, place, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("tinygrad_llm.cli.translate.translate", lambda *_, **options: ["one said"])
    assert cli("translate", run, "say one", "--attention", "a.png")[0] == 0
    assert (place / "a.png").read_bytes().startswith(b"\x89PNG")
    message = f"tinygrad-llm translate: --attention: {place}: cannot be replaced: it is not a regular file\n"
    assert cli("translate", run, "say one", "--attention", place) == (2, "", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a sentence, - for the lines of stdin, or --file FILE"),
        ([" "], "there is no sentence"),
        (["say one", "--file", "lines.txt"], "give a sentence, - for"),
        (["--file", "lines.txt", "--attention", "a.png"], "--attention: draws one sentence"),
        (["say one", "--length-penalty", "1"], "--length-penalty: is for a beam, and --beam is 1: give --beam 4"),
        (
            ["say one", "--beam", "2", "--length-penalty", "-1"],
            "--length-penalty: must be finite and at least 0, got -1",
        ),
        (["say one", "--beam", "0"], "--beam: got '0', but it must be an integer from 1 to 100"),
        (["one two three four five six seven"], "the sentence has"),
        (["--file", "lines.txt"], "lines.txt: line 2 has"),
        (["--file", "latin.txt"], "latin.txt: not UTF-8 text"),
    ],
)
def test_bad_input_is_one_line(refused, run, place, arguments, message):
    (place / "lines.txt").write_text("say one\none two three four five six seven\n")
    (place / "latin.txt").write_bytes("Gänse".encode("latin-1"))
    assert message in refused("translate", run, *arguments)


def test_another_kind_of_folder_is_named(cli, refused, run, runs, place):
    assert cli("convert", runs["stories"], "gpt2", "--to", "huggingface")[0] == 0
    for command, folder, message in [
        (
            ["translate", "a sentence"],
            "gpt2",
            "'tinygrad_llm.Translator' is needed, and this file is of another program",
        ),
        (
            ["convert", "out", "--to", "huggingface"],
            run,
            "huggingface cannot hold the model translator: choose safetens",
        ),
        (["finetune", "--resume"], run, "this run is no fine-tuning: use `tinygrad-llm train --resume`"),
        (["train", "--corpus", "stories", "--resume"], run, "--corpus: a translator learns from pairs: give --pairs"),
        (["translate", "a sentence"], runs["stories"], "'tinygrad_llm.GPT', and 'tinygrad_llm.Translator' is needed"),
        (["generate"], run, "'tinygrad_llm.Translator', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm translate`"),
    ]:
        words = [*command, folder] if command[-1] == "--resume" else [command[0], folder, *command[1:]]
        assert message in refused(*words)
    assert cli("convert", run, "copy")[0] == 0
    assert cli("translate", "copy", "say one")[1] == cli("translate", run, "say one")[1]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("left\nsay one\n", [], "pairs.tsv: line 1: must name two columns"),
        (PAIRS + "say one\n", [], "pairs.tsv: line 32: ends after column 1, and the target is in column 2 (right)"),
        (PAIRS + "say one\t\n", [], "pairs.tsv: line 32: the target is empty"),
        (PAIRS, ["--to", "rihgt"], "has no column 'rihgt': did you mean right?"),
        (PAIRS.encode() + b"G\xe4nse\tgeese\n", [], "pairs.tsv: not UTF-8 text"),
        (
            PAIRS,
            ["--set", "block_size=2", "--set", "vocab_size=260"],
            "sentences longer than the 2 tokens that the model reads: ",
        ),
        ("a\tb\n" + "x\ty\n" * 30, [], "pairs.tsv: got 1 different sentences, too few"),
        (PAIRS, ["--corpus", "stories"], "--corpus: a translator learns from pairs: give --pairs FILE.tsv"),
        (
            PAIRS,
            ["--init", "x"],
            "data.init: only a gpt starts from other weights, not the model translator: leave it out",
        ),
        (PAIRS, ["--from", "right"], "source and target are both the column 'right': name two of left, right"),
        (PAIRS, ["--set", "corpus=x.txt"], "data.corpus: has no effect on the model translator: leave it out"),
        (PAIRS, ["--keep-newlines"], "data.keep_newlines: has no effect on the model translator: leave it out"),
        (PAIRS, ["--set", "stride=4"], "training.stride: has no effect on the model translator: leave it out"),
        (PAIRS, ["--set", "recompute=true"], "training.recompute: has no effect on the model translator: leave it out"),
        (PAIRS, ["--set", "n_head=3"], "n_embd (128) must be a multiple of n_head (3)"),
        (
            PAIRS,
            ["--set", "initializer_range=0.1"],
            "model.initializer_range: is not a setting of the model translator",
        ),
        (PAIRS, ["--preset", "char-cpu"], "--model translator: char-cpu is a preset of gpt: take translator-tiny"),
    ],
)
def test_bad_pairs_end_a_training_before_it_begins(refused, place, text, options, message):
    (place / "pairs.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    command = ["train", "--model", "translator", "--pairs", "pairs.tsv", "--steps", 1, "--out", "new"]
    assert message in refused(*command, *options)
    assert not (place / "new").exists()


def test_pairs_are_for_a_translator(cli, place):
    for option in (["--pairs", "x.tsv"], ["--from", "english"], ["--to", "german"]):
        status, _, err = cli("train", *option, "--out", "new")
        assert (status, f"{option[0]}: is for --model translator" in err) == (2, True)


def test_the_presets_have_the_sizes_they_state():
    sizes = PRESETS["transformer-base"].model
    assert sizes == TranslatorConfig(37_000, 256, 6, 8, 512, 0.1)
    assert f"{sizes.num_parameters / 1e6:.0f} M" in PRESETS["transformer-base"].about
    training = PRESETS["transformer-base"].training
    for step in (0, 3999, 99_999):
        paper = 512**-0.5 * min((step + 1) ** -0.5, (step + 1) * 4000**-1.5)
        assert training.learning_rate(step) == pytest.approx(paper, rel=1e-3)
