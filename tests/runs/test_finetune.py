"""Fine-tuning runs: the same Run on another subject. Resume, adapters, results, and what is refused."""

import dataclasses
import functools
import itertools
import json
import re
import shutil

import numpy as np
import pytest

from tinygrad_llm.datasets import DataError, read_instructions
from tinygrad_llm.finetuning import STYLES
from tinygrad_llm.finetuning.assistant import prompt_of
from tinygrad_llm.formats import load_checkpoint, load_safetensors, save_checkpoint
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import GPT, Encoder, EncoderConfig, GPTClassifier, GPTConfig
from tinygrad_llm.nn import LoRALinear, merge_lora
from tinygrad_llm.random import Generator
from tinygrad_llm.runs import finetune
from tinygrad_llm.runs import run as run_module
from tinygrad_llm.runs.answers import answers
from tinygrad_llm.runs.finetune import load_examples
from tinygrad_llm.runs.folder import choose_weights
from tinygrad_llm.runs.presets import PRESETS, load_config
from tinygrad_llm.runs.run import Run
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import Tokenizer, WordPieceTokenizer
from tinygrad_llm.training import ConfigError
from tinygrad_llm.weights import model_at, tokenizer_for
from tinygrad_llm.weights.adapters import ADAPTER

TASKS = ("classifier", "assistant", "preference")
WORDS = ["red", "blue", "green", "fox", "cat", "dog", "sun", "moon", "tree", "lake"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a small model."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train("Q: Say red blue green fox cat dog sun moon tree lake.\nA: the not\n" * 3, 280)
    sizes = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=32, n_layer=2, n_head=2, n_embd=8, initializer_range=0.2)
    GPT(sizes, Generator(0)).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files with forty examples for each task."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    pairs = [(WORDS[n // 10], WORDS[n % 10]) for n in rng.permutation(100)[:40].tolist()]  # all different
    rows = [f"{'spam' if i % 2 else 'ham'}\t{a} {b} {'not' if i % 2 else 'the'} {i}" for i, (a, b) in enumerate(pairs)]
    entries = [{"instruction": "Say", "input": f"{a} {b}", "output": a, "kind": f"kind {len(a)}"} for a, b in pairs]
    answers = [{"instruction": "Say", "input": f"{a} {b}", "chosen": f"the {a}", "rejected": b} for a, b in pairs]
    (folder / "classifier").write_text("\n".join(rows))
    (folder / "assistant").write_text(json.dumps(entries))
    (folder / "preference").write_text("\n".join(map(json.dumps, answers)))
    return folder


def configured(task, base, data, **changes):
    fixed = {"finetune.task": task, "finetune.base": str(base), "finetune.data": str(data / task)}
    fixed |= {"finetune.style": "plain", "training.steps": 8, "training.epochs": 0, "training.batch_size": 4}
    fixed |= {"training.warmup": 0, "training.eval_every": 4, "training.workers": 1, "training.checkpoint_every": 3}
    return PRESETS[task].changed(fixed | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base, data):
    """A function: task, layers → a finished Run in a folder of its own, trained once. Tests change nothing in it."""
    folder = tmp_path_factory.mktemp("whole")

    @functools.cache
    def make(task, layers=None):
        changes = {} if layers is None else {"layers": layers, "embeddings": 2 * (layers == "lora")}
        return finished(Run.new(configured(task, base, data, **changes), folder / f"{task} {layers}"))

    return make


def finished(run, stop_at=None):
    for _ in run.train(lambda: run.trainer.step == stop_at):
        pass
    run.save()
    return run


def losses(run):
    return [(step.step, step.loss, step.val_loss, step.measures) for step in run.steps]


