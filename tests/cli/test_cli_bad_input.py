"""Every mistake of a user gives one line on stderr and exit status 2, and changes nothing on disk."""

import os
import subprocess
import sys

import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.tokenizer import CharTokenizer, load_tokenizer

# Mistake: (arguments, a part of the message). {…} are the files that `files` creates.
MISTAKES = {
    "an empty file": ("train --corpus {empty} --out new", "empty.txt: the file is empty"),
    "a file of spaces": ("train --corpus {blank} --out new", "blank.txt: the file is empty"),
    "a file that is not UTF-8": ("train --corpus {latin} --out new", "not UTF-8 text (byte 0xe9 at position 3)"),
    "a text shorter than a block": ("train --corpus {short} --out new", "short.txt: its training part has 45 tokens"),
    "a text of one character": ("train --corpus {one} --out new", "one.txt: its training part has 0 tokens"),
    "a short text and byte pairs": ("train --corpus {short} --preset stories --out new", "short.txt: its"),
    "an unknown preset": ("train --preset huge --out new", "unknown preset 'huge': there are char-cpu, stories"),
    "an unknown corpus": ("train --corpus shakespear --out new", "shakespear: no such file, and no such corpus"),
    "a folder as corpus": ("train --corpus {run} --out new", "cannot be read: Is a directory"),
    "--out that is a file": ("train --corpus {text} --out {text}", "text.txt: is a file"),
    "--out below a file": ("train --corpus {text} --out {text}/new", "text.txt: is a file"),
    "--out that is a link to nothing": (
        "train --corpus {text} --out {link}", "is a link to a missing folder: choose another --out",
    ),
    "--out with a folder in the place of a file": (
        "train --corpus {text} --out {blocked}", "metrics.jsonl: is a folder, but the run writes a file of this name",
    ),
    "no newline and no end of text to begin with": (
        "generate {wordless}", "this model has no end-of-text token and no newline to start from: give a --prompt",
    ),
    "no newline and no end of text to score from": (
        "eval {wordless} --next=", "this model has no end-of-text token and no newline to start from: give --next a",
    ),
    "a checkpoint that is a word": (
        "generate {run} --checkpoint worst", "got 'worst', but it must be best, last or the number of a step",
    ),
    "a start for a resumed run": ("train --resume {run} --init {run}", "--init is for a new run: a resumed"),
    "a preset for a resumed run": ("train --resume {run} --preset stories", "leave out --model, --preset and --config"),
    "two texts to train on": ("train --corpus {text} --data a.bin --out new", "not both"),
    "one setting twice": (
        "train --corpus {text} --out new --set seed=1 --set training.seed=2",
        "--set seed=1 and --set training.seed=2 set the same key: give it once",
    ),
    "pairs for a model of text": ("train --pairs {text} --out new", "--pairs: is for --model translator"),
    "columns for a model of text": ("train --corpus {text} --from a --out new", "--from: is for --model translator"),
    "a text for a translator": (
        "train --model translator --val a.bin --out new", "--val: a translator learns from pairs: give --pairs",
    ),
    "a source for a public text": ("download sms-spam --from openai --out new", "--from is for a GPT-2: sms-spam has"),
    "--out that holds a run": ("train --corpus {text} --out {run}", "already holds a run"),
    "no --out": ("train --corpus {text}", "--out"),
    "no steps": ("train --corpus {text} --steps 0 --out new", "got '0', but it must be an integer of at least 1"),
    "half a step": ("train --corpus {text} --steps 0.5 --out new", "got '0.5', but it must be an integer"),
    "no workers": ("train --corpus {text} --workers 0 --out new", "--workers"),
    "a negative seed": ("train --corpus {text} --seed -1 --out new", "--seed"),
    "a seed of 33 bits": ("train --corpus {text} --seed 4294967296 --out new", "an integer from 0 to 4294967295"),
    "a setting of 33 bits": ("train --corpus {text} --set seed=4294967296 --out new", "training.seed: must be at most"),
    "a seed of 64 bits": ("generate {run} --prompt a --seed 9223372036854775808", "got '9223372036854775808', but it"),
    "a sample of 33 bits": ("generate {run} --prompt a --seed 4294967295 --samples 2", "the last seed would be 42949"),
    "newlines of an argument": ("tokenizer encode text --keep-newlines", "--keep-newlines are for files: add --out"),
    "newlines of next tokens": ("eval {run} --next a --keep-newlines", "--keep-newlines is for a FILE to score"),
    "a style of a file": ("eval {run} {text} --style alpaca", "--style is for --instructions FILE"),
    "a style of next tokens": ("eval {run} --next a --max-new-tokens 3", "--max-new-tokens is for --instructions"),
    "a fine-tuning of 33 bits": ("finetune --resume {run} --seed 4294967296", "an integer from 0 to 4294967295"),
    "a demo of 33 bits": ("demo --seed 4294967296 --out new", "an integer from 0 to 4294967295"),
    "a gradcheck of 33 bits": ("gradcheck tanh --seed 4294967296", "an integer from 0 to 4294967295"),
    "an explanation of 33 bits": ("explain tanh --seed 4294967296", "an integer from 0 to 4294967295"),
    "a demo in a file": ("demo --out {text}", "text.txt: is a file"),
    "a demo over a run": ("demo --out {run}", "already holds a run"),
    "a prompt longer than the block": (
        "generate {run} --no-crop --prompt " + "a" * 17,
        "the prompt has 17 tokens, and the model reads at most 16 of it: shorten it, or leave --no-crop out",
    ),
    "a text longer than the block": ("eval {run} --no-crop --next " + "a" * 17, "the text has 17 tokens, and"),
    "a forbidden text that is empty": ("generate {run} --forbid= ", "--forbid: got an empty text"),
    "a forbidden character that is unknown": ("generate {run} --forbid é", "--forbid é: character '\\xe9'"),
    "an unknown character": ("generate {run} --prompt caté", "character '\\xe9' at position 3"),
    "half a surrogate pair": ("generate {pairs} --prompt \udcff", "surrogate"),
    "the end of text in a prompt": ("generate {pairs} --prompt a<|endoftext|>", "add --allow-special"),
    "a temperature below 0": ("generate {run} --prompt a --temperature -1", "temperature must be ≥ 0"),
    "a temperature of NaN": ("generate {run} --prompt a --temperature nan", "temperature must be ≥ 0"),
    "no samples": ("generate {run} --prompt a --samples 0", "--samples: got '0'"),
    "an empty stop string": ("generate {pairs} --prompt a --stop= ", "--stop: got an empty text"),
    "no penalty": ("generate {run} --prompt a --repetition-penalty 0", "repetition_penalty must be finite and above 0"),
    "top-k 0": ("generate {run} --prompt a --top-k 0", "top_k must be ≥ 1"),
    "top-p 0": ("generate {run} --prompt a --top-p 0", "top_p must lie in (0, 1]"),
    "a negative number of tokens": ("generate {run} --prompt a --max-new-tokens -1", "--max-new-tokens"),
    "a folder without a model": ("generate {folder} --prompt a", "model.safetensors is missing"),
    "a folder that is not there": ("generate nowhere --prompt a", "nowhere: no model here"),
    "a damaged model": ("generate {damaged} --prompt a", "model.safetensors: data:"),
    "a text for a model": ("generate {text} --prompt a", "text.txt: text, it begins with"),
    "a run without its tokenizer": ("generate {lonely} --prompt a", "tokenizer.json is missing"),
    "a tokenizer of another run": ("generate {mixed} --prompt a", "they do not belong together"),
    "a permuted tokenizer of the same size": (
        "generate {permuted} --prompt a", "tokenizer.json is not the one that the run was trained with",
    ),
    "a permuted tokenizer to score with": (
        "eval {permuted} {text}", "tokenizer.json is not the one that the run was trained with",
    ),
    "a permuted tokenizer from elsewhere": (
        "eval {run} {text} --tokenizer {permuted}/tokenizer.json", "is not the one that the run was trained with",
    ),
    "a permuted tokenizer to convert": (
        "convert {permuted} {permuted}-new", "tokenizer.json is not the one that the run was trained with",
    ),
    "a flipped weight": ("eval {flipped} --next a", "model.safetensors: sha256: should be"),
    "an id outside the vocabulary": ("tokenizer decode 15496 50257", "token id 50257 is unknown"),
    "a negative id": ("tokenizer decode -- -1", "token id -1 is unknown"),
    "an id that is not a number": ("tokenizer decode 1 two", "ids must be whole numbers"),
    "an id outside a run's": ("tokenizer decode --tokenizer {run} 999", "token id 999 is unknown"),
    "the end of text to encode": ("tokenizer encode a<|endoftext|>", "add --allow-special"),
    "an unknown tokenizer": ("tokenizer encode --tokenizer gpt5 a", "gpt5: cannot be read"),
    "a text for a tokenizer": ("tokenizer encode --tokenizer {text} a", "text.txt: not a JSON file"),
    "too small a vocabulary": ("tokenizer train {text} --vocab-size 200 --out new.json", "vocab_size is 200"),
    "a tokenizer over another": ("tokenizer train {text} --out {tokenizer}", "exists already"),
    "a tokenizer below a file": ("tokenizer train {text} --out {text}/new.json", "text.txt"),
    "a tokenizer of an empty text": ("tokenizer train {empty} --out new.json", "empty.txt: the file is empty"),
    "an unknown kernel": ("gradcheck tanh tahn", "nothing is named 'tahn': did you mean tanh"),
    "an unknown command": ("trian", "got 'trian': did you mean train?"),
    "an unknown action": ("bench decoder", "got 'decoder': did you mean decode?"),
    "no command": ("", "COMMAND"),
    "no action": ("tokenizer", "ACTION"),
    "an unknown option": ("doctor --jsn", "doctor: unknown option --jsn: did you mean --json?"),
    "an unknown option with a value": ("train --stepz=3", "unknown option --stepz: did you mean --steps?"),
    "an unknown option of an action": ("tokenizer stats x --tpo 3", "unknown option --tpo: did you mean --top?"),
    "an unknown choice": ("gradcheck --method complix", "--method: got 'complix': did you mean complex?"),
    "too many arguments": ("eval {run} {text} {text}", "got more than it takes: "),
    "an argument of two lines": ("doctor one\ntwo", "one two"),
}  # fmt: skip


