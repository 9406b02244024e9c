"""A sweep: every combination is run once, also when it is stopped in between."""

import csv
import json

import pytest

from tinygrad_llm.runs import sweep as sweep_module
from tinygrad_llm.runs.folder import load_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.runs.presets import fine_tuning
from tinygrad_llm.runs.sweep import Outcome, check_folder, ranked, read_sweep, run_trial, write_table
from tinygrad_llm.storage.lock import InUseError, lock
from tinygrad_llm.training import ConfigError
from tinygrad_llm.training import loop as loop_module
from tinygrad_llm.weights import WEIGHTS
from tinygrad_llm.weights.adapters import ADAPTER

BASE = """
[base]
preset = "char-cpu"
data.corpus = "text.txt"
model.block_size = 8
model.n_embd = 8
model.n_head = 2
model.n_layer = 1
training.steps = 4
training.batch_size = 2
training.warmup = 0
training.eval_every = 2
training.eval_batches = 1
training.workers = 1
"""
GRID = "[grid]\ntraining.lr = [1e-3, 1e-2]\nmodel.n_layer = [1, 2]\n"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n" * 20)
    return tmp_path


@pytest.fixture
def sweep_of(place):
    """A function: TOML → the Sweep."""

    def read(text):
        (place / "sweep.toml").write_text(text)
        return read_sweep(place / "sweep.toml")

    return read


def test_every_combination_is_a_run(sweep_of):
    sweep = sweep_of(BASE + GRID)
    assert str(sweep) == "4 runs: 2 training.lr × 2 model.n_layer"
    found = {(t.config.training.lr, t.config.model.n_layer) for t in sweep.trials}
    assert found == {(1e-3, 1), (1e-3, 2), (1e-2, 1), (1e-2, 2)}
    assert {t.config.training.steps for t in sweep.trials} == {4}
    assert sweep.trials[0].name == "lr=0.001,n_layer=1"


def test_a_file_changes_the_preset_and_keys_change_both(sweep_of, place):
    (place / "over.toml").write_text('preset = "baby"\n[model]\nn_embd = 12\nn_head = 2\n')
    (trial,) = sweep_of('[base]\nconfig = "over.toml"\nn_head = 3\n[grid]\ntraining.lr = [1]\n').trials
    assert (trial.config.preset, trial.config.model.n_embd, trial.config.model.n_head) == ("baby", 12, 3)
    assert trial.config.training.lr == 1.0


def test_the_steps_of_base_and_grid_are_fitted(sweep_of):
    sweep = sweep_of("[base]\ntraining.steps = 500\n[grid]\ntraining.steps = [30, 200]\n")
    found = [(t.config.training.steps, t.config.training.warmup, t.config.training.eval_every) for t in sweep.trials]
    assert found == [(30, 6, 7), (200, 40, 50)]


@pytest.mark.parametrize("task", ["classifier", "assistant", "preference"])
def test_adapters_have_the_settings_that_finetune_gives_them(sweep_of, task):
    base = f'[base]\npreset = "{task}"\nfinetune.task = "{task}"\nfinetune.base = "b"\nfinetune.data = "d"\n'
    every, lora = sweep_of(base + '[grid]\nfinetune.layers = ["all", "lora"]\n').trials
    for trial, layers in ((every, "all"), (lora, "lora")):
        assert trial.config == fine_tuning(task, "d", "b", {"finetune.layers": layers})
    (some,) = sweep_of(base + 'layers = "lora"\ntraining.steps = 7\n[grid]\nrank = [3]\n').trials
    given = {"finetune.layers": "lora", "training.steps": 7, "finetune.rank": 3}
    assert some.config == fine_tuning(task, "d", "b", given)
    assert some.config.training.epochs == 0


def test_a_configuration_that_is_cut_off_is_named_as_damaged(sweep_of, place):
    sweep = sweep_of(BASE + "[grid]\ntraining.lr = [0.01]\n")
    run_trial(sweep.trials[0], place / "out")
    check_folder(sweep, place / "out")
    path = place / "out" / sweep.trials[0].name / "config.toml"
    text = path.read_text()
    for cut in (text[: text.index("lr =")], text[: text.index("lr =") + 4]):
        path.write_text(cut)
        with pytest.raises(ConfigError, match=r"config\.toml: .*the file is damaged.*: remove the folder, or choose"):
            check_folder(sweep, place / "out")


