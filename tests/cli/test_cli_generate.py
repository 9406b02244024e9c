"""`tinygrad-llm generate`: the text that a seed gives, streamed and in JSON."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from chat_models import save_alphabet

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import MAX_SEED, Generator
from tinygrad_llm.tokenizer import load_tokenizer
from tinygrad_llm.weights import tokenizer_for, write_pretrained


def generate(runs, preset="char-cpu", *more):
    return ["generate", runs[preset], "--max-new-tokens", 40, *more]


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_seed_decides_the_text_and_json_holds_the_same(preset, cli, runs):
    results = [cli(*generate(runs, preset, "--prompt", "The cat", "--seed", seed)) for seed in (1, 1, 2)]
    assert [status for status, _, _ in results] == [0, 0, 0]
    assert results[0] == results[1] != results[2]
    _, text, err = results[0]
    assert text.startswith("The cat")
    assert err == ""
    figures = json.loads(cli(*generate(runs, preset, "--prompt", "The cat", "--seed", 1, "--json"))[1])
    assert figures == {"prompt": "The cat", "text": figures["text"], "seed": 1}
    assert text == figures["prompt"] + figures["text"] + "\n"
    assert figures["text"]


def stdin(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_prompt_may_come_from_stdin(newline, end, cli, runs, monkeypatch):
    expected = cli(*generate(runs, "stories", "--prompt", " The cät\nsat "))
    stdin(monkeypatch, f" The cät{newline}sat {end}".encode())
    assert cli(*generate(runs, "stories", "--prompt", "-")) == expected
    assert expected[0] == 0


def test_prompt_through_a_pipe(runs):
    command = [sys.executable, "-m", "tinygrad_llm", *map(str, generate(runs)), "--prompt", "-"]
    done = subprocess.run(command, input="The cat", capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The cat")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"caf\xe9", "stdin is not UTF-8 text"), (b"a" * 1_000_001, "stdin has more than 1,000,000 bytes")],
    ids=["latin", "long"],
)
def test_stdin_that_is_not_a_prompt_is_refused(data, message, refused, runs, monkeypatch):
    stdin(monkeypatch, data)
    assert message in refused(*generate(runs, "stories", "--prompt", "-"))


def test_several_samples_are_the_texts_of_their_seeds(cli, runs):
    alone = [cli(*generate(runs, "stories", "--prompt", "The cat", "--seed", seed))[1] for seed in (5, 6, 7)]
    status, out, err = cli(*generate(runs, "stories", "--prompt", "The cat", "--seed", 5, "--samples", 3))
    assert (status, err) == (0, "")
    assert out == "".join(f"seed {seed}\n{text.rstrip()}\n\n" for seed, text in zip((5, 6, 7), alone, strict=True))
    out = cli(*generate(runs, "stories", "--prompt", "The cat", "--seed", 5, "--samples", 3, "--json"))[1]
    figures = json.loads(out)
    assert figures["prompt"] == "The cat"
    assert [f"The cat{sample['text']}\n" for sample in figures["samples"]] == alone
    assert [sample["seed"] for sample in figures["samples"]] == [5, 6, 7]
    assert cli(*generate(runs, "stories", "--prompt", "The cat", "--seed", MAX_SEED))[0] == 0


def test_text_ends_before_a_stop_string(cli, printed, runs):
    whole = cli(*generate(runs, "char-cpu", "--prompt", "The cat"))[1]
    stop = whole[12:14]
    out = printed(*generate(runs, "char-cpu", "--prompt", "The cat", "--stop", "###", "--stop", stop))
    assert out == "The cat" + whole.removeprefix("The cat").partition(stop)[0] + "\n"
    both = printed(*generate(runs, "char-cpu", "--prompt", "The cat", "--stop", stop, "--samples", 2, "--json"))
    assert f"The cat{json.loads(both)['samples'][0]['text']}\n" == out


def test_a_prompt_longer_than_the_block_loses_its_beginning_and_that_is_said(cli, runs):
    prompt = "The cat sat on the mat"
    words = generate(runs, "char-cpu", "--json", "--prompt")
    status, out, err = cli(*words, prompt)
    assert status == 0
    assert json.loads(out)["prompt"] == prompt
    assert json.loads(out)["text"] == json.loads(cli(*words, prompt[-16:])[1])["text"]
    note = "the text is longer than the 16 tokens that the model reads at once: its beginning is left out"
    assert " ".join(err.split()) == f"tinygrad-llm generate: {note}"
    assert cli(*words, prompt[-16:])[2] == ""
    assert cli(*words, prompt, "--samples", 2)[2] == err


def test_forbidden_tokens_are_never_written_and_the_end_of_text_may_be_one(cli, refused, runs, tmp_path):
    words = generate(runs, "char-cpu", "--prompt", "The cat", "--json", "--temperature", 2)
    text = json.loads(cli(*words)[1])["text"]
    assert set("at") & set(text)
    text = json.loads(cli(*words, "--forbid", "a", "--forbid", "tT")[1])["text"]
    assert len(text) == 40
    assert not set("atT") & set(text)
    words = ["generate", save_alphabet(tmp_path / "alphabet"), "--prompt", "x", "--temperature", 0, "--json"]
    assert json.loads(cli(*words)[1])["text"] == "yz"
    more = json.loads(cli(*words, "--max-new-tokens", 30, "--forbid", "<|endoftext|>")[1])["text"]
    assert len(more) == 30
    everything = "".join(load_tokenizer(runs["char-cpu"]).characters)
    assert "tokens are forbidden" in refused("generate", runs["char-cpu"], "--prompt", "a", "--forbid", everything)


def test_words_stay_whole_on_a_terminal(cli, runs, monkeypatch):
    words = generate(runs, "char-cpu", "--prompt", "The cat sat on", "--seed", 2)
    text = cli(*words)[1]
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "sat on" in text
    shown = cli(*words)[1]
    assert shown.split() == text.split()
    assert all(len(line) <= 30 or len(line.split()) == 1 for line in shown.split("\n"))
    assert shown.count("\n") > text.count("\n")


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_prompt_may_be_missing(preset, printed, runs):
    out = printed(*generate(runs, preset, "--json"))
    assert json.loads(out)["prompt"] == ""
    assert json.loads(out)["text"]


def test_characters_are_as_many_as_asked_for(cli, runs):
    for n in (0, 1, 30):  # beyond the block of 16 as well
        out = cli("generate", runs["char-cpu"], "--prompt", "cat", "--max-new-tokens", n, "--json")[1]
        assert len(json.loads(out)["text"]) == n


def test_likeliest_text_does_not_depend_on_the_seed(cli, runs):
    same = [
        cli(*generate(runs, "char-cpu", "--prompt", "cat", "--seed", seed, *options))[1]
        for seed in (1, 2)
        for options in (["--temperature", 0], ["--top-k", 1], ["--top-p", 1e-9])
    ]
    assert len(set(same)) == 1


def test_special_token_in_the_prompt_is_allowed_or_plain_text(printed, runs):
    for option in ("--allow-special", "--plain-special"):
        out = printed(*generate(runs, "stories", "--prompt", "<|endoftext|>", option, "--json"))
        assert json.loads(out)["prompt"] == "<|endoftext|>"


def test_damaged_weights_give_one_line(cli, runs, place):
    model = GPT.from_pretrained(runs["char-cpu"])
    for p in model.parameters():
        p.data = p.data * np.float32(1e37)
    model.save_pretrained("damaged")
    tokenizer_for(runs["char-cpu"], model.config).save("damaged/tokenizer.json")
    for temperature in (0, 1):
        status, out, err = cli("generate", "damaged", "--prompt", "The", "--temperature", temperature)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "scores are NaN or infinite" in err


def test_gpt2_by_name_is_read_from_the_cache(cli, tmp_path, monkeypatch):
    """OpenAI's release in the cache, with 50,257 tokens and without its vocabulary."""
    monkeypatch.setenv("TINYGRAD_LLM_CACHE", str(tmp_path))
    config = GPTConfig(block_size=8, n_layer=1, n_head=1, n_embd=2)
    write_pretrained(tmp_path / "gpt2", config, GPT(config, Generator(0)).state_dict(), "openai")
    status, out, err = cli("generate", "gpt2", "--prompt", "Hello", "--max-new-tokens", 3)
    assert (status, err) == (0, "")
    assert out.startswith("Hello")
    assert len(out) > len("Hello\n")