@pytest.fixture
def files(place, runs, text_file):
    def run(name, *without):
        folder = place / name
        folder.mkdir()
        for path in runs["char-cpu"].iterdir():
            if path.is_file() and path.name not in without:
                (folder / path.name).write_bytes(path.read_bytes())
        return folder

    texts = {"empty": b"", "blank": b" \n\n", "latin": b"caf\xe9", "short": b"fifty char" * 5, "one": b"x"}
    made = {name: place / f"{name}.txt" for name in texts}
    for name, data in texts.items():
        made[name].write_bytes(data)
    made |= {"text": text_file, "run": run("run"), "pairs": runs["stories"], "folder": place / "folder"}
    made["folder"].mkdir()
    made["damaged"] = run("damaged")
    model = made["damaged"] / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    made["lonely"] = run("lonely", "tokenizer.json")
    made["mixed"] = run("mixed")
    CharTokenizer("abc").save(made["mixed"] / "tokenizer.json")
    made["permuted"] = run("permuted")
    CharTokenizer(load_tokenizer(made["permuted"]).characters[::-1]).save(made["permuted"] / "tokenizer.json")
    made["flipped"] = run("flipped")
    weights = bytearray((made["flipped"] / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (made["flipped"] / "model.safetensors").write_bytes(weights)
    made["link"] = place / "link"
    made["link"].symlink_to("missing")
    made["blocked"] = place / "blocked"
    (made["blocked"] / "metrics.jsonl").mkdir(parents=True)
    made["wordless"] = place / "wordless"
    GPT(GPTConfig(vocab_size=3, n_layer=1, n_head=1, n_embd=4, block_size=8)).save_pretrained(made["wordless"])
    CharTokenizer("abc").save(made["wordless"] / "tokenizer.json")
    made["tokenizer"] = made["run"] / "tokenizer.json"
    return made


def arguments(template, files):
    return [word.format(**files) for word in template.split(" ") if word]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_one_line(mistake, refused, files, snapshot, tmp_path, request):
    template, message = MISTAKES[mistake]
    if "over a run" not in mistake and "shorter than a block" not in mistake:
        request.getfixturevalue("toys")  # so that an unnoticed mistake does not train for minutes
    before = snapshot(tmp_path)
    assert message in refused(*arguments(template, files))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("mistake", ["a damaged model", "an unknown command"])
def test_a_mistake_costs_one_line_in_a_shell_too(mistake, files, snapshot, tmp_path):
    before = snapshot(tmp_path)
    command = [sys.executable, "-m", "tinygrad_llm", *arguments(MISTAKES[mistake][0], files)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert MISTAKES[mistake][1] in done.stderr
    assert done.stdout == ""
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    "template",
    [
        "train --corpus /dev/zero --out new",
        "train --data /dev/zero --tokenizer {run} --set dtype=uint16 --out new",
        "train --config /dev/zero --out new",
        "train --corpus {text} --tokenizer /dev/zero --out new",
        "sweep /dev/zero --out new",
        "eval {run} /dev/zero",
        "eval {pairs} /dev/zero",
        "eval {run} --choices /dev/zero",
        "eval {run} {text} --tokenizer /dev/zero",
        "generate /dev/zero",
        "convert /dev/zero new",
        "tokenizer train /dev/zero --out new",
        "tokenizer encode /dev/zero --out new",
        "tokenizer stats /dev/zero",
        "tokenizer stats /dev/zero --tokenizer {run}",
        "tokenizer decode /dev/zero --dtype uint16",
    ],
)
def test_a_device_without_an_end_is_not_read_to_its_end(template, refused, files, tmp_path, snapshot):
    before = snapshot(tmp_path)
    assert "/dev/zero" in refused(*arguments(template, files))
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("toys")
def test_a_read_only_folder_is_refused_before_training(cli, place, text_file, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    status, _, err = cli("train", "--corpus", text_file, "--out", "new")
    assert status == 2
    assert "cannot be written to" in err
    assert not list(place.iterdir())


def test_a_bug_keeps_its_traceback(cli, monkeypatch):
    def broken():
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("tinygrad_llm.bench.machine.facts", broken)
    with pytest.raises(ZeroDivisionError):
        cli("doctor")