def test_values_may_be_lists_and_paths(sweep_of, place):
    sweep = sweep_of(
        BASE + '[grid]\ntraining.betas = [[0.9, 0.95], [0.9, 0.99]]\n"data.corpus" = ["../a/b", "..-a-b", "x"]\n'
    )
    names = [trial.name for trial in sweep.trials]
    assert len(set(names)) == 6
    for name in names:
        assert (place / "out" / name).resolve().parent == (place / "out").resolve()
    assert names[2] == "betas=0.9-0.95,corpus=x"


def test_a_long_combination_has_a_short_name(sweep_of):
    corpora = json.dumps(["a" * 500 + "1", "a" * 500 + "2"])
    first, second = sweep_of(BASE + f"[grid]\ndata.corpus = {corpora}\n").trials
    assert first.name != second.name
    assert len(first.name) < 128


# What is wrong with a sweep: (TOML, a part of the message).
MISTAKES = {
    "an unknown table": ("[gird]\nlr = [1]", "unknown table [gird]: did you mean grid?"),
    "a key outside": ("steps = 1\n[grid]\nlr = [1]", "unknown table [steps]"),
    "no table": ("base = 1", "base: must be a table, [base], not 1"),
    "no grid": ("[base]\nlr = 1", "[grid] is missing or empty"),
    "no list": ("[grid]\nlr = 1", "grid: lr: must be a list"),
    "an empty list": ("[grid]\nlr = []", "grid: lr: must be a list"),
    "an unknown key": ("[grid]\ntraining.lrr = [1]", "did you mean training.lr?"),
    "an unknown key in base": ("[base]\nwarmpu = 1\n[grid]\nlr = [1]", "unknown key 'warmpu': did you mean warmup"),
    "a preset in the grid": ('[grid]\npreset = ["baby"]', "grid: preset: is one for all runs: write it in [base]"),
    "a rate below the floor": ("[grid]\nlr = [1e-3, 5e-5]", "grid: lr=5e-05: training.min_lr: 0.0001 is above"),
    "a file that is missing": ('[base]\nconfig = "x.toml"\n[grid]\nlr = [1]', "x.toml: cannot be read: No such file"),
    "an unknown preset": ('[base]\npreset = "x"\n[grid]\nlr = [1]', "base: unknown preset 'x'"),
    "a preset that is a number": ("[base]\npreset = 1\n[grid]\nlr = [1]", "base: preset: must be a string"),
    "a wrong type": ('[grid]\nlr = ["fast"]', "training.lr: must be a number, got 'fast'"),
    "what cannot be": ("[grid]\nn_head = [3]", "grid: n_head=3: GPTConfig"),
    "one key under two names": ("[grid]\nlr = [1]\ntraining.lr = [2]", "lr and training.lr are the same key"),
    "one value twice": ("[grid]\nlr = [1, 1.0]", "lr=1.0: is the same run as lr=1:"),
    "too many": ("[grid]\n" + "".join(f"{k} = {list(range(1, 99))}\n" for k in ("lr", "seed", "steps")), "941,192"),
    "no TOML": ("[grid", "not TOML"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name, sweep_of):
    text, message = MISTAKES[name]
    with pytest.raises(ConfigError) as error:
        sweep_of(text)
    assert message in str(error.value)
    assert "sweep.toml" in str(error.value)


def test_a_file_that_is_not_text_or_is_too_long_is_refused(place):
    for data, message in ((b"\xff", "not UTF-8"), (b"#" * 1_000_001, "longer than")):
        (place / "sweep.toml").write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            read_sweep("sweep.toml")


def test_finished_runs_are_not_repeated(sweep_of, place, monkeypatch):
    trials = sweep_of(BASE + GRID).trials
    before = [run_trial(trial, place / "out") for trial in trials]
    assert [outcome.status for outcome in before] == ["finished"] * 4
    assert all(outcome.steps == 4 and outcome.val_loss > 0 for outcome in before)
    weights = place / "out" / trials[0].name / WEIGHTS
    weights.rename(weights.with_name(ADAPTER))  # what a fine-tuning with LoRA saves instead
    monkeypatch.setattr(sweep_module, "_open", lambda *args: pytest.fail("it was run again"))
    assert [run_trial(trial, place / "out") for trial in trials] == before


@pytest.mark.parametrize("saved", [True, False], ids=["stopped", "killed"])
def test_a_stopped_run_resumes_to_the_same_weights(saved, sweep_of, place):
    trial = sweep_of(BASE + GRID).trials[0]
    whole = run_trial(trial, place / "whole")
    seen = []

    def show(run, step):
        seen.append(step.step)
        if not saved and step.step == 3:
            raise KeyboardInterrupt

    if saved:
        stopped = run_trial(trial, place / "parts", lambda: 3 in seen, show)
        assert (stopped.status, stopped.steps) == ("stopped", 3)
    else:
        with pytest.raises(KeyboardInterrupt):
            run_trial(trial, place / "parts", show=show)
    seen.clear()
    assert run_trial(trial, place / "parts", show=show if saved else lambda *args: seen.append(args[1].step)) == whole
    assert seen == ([4] if saved else [3, 4])
    folders = [place / name / trial.name / "model.safetensors" for name in ("whole", "parts")]
    assert folders[0].read_bytes() == folders[1].read_bytes()


def test_a_run_killed_before_its_first_checkpoint_begins_again(sweep_of, place):
    trial = sweep_of(BASE + GRID).trials[0]
    whole = run_trial(trial, place / "whole")
    folder = place / "out" / trial.name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / ".0123456789abcdef.tmp").touch()
    (folder / "config.toml").write_text((place / "whole" / trial.name / "config.toml").read_text())
    assert run_trial(trial, place / "out") == whole
    assert [path.name for path in (place / "out").iterdir()] == [trial.name]