def equal_files(one, other, names):
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_an_adapter_finds_its_base_from_every_folder(tmp_path, base, data, monkeypatch):
    monkeypatch.chdir(base.parent)
    config = configured("assistant", base.name, data, layers="lora")
    examples = load_examples(config)
    examples.save(examples.make_model(config, Generator(0), 4), tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    assert GPT.from_pretrained("adapter").config == GPT.from_pretrained(base).config


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_beta_reaches_the_loss_and_the_test(base, data, monkeypatch, beta):
    seen, own = [], finetune.Preference
    monkeypatch.setattr(finetune, "Preference", lambda *args: seen.append(own(*args)) or seen[-1])
    config = configured("preference", base, data, **{"finetune.beta": beta})
    examples = load_examples(config)
    examples.make_task(config, Generator(0))
    examples.results(examples.base)
    assert [one.beta for one in seen] == [beta, beta]


@pytest.mark.parametrize("given", [False, True])
def test_settings_of_the_examples_and_adapters_reach_them(base, data, given):
    config = configured("classifier", base, data, **{"finetune.class_weights": given, "finetune.balance": False})
    task, _ = load_examples(config).make_task(config, Generator(0))
    assert (task.class_weights is not None) == given
    changes = {"grouped": given, "mask_prompt": given, "layers": "lora", "rank": 3 + given, "alpha": 6.0}
    changes |= {"lora_dropout": 0.25 * given, "embeddings": 2 * given, "training.recompute": given}
    config = configured("assistant", base, data, **changes)
    examples = load_examples(config)
    task, _ = examples.make_task(config, Generator(0))
    assert task.batches.grouped == given
    assert (examples.training["targets"][:, 0] == IGNORE_INDEX).all() == given
    model = examples.make_model(config, Generator(0), 4)
    assert model.recompute == given
    layers = [module for module in model.modules() if type(module) is LoRALinear]
    assert {(one.rank, one.alpha, one.lora_dropout.p) for one in layers} == {(3 + given, 6.0, 0.25 * given)}
    assert any("wpe.lora" in name for name, _ in model.named_parameters()) == given


@pytest.mark.parametrize(("task", "layers"), [
    *itertools.product(TASKS, ["all", "lora"]),
    ("classifier", "last"),
    *(pytest.param(task, "last", marks=pytest.mark.slow) for task in ("assistant", "preference")),
])  # fmt: skip
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, base, data, whole, task, layers):
    expected = whole(task, layers)
    finished(Run.new(expected.config, tmp_path / "stopped"), stop_at=5)
    assert not (tmp_path / "stopped" / "results.json").exists()
    resumed = finished(Run.resume(tmp_path / "stopped"))
    assert losses(resumed) == losses(expected)
    weights = ADAPTER if layers == "lora" else "model.safetensors"
    equal_files(expected.folder.path, tmp_path / "stopped", [weights, "results.json", "tokenizer.json"])
    assert resumed.results == expected.results


@pytest.mark.parametrize("layers", ["all", "lora"])
@pytest.mark.parametrize("task", TASKS)
def test_the_saved_model_is_the_trained_one(whole, task, layers):
    run = whole(task, layers)
    folder = run.folder.path
    kind = GPTClassifier if task == "classifier" else GPT
    again, ids = kind.from_pretrained(folder), np.arange(12).reshape(2, 6)
    with run.model.evaluating():
        np.testing.assert_allclose(again(ids).data, run.model(ids).data, rtol=0, atol=1e-5)
    assert tokenizer_for(folder, again.config).n_vocab == again.config.vocab_size
    assert (folder / "model.safetensors").exists() == (layers != "lora")
    if layers == "lora":
        names = load_safetensors(folder / ADAPTER)[0]
        assert all(".lora_" in name or ".score." in name for name in names)


