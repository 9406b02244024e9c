"""`tinygrad-llm generate`."""

import json

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.folder import load_run
from tinygrad_llm.weights import write_pretrained


def generate(runs, preset="char-cpu", *more):
    return ["generate", runs[preset], "--max-new-tokens", 40, *more]


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_the_seed_decides_the_text(preset, cli, runs):
    texts = [cli(*generate(runs, preset, "--prompt", "The cat", "--seed", seed)) for seed in (1, 1, 2)]
    assert [status for status, _, _ in texts] == [0, 0, 0]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][1].startswith("The cat")
    assert texts[0][2] == ""


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_json_is_what_streams(preset, cli, runs):
    arguments = generate(runs, preset, "--prompt", "The cat", "--seed", 3)
    streamed = cli(*arguments)[1]
    figures = json.loads(cli(*arguments, "--json")[1])
    assert figures == {"prompt": "The cat", "text": figures["text"], "seed": 3}
    assert streamed == figures["prompt"] + figures["text"] + "\n"
    assert figures["text"]


def test_byte_pairs_need_no_prompt(cli, runs):
    status, out, _ = cli(*generate(runs, "stories", "--json"))
    assert status == 0
    assert json.loads(out)["prompt"] == ""


def test_each_character_is_a_token_and_the_length_is_kept(cli, runs):
    for n in (0, 1, 30):  # beyond the block of 16 as well
        out = cli("generate", runs["char-cpu"], "--prompt", "cat", "--max-new-tokens", n, "--json")[1]
        assert len(json.loads(out)["text"]) == n


def test_the_likeliest_needs_no_chance(cli, runs):
    same = [
        cli(*generate(runs, "char-cpu", "--prompt", "cat", "--seed", seed, *options))[1]
        for seed in (1, 2)
        for options in (["--temperature", 0], ["--top-k", 1], ["--top-p", 1e-9])
    ]
    assert len(set(same)) == 1


def test_damaged_weights_are_told_of_in_one_line(cli, runs, place):
    model, tokenizer = load_run(runs["char-cpu"])
    for p in model.parameters():
        p.data = p.data * np.float32(1e37)
    model.save_pretrained("damaged")
    tokenizer.save("damaged/tokenizer.json")
    for temperature in (0, 1):
        status, _, err = cli("generate", "damaged", "--prompt", "The", "--temperature", temperature)
        assert status == 2
        assert err.count("\n") == 1
        assert "scores are not finite" in err


def test_characters_need_no_prompt(cli, runs):
    status, out, _ = cli("generate", runs["char-cpu"], "--max-new-tokens", 5)
    assert status == 0
    assert len(out) == 6


def test_gpt2_by_its_name_writes_words(cli, tmp_path, monkeypatch):
    """OpenAI's release in the cache, with 50,257 tokens and without its vocabulary."""
    monkeypatch.setenv("TINYGRAD_LLM_CACHE", str(tmp_path))
    config = GPTConfig(block_size=8, n_layer=1, n_head=1, n_embd=2)
    write_pretrained(tmp_path / "gpt2", config, GPT(config, Generator(0)).state_dict(), "openai")
    status, out, err = cli("generate", "gpt2", "--prompt", "Hello", "--max-new-tokens", 3)
    assert (status, err) == (0, "")
    assert out.startswith("Hello")
    assert len(out) > len("Hello\n")