def test_a_run_of_another_process_is_left_alone(sweep_of, place):
    trial = sweep_of(BASE + GRID).trials[0]
    folder = place / "out" / trial.name
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[training]\n")
    give_back = lock(folder)
    with pytest.raises(InUseError, match="is being trained by process"):
        run_trial(trial, place / "out")
    assert (folder / "config.toml").exists()
    give_back()
    assert run_trial(trial, place / "out").status == "finished"


def test_a_run_that_diverges_is_not_repeated(sweep_of, place, monkeypatch):
    trial = sweep_of(BASE + "[grid]\ntraining.lr = [1e30]\n").trials[0]
    outcome = run_trial(trial, place / "out")
    assert outcome.status == "diverged"
    assert "Try a lower learning rate" in outcome.reason
    monkeypatch.setattr(loop_module.Trainer, "advance", lambda trainer: pytest.fail("it was run again"))
    assert run_trial(trial, place / "out") == outcome


def test_a_run_that_cannot_start_has_failed_and_is_tried_again(sweep_of, place):
    trial = sweep_of(BASE + "[grid]\nmodel.block_size = [4000]\n").trials[0]
    outcome = run_trial(trial, place / "out")
    assert outcome.status == "failed"
    assert "give a longer text" in outcome.reason
    (place / "text.txt").write_text("The cat sat on the mat.\n" * 2000)
    assert run_trial(trial, place / "out", lambda: True).status == "stopped"


def test_a_folder_of_other_settings_is_refused(sweep_of, place):
    sweep = sweep_of(BASE.replace("training.workers = 1", "") + GRID)
    run_trial(sweep.trials[0], place / "out")
    check_folder(sweep, place / "out")
    check_folder(sweep_of(BASE.replace("training.workers = 1", "") + GRID.replace("[1,", "[3, 1,")), place / "out")
    with pytest.raises(ConfigError, match=r"training\.steps: 4 before, 5 now"):
        check_folder(sweep_of(BASE.replace("steps = 4", "steps = 5") + GRID), place / "out")