@pytest.mark.parametrize("layers", ["all", "lora"])
@pytest.mark.parametrize("task", TASKS)
def test_the_model_of_a_killed_run_is_in_its_checkpoint(tmp_path, base, data, task, layers):
    own = {"layers": layers, "embeddings": 2 * (layers == "lora")}
    run = Run.new(configured(task, base, data, **own), tmp_path / "run")
    for step in run.train():
        if step.step == 6:  # with a checkpoint, as after step 3
            break
    path = choose_weights(tmp_path / "run").path
    kind, ids = GPTClassifier if task == "classifier" else GPT, np.arange(12).reshape(2, 6)
    assert model_at(path) == kind.__name__
    again = kind.from_pretrained(path)
    merge_lora(run.model)
    with run.model.evaluating():
        np.testing.assert_array_equal(again.eval()(ids).data, run.model(ids).data)
    assert tokenizer_for(path, again.config).n_vocab == again.config.vocab_size
    finished(Run.resume(tmp_path / "run"), stop_at=7)
    assert choose_weights(tmp_path / "run").path == tmp_path / "run"


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"transformer.h.0": 1.0}, "'transformer.h.0.lora_A.weight'"),
        ({"transformer.h.0.attn.c_proj": "much"}, "ufunc 'multiply'"),
        ([1.0], "has no attribute 'items'"),
        ({}, "lora_A"),
    ],
)
def test_adapters_of_a_checkpoint_that_do_not_fit_are_refused(tmp_path, base, data, scaling, message):
    run = Run.new(configured("assistant", base, data, layers="lora"), tmp_path / "run")
    finished(run, stop_at=1)
    arrays, metadata = load_checkpoint(run.folder.checkpoints.latest())
    metadata["model"]["scaling"] = scaling
    save_checkpoint(tmp_path / "changed.safetensors", arrays, metadata)
    with pytest.raises(LoadError, match=f"changed.safetensors: .*{message}"):
        GPT.from_pretrained(tmp_path / "changed.safetensors")


@pytest.mark.parametrize(("layers", "trained"), [
    ("head", {"score"}),
    ("last", {"score", "transformer.h.1", "transformer.ln_f"}),
    ("all", {"score", "transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1", "transformer.ln_f"}),
])  # fmt: skip
def test_the_layers_that_are_chosen_change_and_no_others(tmp_path, base, data, layers, trained):
    run = Run.new(configured("classifier", base, data, layers=layers), tmp_path / "run")
    before = {name: p.data.copy() for name, p in run.model.named_parameters()}
    finished(run)
    changed = {name for name, p in run.model.named_parameters() if not np.array_equal(p.data, before[name])}
    assert {".".join(name.split(".")[: 3 if ".h." in name else 2]).removesuffix(".weight").removesuffix(".bias")
            for name in changed} == trained  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_no_example_is_in_two_parts(base, data, task):
    found = load_examples(configured(task, base, data))
    names = {"classifier": "ids", "assistant": "ids", "preference": "rejected"}
    rows = [
        {tuple(row[:n].tolist()) for row, n in zip(part[names[task]], part["lengths"], strict=True)}
        for part in (found.training, found.held_out)
    ]
    if task == "classifier":
        rows.append({tuple(row) for row in found.test[0]})
    elif task == "preference":
        rows.append(
            {
                tuple(row[:n].tolist())
                for row, n in zip(found.test_arrays["rejected"], found.test_arrays["lengths"], strict=True)
            }
        )
    assert not any(rows[i] & rows[j] for i in range(len(rows)) for j in range(i))


