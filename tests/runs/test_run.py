"""A run's folder: complete or as it was before, locked while it is trained, and loaded again."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from power_cut import PowerCut

from tinygrad_llm.formats.checkpoint import save_checkpoint
from tinygrad_llm.models import GPT, GPTClassifier
from tinygrad_llm.runs import run as run_module
from tinygrad_llm.runs.config import keys, read_toml
from tinygrad_llm.runs.folder import FILES, RunFolder, about_run, choose_weights, clear_run, holds_run, load_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import CharTokenizer
from tinygrad_llm.weights import pretrained

FEW = {"steps": 3, "eval_every": 2, "warmup": 1}
PAIRS = {"tokenizer": "bpe", "vocab_size": 280}


def finish(run):
    for step in run.train():
        if step.val_loss is not None:
            run.sample(10)
    return run


@pytest.fixture
def trained(new):
    """A function: changes → a Run that has been trained, and is not saved."""
    return lambda **changes: finish(new(**FEW, **changes))


# ---- what is saved ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, PAIRS], ids=["char", "bpe"])
def test_a_saved_run_comes_back(changes, trained):
    run = trained(**changes)
    written = run.save()
    folder = run.folder.path
    assert sorted(written) == sorted(folder.iterdir())
    for path in (folder, folder / "model.safetensors"):  # the path of the file is also accepted
        model, tokenizer = load_run(path)
        ids = tokenizer.encode("the mat")
        assert ids == run.data.tokenizer.encode("the mat")
        assert model.config == run.model.config
        np.testing.assert_array_equal(model.eval()([ids]).numpy(), run.model.eval()([ids]).numpy())


def test_the_folder_holds_metrics_samples_configuration_and_origin(trained, text):
    run = trained()
    run.samples[1] = (2, "saß")
    folder = run.save()[0].parent
    assert read_metrics(folder / "metrics.jsonl") == run.steps
    assert [step.step for step in run.steps] == [0, 1, 2, 3]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 5
    samples = (folder / "samples.txt").read_text(encoding="utf-8")
    assert [line for line in samples.splitlines() if line.startswith("---")] == [f"--- step {n} ---" for n in (0, 2, 3)]
    assert "--- step 2 ---\nsaß\n" in samples
    about = about_run(folder)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert about["identity"]["corpus"] == [{"characters": len(text), "sha256": sha256}]
    assert about["identity"]["tokenizer"]["tokens"] == run.data.tokenizer.n_vocab
    assert about["steps_done"] == 3
    assert [run.folder.is_saved(step) for step in (2, 3, 4)] == [False, True, False]
    values = read_toml(folder / "config.toml")
    assert (values["model.n_embd"], values["training.lr"], values["training.workers"]) == (8, 1e-2, 1)


def test_a_text_without_a_newline_can_be_sampled(new, tmp_path, text):
    (tmp_path / "line.txt").write_text(text.replace("\n", " "), encoding="utf-8")
    run = new(corpus=str(tmp_path / "line.txt"))
    assert len(run.sample(5)) == 5


def test_pictures_are_there_with_matplotlib_and_only_those_of_the_last_run_stay(pictures, trained, monkeypatch):
    old = trained()
    drawn = [path for path in old.save() if path.suffix == ".png"]
    assert [path.name for path in drawn] == ["loss.png", "gradients.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    monkeypatch.setattr(run_module, "save_pictures", lambda steps, folder: None)
    trained(seed=5).save()
    assert not any(path.exists() for path in drawn)


def test_everything_else_is_there_without_matplotlib(pictures, trained, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    run = trained()
    names = {path.name for path in run.save()}
    texts = {"tokenizer.json", "config.toml", "run.json", "metrics.jsonl", "metrics.csv", "samples.txt"}
    assert names == {"model.safetensors", "checkpoints"} | texts
    assert names == {path.name for path in run.folder.path.iterdir()}


def test_a_run_replaces_another_one_and_leaves_other_files_alone(trained, tmp_path):
    trained().save()
    own = [tmp_path / "run" / "my own.txt", tmp_path / "run" / "checkpoints" / "my own.txt"]
    for path in own:
        path.touch()
    run = trained(**PAIRS)
    assert load_run(tmp_path / "run")[1].n_vocab != run.data.tokenizer.n_vocab  # until the save
    run.save()
    assert load_run(tmp_path / "run")[1].n_vocab == run.data.tokenizer.n_vocab
    assert all(path.exists() for path in own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "text.txt"]
    assert run_module.Run.resume(tmp_path / "run", more=1).trainer.step == 3


# ---- saving that fails -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["a weight is NaN", "the disk is full", "the picture fails"])
def test_a_save_that_fails_leaves_the_old_run(reason, trained, contents, monkeypatch, tmp_path, text):
    old = trained()
    folder = old.save()[0].parent
    before = contents(folder)
    (tmp_path / "fox.txt").write_text(text.replace("cat", "fox"), encoding="utf-8")  # its tokenizer does not fit `old`
    new = trained(corpus=str(tmp_path / "fox.txt"))
    if reason == "a weight is NaN":
        new.model.transformer.ln_f.bias.data[0] = np.nan
    else:

        def fail(*args, **kwargs):
            raise OSError(28, "No space left on device")

        where = (pretrained, "save_safetensors") if reason == "the disk is full" else (run_module, "save_pictures")
        monkeypatch.setattr(*where, fail)
    with pytest.raises((ValueError, OSError), match=r"NaN|No space"):
        new.save()
    assert contents(folder) == before
    load_run(folder)


@pytest.fixture
def disk(monkeypatch):
    """A function: path → whether its bytes were synced; and a list of checks that are called before each rename."""
    synced = {}  # size by inode
    fsync, replace = os.fsync, os.replace
    checks = []

    def is_synced(path):
        return synced.get(os.stat(path).st_ino) == os.stat(path).st_size

    def spy_fsync(descriptor):
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size
        fsync(descriptor)

    def spy_replace(source, target):
        for check in checks:
            check(source, target)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    return is_synced, checks


def test_every_file_of_a_save_is_on_the_disk_before_the_first_is_put_into_place(trained, disk):
    run = trained()
    is_synced, checks = disk
    placed = []

    def check(source, target):
        if Path(source).parent.name == ".saving" != Path(target).parent.name:
            placed.append(os.path.basename(target))
            assert all(map(is_synced, (path for path in Path(source).parent.iterdir() if path.name in FILES)))

    checks.append(check)
    written = {path.name for path in run.save()} & set(FILES)
    assert set(placed) == written
    assert placed[-1] == "run.json"  # it says how many steps the others are of


def test_the_log_and_the_samples_are_on_the_disk_before_a_checkpoint_is_put_into_place(new, tmp_path, disk):
    is_synced, checks = disk
    steps = []

    def check(source, target):
        if os.path.basename(target).startswith("step-"):
            steps.append(int(os.path.basename(target)[5:13]))
            assert is_synced(tmp_path / "run" / "metrics.jsonl")
            assert is_synced(tmp_path / "run" / "samples.txt")

    checks.append(check)
    list(new(**FEW).train(sample=5))
    assert steps == [0, 2, 3]


def test_every_rename_of_a_run_outlives_a_power_cut(new, tmp_path, monkeypatch):
    disk = PowerCut(monkeypatch)
    for changes in ({}, {"seed": 8}):  # the second replaces the first, whose place its checkpoints take
        run = new(**FEW, **changes)
        training = run.train()
        next(training)
        disk.check()
        list(training)
        run.save()
        disk.check()
    assert not (tmp_path / "run-stopped").exists()


# ---- the folder itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "checkpoints"])
def test_each_of_its_files_shows_that_a_folder_holds_a_run(name, tmp_path):
    assert not holds_run(tmp_path)
    (tmp_path / name).touch()
    assert holds_run(tmp_path)


def test_clear_run_removes_its_own_files_and_no_others(trained, tmp_path):
    trained().save()
    (tmp_path / "run" / ".saving").mkdir()
    (tmp_path / "run" / ".saving" / "config.toml").touch()
    clear_run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    trained().save()
    (tmp_path / "run" / "my own.txt").touch()
    clear_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["my own.txt"]


def test_a_run_may_be_saved_twice(trained, tmp_path):
    for changes in ({}, {"seed": 8}):  # the second replaces the first
        run = trained(**changes)
        written = run.save()
        run.sample(5)
        assert run.save() == written
        assert (tmp_path / "run" / "samples.txt").read_text().count("--- step 3 ---") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "text.txt"]


@pytest.mark.parametrize("ended", [False, True])
def test_only_a_run_that_has_ended_takes_the_place_of_another(ended, new, trained, contents, tmp_path):
    trained().save()
    before = contents(tmp_path / "run")
    run = new(**FEW | {"eval_every": 3}, seed=4)
    list(run.train(lambda: not ended and run.trainer.step == 2))
    run.save()
    assert run.folder.path == tmp_path / ("run" if ended else "run-stopped")
    assert (contents(tmp_path / "run") == before) == (not ended)
    assert (tmp_path / "run-stopped").exists() == (not ended)
    assert about_run(run.folder.path)["steps_done"] == (3 if ended else 2)
    assert run.folder.checkpoints.steps() == ([0, 3] if ended else [0, 2])  # and none of the earlier run's


def test_each_step_is_on_disk_before_the_next_one_begins(new):
    run, found = new(**FEW), []
    for step in run.train():
        lines = (run.folder.work / "metrics.jsonl").read_text().splitlines()
        found.append((step.step, [json.loads(line)["step"] for line in lines]))
    assert found == [(n, list(range(n + 1))) for n in range(4)]


def test_a_run_that_is_saved_untrained_has_done_no_step(new):
    run = new(**FEW)
    run.save()
    assert about_run(run.folder.path)["steps_done"] == 0
    assert not run.steps


def test_a_run_that_was_stopped_earlier_is_left_alone(tmp_path):
    for name in ("run", "run-stopped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    assert RunFolder(tmp_path / "run").work == tmp_path / "run-stopped-2"


@pytest.mark.parametrize("text", ["", "[]", "\xff"])
def test_about_run_is_empty_where_run_json_cannot_be_read(text, tmp_path):
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    assert about_run(tmp_path) == {}


# ---- loading ---------------------------------------------------------------------------------------------------


def train_until(run, step):
    """Train as if the process were killed after this step."""
    weights = {}
    for done in run.train():
        if done.val_loss is not None:
            weights[done.step] = {name: array.copy() for name, array in run.model.state_dict().items()}
        if done.step == step:
            return weights
    raise AssertionError("it ended before")


def assert_weights(path, expected):
    found = load_run(path)[0].state_dict()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)


def test_the_weights_of_a_run_that_is_not_saved_are_in_its_newest_checkpoint(new, tmp_path):
    weights = train_until(new(eval_every=2), 7)
    chosen = choose_weights(tmp_path / "run")
    assert chosen.path.name == "step-00000006.ckpt.safetensors"
    assert chosen.note.endswith("run: it has no saved model yet: this is its checkpoint of step 6")
    assert_weights(chosen.path, weights[6])
    assert GPT.from_pretrained(chosen.path).config == load_run(chosen.path)[0].config
    for asked, step in (("last", 6), (4, 4), (6, 6)):
        chosen = choose_weights(tmp_path / "run", asked)
        assert f"step-{step:08d}" in chosen.note
        assert_weights(chosen.path, weights[step])
    with pytest.raises(LoadError, match=r"run: has no checkpoint of step 5: there are those of step (\d, )*4, 6$"):
        choose_weights(tmp_path / "run", 5)
    with pytest.raises(LoadError, match=r"no model here .*: name a checkpoint .* such as .*step-00000006\.ckpt"):
        GPT.from_pretrained(tmp_path / "run")


def test_the_best_checkpoint_is_the_one_of_the_lowest_held_out_loss(new, tmp_path):
    run = new(eval_every=1, lr=0.5, min_lr=0.5)  # which soon makes it worse
    weights = train_until(run, 9)
    best = min(run.steps, key=lambda step: (step.val_loss, -step.step)).step
    assert best < 7
    assert_weights(choose_weights(tmp_path / "run", "best").path, weights[best])


def test_the_saved_model_is_read_unless_a_checkpoint_is_newer(new, tmp_path):
    run = new(eval_every=2)
    list(run.train(lambda: run.trainer.step == 4))
    run.save()
    assert choose_weights(tmp_path / "run") == (tmp_path / "run", "")
    resumed = run_module.Run.resume(tmp_path / "run")
    weights = train_until(resumed, 7)
    chosen = choose_weights(tmp_path / "run")
    assert chosen.note.endswith("run: its saved model is of step 4: this is its checkpoint of step 6")
    assert_weights(chosen.path, weights[6])
    finish(run_module.Run.resume(tmp_path / "run")).save()
    assert choose_weights(tmp_path / "run") == (tmp_path / "run", "")


def test_a_path_that_is_no_run_is_left_alone(tmp_path):
    for path in ("gpt2", tmp_path, tmp_path / "nothing"):
        assert choose_weights(path) == (Path(path), "")
        with pytest.raises(LoadError, match="has no checkpoints"):
            choose_weights(path, "best")


def test_a_checkpoint_needs_the_tokenizer_that_it_was_trained_with(new, tmp_path):
    train_until(new(eval_every=2), 3)
    path = choose_weights(tmp_path / "run").path
    tokenizer = load_run(path)[1]
    (tmp_path / "run" / "run.json").unlink()  # the checkpoint states it too
    CharTokenizer(tokenizer.characters[::-1]).save(tmp_path / "run" / "tokenizer.json")
    with pytest.raises(LoadError, match=r"tokenizer\.json is not the one that the run was trained with"):
        load_run(path)
    (tmp_path / "run" / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match=r"tokenizer\.json is missing"):
        load_run(path)


def test_a_checkpoint_of_another_kind_is_refused(new, tmp_path):
    train_until(new(eval_every=2), 3)
    path = choose_weights(tmp_path / "run").path
    with pytest.raises(LoadError, match=r"holds 'tinygrad_llm\.GPT', and 'tinygrad_llm\.GPTClassifier' is needed"):
        GPTClassifier.from_pretrained(path)
    save_checkpoint(path, {"model.x": np.ones(1)}, {"step": 2})
    with pytest.raises(LoadError, match=r"does not state its model's sizes: `tinygrad-llm train --resume`"):
        GPT.from_pretrained(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LoadError, match="truncated"):
        GPT.from_pretrained(path)


def test_files_that_do_not_make_a_run_are_refused(trained, tmp_path):
    folder = trained().save()[0].parent
    model, tokenizer = (folder / name for name in ("model.safetensors", "tokenizer.json"))
    n_vocab = load_run(folder)[1].n_vocab
    tokenizer.rename(tmp_path / "tokenizer.json")
    with pytest.raises(LoadError, match=r"tokenizer\.json is missing"):
        load_run(folder)
    CharTokenizer("abc").save(tokenizer)
    with pytest.raises(LoadError, match=rf"has 3 tokens and the model {n_vocab}"):
        load_run(folder)
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(LoadError, match="truncated"):
        load_run(folder)
    model.unlink()
    with pytest.raises(LoadError, match=r"model.safetensors is missing"):
        load_run(folder)
    with pytest.raises(LoadError, match="nowhere"):
        load_run(tmp_path / "nowhere")


def test_eval_reads_a_run_without_the_training_package(trained):
    folder = str(trained().save()[0].parent)
    code = (
        f"import sys; from tinygrad_llm.cli import main; main(['eval', {folder!r}, '--next', 'T']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "tinygrad_llm.runs.folder" in modules
    assert not [name for name in modules if name.startswith("tinygrad_llm.training")]


# ---- settings --------------------------------------------------------------------------------------------------

# Each setting with another value; and, where it only counts together with another one, with that.
OTHERS = {
    "data.tokenizer": ("bpe", {}),
    "data.vocab_size": (260, {"tokenizer": "bpe"}),
    "model.block_size": (4, {}),
    "model.n_layer": (2, {}),
    "model.n_head": (1, {}),
    "model.n_embd": (12, {}),
    "model.dropout": (0.5, {}),
    "training.masks": ("quick", {"dropout": 0.5}),
    "model.qkv_bias": (False, {}),
    "model.tie_weights": (False, {}),
    "model.initializer_range": (0.1, {}),
    "model.positions": ("rotary", {}),
    "training.steps": (5, {}),
    "training.extended": ([[4, 9]], {}),
    "training.epochs": (1, {"stride": 25}),
    "training.batch_size": (3, {}),
    "training.accumulation": (2, {}),
    "training.optimizer": ("adam", {}),
    "training.lr": (0.02, {}),
    "training.min_lr": (0.0, {}),
    "training.warmup": (3, {}),
    "training.schedule": ("linear", {}),
    "training.betas": ([0.5, 0.9], {}),
    "training.eps": (0.1, {}),
    "training.momentum": (0.5, {"optimizer": "sgd"}),
    "training.weight_decay": (0.5, {}),
    "training.decay": ("all", {}),
    "training.label_smoothing": (0.1, {}),
    "training.clip": (0.01, {}),
    "training.order": ("random", {}),
    "training.stride": (3, {}),
    "training.eval_every": (2, {}),
    "training.eval_batches": (1, {}),
    "training.checkpoint_every": (1, {}),
    "training.seed": (4, {}),
}
# Which file is read, how a bad step ends, how much memory is taken, how many threads work, which kind of model it is,
# and what only other kinds have: tested elsewhere.
EXEMPT = {"data.corpus", "data.keep_newlines", "data.init", "data.files", "data.weights", "data.dtype", "data.held_out"}
EXEMPT |= {
    "model.kind",
    "model.segments",
    "model.layer_norm_eps",
    "model.norm_first",
    "model.cross_attention",
    "data.pairs",
    "data.source",
    "data.target",
    "training.on_bad_step",
    "training.recompute",
    "training.workers",
}


def test_every_setting_changes_the_run(new, tmp_path):
    def result(**changes):
        run = new(f"run {len(list(tmp_path.iterdir()))}", **{"training.steps": 4, **changes})
        steps = [(step.step, step.loss, step.lr, step.val_loss) for step in run.train()]
        weights = [array.tobytes() for array in run.model.state_dict().values()]
        return steps, weights, sorted(path.name for path in (run.folder.work / "checkpoints").iterdir())

    assert OTHERS.keys() | EXEMPT == {key for key, _ in keys()}
    bases = {}
    without_effect = []
    for key, (value, together) in OTHERS.items():
        base = str(together)
        bases[base] = bases.get(base) or result(**together)
        if result(**together, **{key: value}) == bases[base]:
            without_effect.append(key)
    assert without_effect == []