def test_epochs_may_be_swept_over(sweep_of, place):
    sweep = sweep_of(BASE + "training.epochs = 1\ntraining.stride = 100\n" + GRID)
    outcome = run_trial(sweep.trials[0], place / "out")
    check_folder(sweep, place / "out")
    assert run_trial(sweep.trials[0], place / "out") == outcome
    assert outcome.steps == len(read_metrics(place / "out" / outcome.name / "metrics.jsonl")) - 1 == 2
    load_run(place / "out" / outcome.name)


def test_the_table_is_sorted_by_held_out_loss(place):
    values = {"training.lr": 1.0, "training.betas": [0.9, 0.99]}
    outcomes = [
        Outcome("worse", values, "finished", 4, 1.0, 2.0),
        Outcome("gone", values, "diverged", 2, None, 0.5, "NaN, at once"),
        Outcome("unknown", values, "finished", 4, 1.0, None),
        Outcome("best", values, "finished", 4, 3.0, 0.0),
    ]
    assert [outcome.name for outcome in ranked(outcomes)] == ["best", "worse", "unknown", "gone"]
    paths = write_table(outcomes, place / "new" / "out")
    assert [path.name for path in paths] == ["sweep.csv", "sweep.json"]
    with open(paths[0], newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["best", "worse", "unknown", "gone"]
    assert lines[3]["reason"] == "NaN, at once"
    assert lines[0]["training.lr"] == "1.0"
    runs = json.loads(paths[1].read_text())["runs"]
    assert runs[0] == {
        "name": "best", "values": values, "status": "finished", "steps": 4, "loss": 3.0, "val_loss": 0.0, "reason": "",
    }  # fmt: skip


def test_only_a_finished_trial_is_ranked_by_its_loss():
    ends = [("stopped", 0.1), ("diverged", None), ("finished", 2.0), ("failed", None), ("finished", 1.0)]
    outcomes = [Outcome(f"{n}", {}, status, 4, 1.0, loss) for n, (status, loss) in enumerate(ends)]
    assert [outcome.name for outcome in ranked(outcomes)] == ["4", "2", "0", "1", "3"]


def test_the_table_keeps_the_runs_of_an_earlier_sweep(place):
    for name in ("lr=1", "lr=2"):
        (place / "out" / name).mkdir(parents=True)
    first = [Outcome(f"lr={lr}", {"lr": lr}, "finished", 4, 1.0, 5.0 - lr) for lr in (1, 2, 3)]
    write_table(first, place / "out")
    again = [Outcome("seed=7", {"seed": 7}, "finished", 4, 1.0, 3.5), Outcome("lr=1", {"lr": 1}, "stopped")]
    paths = write_table(again, place / "out")
    with open(paths[0], newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["name"], line["lr"], line["seed"], line["status"]) for line in lines] == [
        ("lr=2", "2", "", "finished"), ("seed=7", "", "7", "finished"), ("lr=1", "1", "", "stopped"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[]", '{"runs": 1}', '{"runs": [{"name": "a"}]}', '{"runs": [{"name": 7}]}'])
def test_a_table_that_cannot_be_read_is_replaced(text, place):
    (place / "a").mkdir()
    (place / "sweep.json").write_text(text)
    write_table([Outcome("b", {}, "finished")], place)
    assert [run["name"] for run in json.loads((place / "sweep.json").read_text())["runs"]] == ["b"]


def test_a_run_that_needs_too_much_memory_does_not_end_the_sweep(sweep_of, place, monkeypatch):
    def too_much(*_):
        raise MemoryError

    trial = sweep_of(BASE + "[grid]\ntraining.lr = [0.1]\n").trials[0]
    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Trainer, "advance", too_much)
        outcome = run_trial(trial, place / "out")
    assert (outcome.status, outcome.reason) == ("failed", "it needs more memory than there is")


def test_a_finished_run_that_lost_its_configuration_is_run_again(sweep_of, place):
    trial = sweep_of(BASE + "[grid]\ntraining.lr = [0.1]\n").trials[0]
    assert run_trial(trial, place / "out").status == "finished"
    (place / "out" / trial.name / "config.toml").unlink()
    assert run_trial(trial, place / "out").status in ("finished", "failed")