def test_results_of_a_classifier_are_the_counts_of_its_test(tmp_path, base, data, monkeypatch):
    drawn = []
    monkeypatch.setattr(run_module, "save_confusion", lambda results, folder: drawn.append(results["confusion"]))
    run = finished(
        Run.new(
            configured("classifier", base, data, layers="all", **{"training.steps": 60, "lr": 1e-2}), tmp_path / "run"
        )
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for part, arrays in (("training", run.data.training), ("held-out", run.data.held_out)):
        with run.model.evaluating():
            scores = run.model(arrays["ids"], arrays["lengths"]).data
        assert results["accuracy"][part] == np.mean(scores.argmax(axis=1) == arrays["labels"])
    counts = np.array(results["confusion"])
    assert counts.sum() == len(run.data.test[0]) == 8  # a fifth of forty
    assert drawn == [results["confusion"]]
    assert results["accuracy"]["test"] == np.trace(counts) / counts.sum()
    assert results["accuracy"]["training"] > 0.9
    assert results["labels"] == ["ham", "spam"]
    monkeypatch.setattr(finetune, "classify", lambda model, rows: np.tile([0.3, 0.7], (len(rows), 1)))
    all_spam, (ham, spam) = run.data.results(run.model), counts.sum(axis=1).tolist()
    assert all_spam["confusion"] == [[0, ham], [0, spam]]
    assert (all_spam["recall"], all_spam["precision"][1]) == ([0, 1], spam / 8)


def test_results_of_an_assistant_are_by_kind(whole):
    results = whole("assistant").results
    assert results["n"] == len(results["answers"]) == sum(kind["n"] for kind in results["kinds"].values()) == 4
    right = [one["answer"].strip() == one["output"] for one in results["answers"]]
    assert results["exact_match"] == np.mean(right)


def test_answers_are_those_of_each_question_alone(base, data, monkeypatch):
    """Also where a question leaves no room for an answer."""
    model, tokenizer = GPT.from_pretrained(base), Tokenizer.load(base / "tokenizer.json")
    entries = read_instructions(data / "assistant")
    entries += [entries[0]._replace(instruction="the " * 40)]
    alone = [answers(model, tokenizer, [entry], "plain", 8)[0][0] for entry in entries]
    done = []
    assert answers(model, tokenizer, entries, "plain", 8, False, done.append) == (alone, 1)
    assert done[-1] == len(entries)
    assert all(said == said.strip() for said in alone)
    cropped = {}
    for n in range(99):
        long = entries[0]._replace(instruction="~" * n, input="")
        room = model.block_size - len(tokenizer.encode(prompt_of(long.instruction, "", STYLES["plain"])))
        if room in (0, 1):
            cropped[room] = answers(model, tokenizer, [long], "plain", 8)[1]
    assert cropped == {1: 0, 0: 1}  # by how many tokens are left for the answer
    with pytest.raises(ValueError, match=r"^the prompt 'the the .* has \d+ tokens, and the model reads at most 31"):
        answers(model, tokenizer, entries, "plain", 8, refuse=True)
    monkeypatch.setattr("tinygrad_llm.runs.answers.write_all", lambda model, tokenizer, ids, *_: [" the \n"] * len(ids))
    assert answers(model, tokenizer, entries, "plain", 8)[0] == ["the"] * len(entries)


def test_preference_starts_at_ln_2(whole):
    run = whole("preference")
    assert run.steps[0].val_loss == pytest.approx(np.log(2), abs=1e-6)
    assert set(run.results) == {"loss", "reward_margin", "reward_accuracy"}


def test_the_same_config_repeats_the_run(tmp_path, whole):
    """config.toml has the fine-tuning table, and neither a text nor sizes, which are the base's."""
    one = whole("classifier").folder.path
    text = (one / "config.toml").read_text()
    assert "[finetune]" in text
    assert "n_layer" not in text
    assert "tokenizer" not in text
    finished(Run.new(load_config(one / "config.toml"), tmp_path / "two"))
    equal_files(one, tmp_path / "two", ["model.safetensors", "results.json"])


@pytest.mark.parametrize("what", ["base", "data"])
def test_a_changed_base_or_file_is_noticed_at_a_resume(tmp_path, base, data, what):
    own_base, own_data = shutil.copytree(base, tmp_path / "base"), shutil.copytree(data, tmp_path / "data")
    finished(Run.new(configured("classifier", own_base, own_data), tmp_path / "run"), stop_at=2)
    if what == "base":
        model = GPT.from_pretrained(own_base)
        model.transformer.ln_f.bias.data[0] += 1
        model.save_pretrained(own_base)
    else:
        with open(own_data / "classifier", "a") as file:
            file.write("\nham\tone more\n")
    with pytest.raises(ConfigError, match=r"has changed: the (base model|examples) "):
        Run.resume(tmp_path / "run")


def test_an_adapter_needs_the_base_that_it_was_trained_with(tmp_path, base, data):
    own = shutil.copytree(base, tmp_path / "base")
    finished(Run.new(configured("classifier", own, data, layers="lora"), tmp_path / "run"))
    examples = load_examples(config := configured("assistant", own, data, layers="lora"))
    examples.save(examples.make_model(config, Generator(0), 4), tmp_path / "assistant")
    GPT.from_pretrained(tmp_path / "assistant")
    model = GPT.from_pretrained(own)
    model.transformer.ln_f.bias.data[0] += 1
    model.save_pretrained(own)
    with pytest.raises(LoadError, match="has other weights than when the adapter was trained"):
        GPTClassifier.from_pretrained(tmp_path / "run")
    with pytest.raises(LoadError, match="has other weights than when the adapter was trained"):
        GPT.from_pretrained(tmp_path / "assistant")
    with pytest.raises(LoadError, match="holds an adapter of a classifier: `tinygrad-llm classify` reads it"):
        GPT.from_pretrained(tmp_path / "run")


def test_two_workers_train_as_one(tmp_path, base, data, whole):
    two = finished(Run.new(configured("assistant", base, data, **{"training.workers": 2}), tmp_path / "two"))
    runs = [whole("assistant"), two]
    np.testing.assert_allclose(*[[step.loss for step in run.steps] for run in runs], rtol=1e-4)


def test_long_examples_are_cut_or_refused(tmp_path, base):
    (tmp_path / "classifier").write_text("".join(f"{'ab'[i % 2]}\t{'long text ' * 20}{i}\n" for i in range(40)))
    config = configured("classifier", base, tmp_path)
    assert load_examples(config).notes == ["messages longer than the 32 tokens that the model reads: 40, cut"]
    with pytest.raises(ConfigError, match=r"messages longer than the 32 tokens .*: 40: set finetune.too_long=cut"):
        load_examples(config.changed({"too_long": "refuse"}))


@pytest.mark.parametrize(("task", "what"), [("assistant", "prompts"), ("preference", "pairs")])
def test_examples_without_room_for_an_answer_are_said_to_be_left_out(tmp_path, base, data, task, what):
    entries = [json.loads(line) for line in (data / "preference").read_text().splitlines()]
    entries = [one | {"input": "long text " * 20 * (i % 2) + str(i)} for i, one in enumerate(entries)]
    if task == "assistant":
        entries = [{"instruction": one["instruction"], "input": one["input"], "output": "x"} for one in entries]
    (tmp_path / task).write_text(json.dumps(entries))
    notes = load_examples(configured(task, base, tmp_path)).notes
    assert notes
    for note in notes:
        assert re.fullmatch(rf"{what} longer than the 32 tokens that the model reads: \d+, left out", note)


@pytest.mark.parametrize("task", TASKS)
def test_repeated_examples_are_told_and_are_in_one_part(tmp_path, base, data, task):
    lines = (data / task).read_text().splitlines() if task != "assistant" else None
    if lines is None:
        entries = json.loads((data / task).read_text())
        (tmp_path / task).write_text(json.dumps(entries + [{**one, "output": "other"} for one in entries[:20]]))
    else:
        (tmp_path / task).write_text("\n".join(lines + lines[:20]))
    found = load_examples(configured(task, base, tmp_path, balance=False))
    what = "messages" if task == "classifier" else "entries"
    assert found.notes == [f"{what} that repeat another one: 20; all copies of one are in the same part"]
    assert len(found.training["lengths"]) + len(found.held_out["lengths"]) + found.test_size == 60


def test_messages_that_are_left_out_are_told_and_named_where_too_few_are_left(tmp_path, base):
    rows = [f"{'aab'[i % 3]}\ttext {i}" for i in range(60)]
    (tmp_path / "classifier").write_text("\n".join(rows))
    config = configured("classifier", base, tmp_path)
    assert load_examples(config).notes == ["20 messages are left out, so that each class has 20"]
    (tmp_path / "classifier").write_text("\n".join([*rows, "rare\tonly one", 'a\t"two', 'lines"']))
    message = "3 messages are too few for three parts: give more; .*a quoted text holds several lines, at line 62"
    with pytest.raises(
        DataError, match=rf"classifier: {message}.*; 59 messages are left out, so that each class has 1$"
    ):
        load_examples(config)


def test_a_class_that_the_training_part_lacks_is_named(tmp_path, base):
    rows = [f"{'ab'[i % 2]}\ttext {i}" for i in range(40)]
    (tmp_path / "classifier").write_text("\n".join([*rows, "rare\tonly one"]))
    config = configured("classifier", base, tmp_path, balance=False)
    seeds = [config.changed({"training.seed": seed}) for seed in range(8)]
    messages = set()
    for one in seeds:
        try:
            assert load_examples(one).labels == ("a", "b", "rare")
        except DataError as error:
            messages.add(str(error))
    (message,) = messages
    assert message.endswith("classifier: no message of class rare is in the training part: give more of them")


def test_pairs_that_earlier_runs_of_preferences_saw_are_no_test(base, data, whole):
    again = functools.partial(configured, "preference", whole("preference", "lora").folder.path, data)
    assert load_examples(again()).notes == []  # the same seed, and so the same test part
    other = load_examples(again(**{"training.seed": 5}))
    path = whole("preference", "lora").folder.path
    assert other.test_size < 4
    assert other.notes == [f"test pairs that are left out, because {path} was trained on them: {4 - other.test_size}"]
    assert len(other.test) == other.test_size
    assistant = whole("assistant", "lora").folder.path  # it learned answers to these questions, and no preferences
    assert load_examples(configured("preference", assistant, data, **{"training.seed": 6})).test_size == 4


def test_wrong_files_and_bases_are_refused(tmp_path, base, data):
    config = configured("assistant", base, data)
    with pytest.raises(DataError, match="nowhere: no such file; those that ship with the package are"):
        load_examples(config.changed({"finetune.data": "nowhere"}))
    with pytest.raises(LoadError, match="no model here"):
        load_examples(config.changed({"finetune.base": str(tmp_path)}))
    with pytest.raises(DataError, match=r"give JSON: a line is an object with instruction, output$"):
        load_examples(config.changed({"finetune.data": str(data / "classifier")}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "finetune.rank: must be at least 1, got 0"),
        ({"embeddings": -1}, "finetune.embeddings: must be a rank, or 0 for none, got -1"),
        ({"alpha": 0.0}, "finetune.alpha: must be finite and above 0, got 0.0"),
        ({"beta": float("inf")}, "finetune.beta: must be finite and above 0, got inf"),
        ({"lora_dropout": 1.0}, r"finetune.lora_dropout: must lie in \[0, 1\), got 1.0"),
        ({"layers": "head"}, "finetune.layers: head is for a classifier"),
        ({"finetune.base": ""}, "name the base model and the file with examples"),
        ({"class_weights": True}, "has no effect on balanced classes"),
        ({"layers": "some"}, "finetune.layers: must be 'all', 'last', 'head' or 'lora', got 'some'"),
    ],
)
def test_settings_out_of_range_are_refused(base, data, changes, message):
    with pytest.raises(ConfigError, match=message):
        configured("assistant", base, data, **changes)


