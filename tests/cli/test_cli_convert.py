"""`tinygrad-llm convert`."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from tinygrad_llm.cli import convert
from tinygrad_llm.models import GPT, Encoder, EncoderConfig, GPTConfig, Translator, TranslatorConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import Tokenizer, load_tokenizer
from tinygrad_llm.weights import FORMS, read_pretrained, write_pretrained, write_tokenizer

CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=6)
FILES = {
    "safetensors": ["model.safetensors"],
    "huggingface": ["config.json", "model.safetensors"],
    "openai": ["checkpoint", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"],
    "npz": ["hparams.json", "model.npz"],
}


@pytest.fixture
def model(place):
    """A model, and its folders in every form."""
    made = GPT(CONFIG, Generator(1))
    for form in FORMS:
        write_pretrained(place / form, CONFIG, made.state_dict(), form)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_every_other(cli, model, place, form, for_each):
    def check(source):
        status, out, err = cli("convert", source, f"{source}-{form}", "--to", form)
        assert (status, err) == (0, "")
        assert f"{CONFIG.num_parameters:,} parameters" in out
        new = place / f"{source}-{form}"
        assert sorted(file.name for file in new.iterdir()) == FILES[form]
        for file in FILES[form]:
            assert (new / file).read_bytes() == (place / form / file).read_bytes()
        config, state, _ = read_pretrained(new, GPTConfig)
        assert config == CONFIG
        assert all(array.tobytes() == model.state_dict()[name].tobytes() for name, array in state.items())

    for_each(FORMS, check)


def test_ours_is_the_default_and_figures_come_as_json(printed, model, place):
    out = printed("convert", "openai", "new", "--json")
    figures = json.loads(out)
    size = (place / "new" / "model.safetensors").stat().st_size
    assert figures == {
        "source": "openai",
        "found": "tensorbundle, OpenAI's names",
        "destination": "new",
        "form": "safetensors",
        "files": ["model.safetensors"],
        "bytes": size,
        "parameters": CONFIG.num_parameters,
        "config": dataclasses.asdict(CONFIG),
    }


@pytest.mark.parametrize("kind", ["encoder", "translator"])
def test_a_model_of_another_kind_is_converted_with_its_own_sizes(kind, printed, place):
    sizes = {"vocab_size": 11, "block_size": 6, "n_layer": 1, "n_head": 1, "n_embd": 4}
    made = Encoder(EncoderConfig(**sizes)) if kind == "encoder" else Translator(TranslatorConfig(**sizes))
    made.save_pretrained(place / "old")
    figures = json.loads(printed("convert", "old", "new", "--json"))
    assert figures["config"] == dataclasses.asdict(made.config)
    assert figures["parameters"] == made.num_parameters()
    new = type(made).from_pretrained(place / "new").state_dict()
    assert {name: array.tobytes() for name, array in new.items()} == {
        name: array.tobytes() for name, array in made.state_dict().items()
    }


def test_a_run_becomes_a_model_for_others(cli, runs, place):
    assert cli("convert", runs["stories"], "new", "--to", "huggingface")[0] == 0
    made, run = (GPT.from_pretrained(folder).eval() for folder in ("new", runs["stories"]))
    np.testing.assert_array_equal(made([[1, 2, 3]]).data, run([[1, 2, 3]]).data)


def test_n_head_is_asked_for_where_no_file_states_it(cli, model, place):
    (place / "npz" / "hparams.json").unlink()
    status, _, err = cli("convert", "npz", "new")
    assert status == 2
    assert "n_head is stated nowhere" in err
    assert cli("convert", "npz", "new", "--n-head", 2)[0] == 0
    assert GPT.from_pretrained("new").config == CONFIG


def test_a_model_is_replaced_only_where_it_is_asked_for_and_alone(cli, model, place):
    assert cli("convert", "openai", "new")[0] == 0
    (place / "new" / "model.safetensors").write_bytes(b"old")
    status, _, err = cli("convert", "openai", "new")
    assert status == 2
    assert "new: exists already: choose another DST, or add --overwrite" in err
    assert cli("convert", "openai", "new", "--overwrite")[0] == 0
    assert GPT.from_pretrained("new").config == CONFIG
    (place / "new" / "notes.txt").write_text("mine")
    status, _, err = cli("convert", "openai", "new", "--overwrite")
    assert status == 2
    assert "new: cannot be written: it also holds notes.txt" in err
    assert sorted(path.name for path in (place / "new").iterdir()) == ["model.safetensors", "notes.txt"]
    assert cli("convert", "npz", "npz", "--to", "npz", "--overwrite")[0] == 0  # onto itself
    assert GPT.from_pretrained("npz").config == CONFIG


REFUSED = [
    ("nowhere new", "nowhere: no model here"),
    ("gpt2-xl new", "run `tinygrad-llm download gpt2-xl` first"),
    ("empty new", "empty: no model here (model.safetensors is missing)"),
    ("page new", "page: an HTML or XML page"),
    ("openai npz", "npz: exists already"),
    ("openai page", "page: exists already"),
    ("openai page --overwrite", "page: exists already: choose another DST"),
    ("openai link", "link: exists already"),
    ("openai no/new", "no/new: its parent folder does not exist"),
    ("openai page/new", "page/new: its parent folder does not exist"),
    ("untied new --to openai", "untied: OpenAI's form has no lm_head.weight"),
    ("broken new", "NaN or infinity in transformer.wte.weight"),
    ("openai new --to pickle", "--to"),
    ("openai new --n-head 0", "--n-head"),
    ("openai new --n-head 3", "n_head is 2, not the 3 asked for"),
    ("openai", "DST"),
    ("openai new.npz --to npz", "new.npz: DST is a folder, not a file: choose a DST without .npz"),
    ("openai new.safetensors", "new.safetensors: DST is a folder"),
    ("garbled new", "tokenizer.json"),
]


def test_a_refused_conversion_changes_nothing(refused, model, place, snapshot, for_each):
    (place / "empty").mkdir()
    (place / "page").write_text("<html></html>")
    (place / "link").symlink_to("nothing")
    GPT(CONFIG).save_pretrained("garbled")
    (place / "garbled" / "tokenizer.json").write_text("{")
    untied = dataclasses.replace(CONFIG, tie_weights=False)
    GPT(untied).save_pretrained("untied")
    write_pretrained("broken", CONFIG, model.state_dict(), "npz")
    state = {name: array.copy() for name, array in model.state_dict().items()}
    state["transformer.wte.weight"][0, 0] = np.nan
    np.savez("broken/model.npz", **state)
    before = snapshot(place)

    def check(case):
        arguments, words = case
        assert words in refused("convert", *arguments.split())
        assert snapshot(place) == before

    for_each(REFUSED, check)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_nothing(cli, model, place, snapshot, monkeypatch, error):
    def fail(folder, *rest):
        write_pretrained(folder, *rest)
        raise error

    monkeypatch.setattr(convert, "write_pretrained", fail)
    before = snapshot(place)
    status, out, err = cli("convert", "openai", "new")
    assert (status, out) == (2 if isinstance(error, OSError) else 130, "")
    assert "new: cannot be written: No space left on device" in err or status == 130
    assert snapshot(place) == before


BPE = Tokenizer.train("the cat sat on the mat " * 9, 262)


HUGS = {"tokenizer.json", "tokenizer_config.json", "merges.txt", "vocab.json"}


@pytest.mark.parametrize("form", FORMS)
def test_the_tokenizer_comes_along_and_words_come_out(cli, place, form, for_each):
    config = dataclasses.replace(CONFIG, vocab_size=BPE.n_vocab)
    names = {"openai": {"vocab.bpe", "encoder.json"}, "huggingface": HUGS}
    names = names.get(form, {"tokenizer.json"}) | set(FILES[form])

    def check(source):
        old, new = f"old {source}", f"new {source}"
        write_pretrained(old, config, GPT(config, Generator(1)).state_dict(), source)
        write_tokenizer(old, BPE, source)
        assert cli("convert", old, new, "--to", form)[0] == 0
        assert {file.name for file in (place / new).iterdir()} == names
        if form == "huggingface":
            assert json.loads((place / new / "config.json").read_text())["eos_token_id"] == BPE.eot_token
        texts = [cli("generate", folder, "--prompt", "the cat", "--max-new-tokens", 5) for folder in (old, new)]
        assert texts[0] == texts[1]
        assert texts[0][0] == 0
        assert texts[0][1].startswith("the cat")

    for_each(FORMS, check)


def test_characters_come_along(cli, runs, place):
    ours = load_tokenizer(runs["char-cpu"] / "tokenizer.json")
    for form in FORMS:
        assert cli("convert", runs["char-cpu"], form, "--to", form)[0] == 0
        assert load_tokenizer(place / form).characters == ours.characters
        assert cli("generate", form, "--prompt", "The", "--max-new-tokens", 3)[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_the_leftovers_of_a_killed_convert_are_removed(cli, model, place, monkeypatch):
    dead = place / ".tinygrad_llm-0123456789abcdef.tmp"
    dead.mkdir()
    (dead / "model.npz").write_bytes(b"half")
    other = place / ".other.tmp"
    other.mkdir()
    (place / "model.tmp").mkdir()
    seen = []

    def write(folder, *rest):  # another convert, while this one writes
        write_pretrained(folder, *rest)
        if not seen:
            seen.append(folder)
            assert cli("convert", "openai", "second")[0] == 0
            assert folder.exists()

    monkeypatch.setattr(convert, "write_pretrained", write)
    assert cli("convert", "openai", "new")[0] == 0
    assert sorted(path.name for path in place.iterdir()) == sorted([*FORMS, ".other.tmp", "model.tmp", "new", "second"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_transformers_finds_the_tokenizer_of_an_export(cli, place):
    transformers = pytest.importorskip("transformers")
    config = dataclasses.replace(CONFIG, vocab_size=BPE.n_vocab)
    GPT(config, Generator(1)).save_pretrained("old")
    BPE.save("old/tokenizer.json")
    assert cli("convert", "old", "new", "--to", "huggingface")[0] == 0
    theirs = transformers.AutoTokenizer.from_pretrained("new")
    for text in ("the cat sat on the mat", " caf\xe9 \n\n 12<|endoftext|>the"):
        assert theirs(text)["input_ids"] == BPE.encode(text, allowed_special="all")
