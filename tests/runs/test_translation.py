"""Runs of a translator: resumed bit for bit, whatever the batch; padding counts in no loss."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from tinygrad_llm.datasets import DataError, Translated
from tinygrad_llm.models import Translator, TranslatorConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.translation import load_translations
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.training import ConfigError, Translation, encode_translations
from tinygrad_llm.training.translation import measuring_batches

ANIMALS = ["fox", "old bear", "cat", "very small mouse", "goose", "dog"]
VERBS = ["sleeps", "sings", "sees a ball", "waits", "laughs by the river"]


@pytest.fixture
def config(tmp_path):
    """Six steps of a tiny translator, with dropout, so that every random stream counts."""
    pairs = tmp_path / "pairs.tsv"
    rows = [f"the {animal} {verb}\t{verb.upper()} {animal}" for animal in ANIMALS for verb in VERBS]
    pairs.write_text("\n".join(["left\tright", *rows]), encoding="utf-8")
    changes = {"pairs": str(pairs), "source": "", "target": "", "vocab_size": 300, "n_embd": 8, "n_head": 2}
    changes |= {"n_layer": 1, "dropout": 0.2, "steps": 6, "batch_size": 4, "warmup": 2, "eval_every": 3, "workers": 1}
    return PRESETS["translator-tiny"].changed(changes)


def finish(run):
    return list(map(quiet, run.train(sample=5)))


def quiet(step):
    return dataclasses.replace(step, tokens_per_second=0.0, memory=0)  # which differ each time


@pytest.mark.parametrize("changes", [{}, {"workers": 2, "schedule": "inverse_sqrt"}], ids=str)
def test_a_run_is_resumed_bit_for_bit(config, tmp_path, changes):
    config = config.changed(changes)
    whole = Run.new(config, tmp_path / "whole")
    steps = finish(whole)
    stopped = Run.new(config, tmp_path / "run")
    for _ in stopped.train(lambda: stopped.trainer.step >= 2, sample=5):
        pass
    stopped.save()
    resumed = Run.resume(tmp_path / "run")
    assert [*map(quiet, stopped.steps), *finish(resumed)] == steps
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(resumed.model.state_dict()[name], array)
    assert {"val_exact"} == steps[-1].measures.keys()
    assert [(n, text.strip()) for n, text in resumed.samples] == whole.samples
    resumed.save()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results.keys() == {"sentences", "greedy", "beam"}
    assert Translator.from_pretrained(tmp_path / "run").config == whole.model.config


def test_a_resume_with_other_pairs_is_refused(config, tmp_path):
    run = Run.new(config.changed({"steps": 2}), tmp_path / "run")
    finish(run)
    run.save()
    with open(config.data.pairs, "a", encoding="utf-8") as file:
        file.write("\nthe owl sleeps\tSLEEPS owl")
    with pytest.raises(ConfigError, match=r"cannot be resumed.*the examples .*pairs.tsv"):
        Run.resume(tmp_path / "run", more=1)


def test_the_config_holds_what_a_translator_needs_and_no_more(config):
    lines = config.to_toml().splitlines()
    named = {line.split(" = ")[0] for line in lines[lines.index("[data]") : lines.index("[training]")]}
    sizes = {field.name for field in dataclasses.fields(TranslatorConfig)} - {"vocab_size"}
    assert named - {"", "[data]", "[model]"} == {"tokenizer", "vocab_size", "pairs", "source", "target", "kind"} | sizes
    assert not {"pairs", "source", "target"} & {line.split(" = ")[0] for line in PRESETS["baby"].to_toml().splitlines()}


def test_every_setting_of_data_and_sizes_changes_the_run(config):
    before = load_translations(config)
    shapes = dict(before.make_model(config, Generator(0), 4).config.shapes())
    for change in ({"norm_first": True}, {"cross_attention": False}, {"n_layer": 2}, {"n_embd": 16}):
        assert dict(before.make_model(config.changed(change), Generator(0), 4).config.shapes()) != shapes, change
    for changes in ({"source": "right", "target": "left"}, {"vocab_size": 290}, {"seed": 5}):
        after = load_translations(config.changed(changes))
        arrays = zip(before.training.values(), after.training.values(), strict=True)
        assert any(a.shape != b.shape or (a != b).any() for a, b in arrays), changes


def test_what_cannot_be_is_one_line(config):
    for changes, error, message in [
        ({"tokenizer": "char"}, ConfigError, "a translator takes bpe, gpt2 or a tokenizer file, got 'char'"),
        ({"block_size": 5}, DataError, r"sentences longer than the 5 tokens .*: set block_size=\d+, or remove them"),
        ({"source": "english"}, DataError, "line 1: has no column 'english': there are left, right"),
    ]:
        with pytest.raises(error, match=message):
            load_translations(config.changed(changes))
    for key, value in {"recompute": True, "order": "random", "stride": 4, "keep_newlines": True, "init": "x"}.items():
        with pytest.raises(ConfigError, match=f"{key}: has no effect on the model translator: leave it out"):
            config.changed({key: value})


def test_a_loss_counts_no_padding_and_the_parts_of_a_batch_add_up(config):
    pairs = [("a", "the fox sleeps"), ("the old bear", "b"), ("the cat", "the cat sings")]
    tokenizer = Tokenizer.train("the fox sleeps the old bear sings the cat" * 9, 270)
    end = tokenizer.eot_token
    translated = [load_translations(config).test[0]._replace(source=a, target=b) for a, b in pairs]
    batch = encode_translations(translated, tokenizer, end)
    model = Translator(TranslatorConfig(270, 40, 1, 2, 8, 0.0), Generator(1)).to(np.float64)
    task = Translation(None, [batch], end, 0.1)
    whole = task.loss(model, batch, total=task.count(batch)).item()
    single = [encode_translations([pair], tokenizer, end) for pair in translated]
    counts = [task.count(one) for one in single]
    assert task.count(batch) == sum(counts) == sum(len(tokenizer.encode(b)) + 1 for _, b in pairs)
    alone = [task.loss(model, one, total=task.count(batch)).item() for one in single]
    assert whole == pytest.approx(sum(alone), rel=1e-12)
    wide = {name: np.pad(a, [(0, 0), (0, 3)], constant_values=7) if a.ndim == 2 else a for name, a in batch.items()}
    assert task.loss(model, wide, total=task.count(batch)).item() == pytest.approx(whole, rel=1e-12)
    parts = task.split(batch, 2)
    assert sum(task.loss(model, part, task.count(batch)).item() for part in parts) == pytest.approx(whole, rel=1e-12)
    assert task.evaluate(model).measures == {"exact": 0.0}


def test_exact_is_the_share_of_greedy_translations_that_are_right(config, monkeypatch):
    data = load_translations(config)
    task, _ = data.make_task(config, Generator(0))
    targets = {}
    for batch in task.held_out:
        for source, target, n in zip(batch["source"], batch["target"], batch["target_lengths"], strict=True):
            targets[tuple(source)] = target[1:n].tolist()
    known = next(iter(targets))
    widths = iter([batch["target"].shape[1] for batch in task.held_out])

    def translate(model, source, lengths, begin, end, longest):
        assert begin == end == data.tokenizer.eot_token
        assert longest == next(widths) - 1  # as many tokens as the longest target has, with its end
        return [targets[tuple(row)] if tuple(row) == known else [0] for row in source]

    monkeypatch.setattr(
        "tinygrad_llm.training.translation.greedy_search",
        translate,
    )
    model = data.make_model(config, Generator(0), 4)
    assert task.evaluate(model).measures["exact"] == 1 / len(data.held_out["lengths"])


def test_the_results_are_of_a_greedy_search_and_of_a_beam_of_four(config, monkeypatch):
    data = load_translations(config)
    targets = [pair.target for pair in data.test]

    def translate(model, tokenizer, sources, width=1):
        assert sources == [pair.source for pair in data.test]
        return targets if width == 4 else [*targets[:1], *["no"] * (len(targets) - 1)]

    monkeypatch.setattr("tinygrad_llm.runs.translation.translate", translate)
    results = data.results(data.make_model(config, Generator(0), 4))
    assert results["sentences"] == len(targets)
    assert results["beam"]["exact"] == 1.0
    assert results["greedy"]["exact"] == 1 / len(targets)


def test_pairs_of_similar_length_are_measured_together_each_once_and_only_as_wide_as_needed():
    tokenizer, rng = Tokenizer([]), np.random.default_rng(0)
    pairs = [Translated("a" * int(n), "b" * int(m)) for n, m in rng.integers(1, 9, (11, 2))]
    batches = measuring_batches(encode_translations(pairs, tokenizer, tokenizer.eot_token), 4)
    assert [len(batch["lengths"]) for batch in batches] == [4, 4, 3]
    assert np.all(np.diff(np.concatenate([batch["lengths"] for batch in batches])) >= 0)
    found, names = [], ("source", "source_lengths", "target", "target_lengths")
    for batch in batches:
        assert batch["source"].shape[1] == batch["source_lengths"].max()
        assert batch["target"].shape[1] == batch["target_lengths"].max() + 1
        for source, n, target, m in zip(*(batch[name] for name in names), strict=True):
            found.append((tokenizer.decode(source[: n - 1]), tokenizer.decode(target[1:m])))
            assert {*source[n - 1 :], target[0], *target[m:]} == {tokenizer.eot_token}
    assert sorted(found) == sorted(map(tuple, pairs))


def test_a_translation_that_goes_on_after_the_target_is_not_exact():
    class Endless(Translator):
        """Writes 1, 1, 1, …"""

        def next_logits(self, ids, reading):
            return np.tile([0.0, 1.0, 0.0], (len(ids), 1))

    model = Endless(TranslatorConfig(3, 8, 1, 1, 2, 0.0))
    batch = {"source": np.array([[1, 2]]), "target": np.array([[2, 1, 1, 2]]), "lengths": np.array([5])}
    batch |= {"source_lengths": np.array([2]), "target_lengths": np.array([3])}
    assert Translation(None, [batch], 2).evaluate(model).measures == {"exact": 0.0}
    short = {**batch, "target": np.array([[2, 2, 2]]), "target_lengths": np.array([1])}
    assert Translation(None, [], 2).evaluate(model, [batch, short]).measures == {"exact": 0.0}


@pytest.mark.slow  # three seconds
def test_new_combinations_of_known_words_are_translated_and_only_with_cross_attention(config, tmp_path):
    words = {"ant": "AMEISE", "bee": "BIENE", "cat": "KATZE", "dog": "HUND", "eel": "AAL", "fox": "FUCHS"}
    rows = [row for n in (2, 3) for row in itertools.product(words, repeat=n)]
    lines = ["left\tright", *(f"{' '.join(row)}\t{' '.join(words[word] for word in reversed(row))}" for row in rows)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines))
    changes = {
        "n_embd": 32,
        "dropout": 0.0,
        "steps": 350,
        "batch_size": 32,
        "lr": 5e-3,
        "warmup": 20,
        "eval_every": 350,
    }
    right = {}
    for cross in (True, False):
        run = Run.new(config.changed({**changes, "cross_attention": cross}), tmp_path / str(cross))
        finish(run)
        run.save()
        right[cross] = run.results["greedy"]["exact"]
    assert right[True] >= 0.9
    assert right[False] <= 0.1