def test_messages_of_an_encoder_stand_between_its_marks(tmp_path, data):
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = WordPieceTokenizer([*marks, *WORDS, "not", "the", *map(str, range(40))])
    sizes = EncoderConfig(vocab_size=tokenizer.n_vocab, block_size=32, n_layer=1, n_head=1, n_embd=4)
    Encoder(sizes, Generator(0)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    parts = load_examples(configured("classifier", tmp_path, data))
    for part in (parts.training, parts.held_out):
        for ids, length in zip(part["ids"], part["lengths"], strict=True):
            texts = tokenizer.decode(ids[:length]).split()
            assert (texts[0], texts[-1]) == ("[CLS]", "[SEP]")
            assert (length, texts[3] in ("not", "the")) == (6, True)


def test_dropout_is_that_of_the_run_and_not_of_the_base_also_after_a_resume(tmp_path, base, data):
    config = configured("assistant", base, data, **{"model.dropout": 0.25, "training.workers": 2})
    whole, run = finished(Run.new(config, tmp_path / "whole")), Run.new(config, tmp_path / "run")
    assert run.model.config.dropout == 0.25
    finished(run, stop_at=2)
    run = Run.resume(tmp_path / "run")
    assert run.model.config.dropout == 0.25
    assert dataclasses.replace(run.model.config, dropout=0.0) == GPT.from_pretrained(base).config
    assert losses(finished(run)) == losses(whole)
