"""Configuration: a preset changed by a file and by key=value; what is written is read again."""

import dataclasses
import math
import os
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.finetuning.settings import FineTuneSettings
from tinygrad_llm.models import MODELS
from tinygrad_llm.runs import config as config_module
from tinygrad_llm.runs.config import DataSettings, RunConfig, keys, parse_change, read_toml
from tinygrad_llm.runs.presets import PRESETS, load_config
from tinygrad_llm.training import ConfigError, TrainSettings

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AT_LEAST_0 = st.floats(0, 1e300)
POSITIVE = st.integers(1, 2**63 - 1)
VALUES = {
    "data.corpus": TEXTS,
    "data.files": st.just(["a", "b\n\"'\\\x7f\x00é🦊"]),
    "data.weights": st.just([0.1, 7]),
    "data.held_out": TEXTS,
    "data.tokenizer": TEXTS,
    "data.vocab_size": st.integers(257, 2**63 - 1),
    "model.dropout": st.floats(0, 1, exclude_max=True),
    "model.qkv_bias": st.booleans(),
    "model.block_size": POSITIVE,
    "model.initializer_range": st.floats(0, 1, exclude_min=True) | st.none(),
    "training.steps": POSITIVE,
    "training.lr": AT_LEAST_0 | st.integers(0, 1000),
    "training.eps": AT_LEAST_0,
    "training.betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
    "training.clip": st.floats(0, math.inf, exclude_min=True),
    "training.order": st.sampled_from(["epochs", "random"]),
    "training.schedule": st.sampled_from(["cosine", "linear", "constant", "inverse_sqrt"]),
    "training.workers": POSITIVE,
}
CHANGES = st.fixed_dictionaries({"training.warmup": st.just(0), "training.min_lr": st.just(0.0)}, optional=VALUES)


@given(CHANGES)
def test_a_configuration_that_is_written_is_read_again(changes):
    if "data.weights" in changes or "data.held_out" in changes:
        changes["data.files"] = ["a", "b"]
    config = PRESETS["stories"].changed(changes)
    values = config_module.parse_toml(config.to_toml())
    assert values.pop("preset") == "stories"
    again = RunConfig(config.about, "stories").changed(values)
    assert again == config
    assert again.to_toml() == config.to_toml()
    # A default of None is left out; another None is written as "none". Settings of other kinds of models are left out.
    own = {f"{table}.{field.name}" for table, fields in config.tables.items() for field in fields}
    assert own - set(values) == {"training.workers"} - set(changes)


@given(CHANGES)
def test_the_command_line_and_a_file_set_the_same_value(changes):
    for key, value in changes.items():
        expected = "none" if value is None else value  # a key that may be None reads this word as None
        assert parse_change(f"{key}={config_module._toml(value)}") == (key, expected)


@given(st.text(max_size=12))
def test_a_value_that_is_not_toml_is_the_text_itself(text):
    text = f"a{text}b"  # no value in TOML begins with this letter
    assert parse_change(f"data.corpus = {text} ") == ("data.corpus", text)


@pytest.mark.parametrize("text", ["1\nb = 2", "2024.txt", "[x", "true story", "C:\\x", "'it's'", "a=b", "é.txt"])
def test_a_value_that_only_begins_like_toml_is_the_text_itself(text):
    assert parse_change(f"data.corpus={text}") == ("data.corpus", text)


@pytest.mark.parametrize(
    ("text", "value"), [("'a b'", "a b"), ("[0.5, 1]", [0.5, 1]), ("inf", math.inf), ("7 # seven", 7), ("true", True)]
)
def test_a_value_that_is_toml_is_read_as_toml(text, value):
    assert parse_change(f"key={text}") == ("key", value)


def test_every_key_has_a_help_text():
    classes = {"data": DataSettings, "training": TrainSettings, "finetune": FineTuneSettings}
    fields = {f"{t}.{f.name}" for t, c in classes.items() for f in dataclasses.fields(c)}
    sizes = {f.name for model in MODELS.values() for f in dataclasses.fields(model.config_class)}
    sizes = sizes - {"vocab_size"} | {"kind"}
    assert {key for key, text in keys([*classes, "model"]) if text} == fields | {f"model.{name}" for name in sizes}
    assert set(config_module.MODEL_HELP) == sizes
    assert fields >= config_module.MAY_CHANGE


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_is_written_is_read_again(name, tmp_path):
    (tmp_path / "config.toml").write_text(PRESETS[name].to_toml())
    assert load_config(tmp_path / "config.toml") == PRESETS[name]


def test_a_file_changes_the_preset_that_it_names(tmp_path):
    (tmp_path / "my.toml").write_text('preset = "baby"\n[training]\nlr = 1\nbetas = [0.5, 0.75]\n')
    config = load_config(tmp_path / "my.toml")
    assert config == PRESETS["baby"].changed({"training.lr": 1.0, "betas": (0.5, 0.75)})
    assert type(config.training.lr) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.learning_rte=1", "unknown key 'training.learning_rte'"),
        ("training.step=1", r"unknown key 'training.step': did you mean training\.steps\?"),
        ("drop_out=1", r"unknown key 'drop_out': did you mean dropout\?"),
        ("model.lr=1", "unknown key 'model.lr'"),
        ("model.vocab_size=5", "unknown key 'model.vocab_size'"),
        ("lr=fast", r"training\.lr: must be a number, got 'fast'"),
        ("lr=true", r"training\.lr: must be a number, got True"),
        ("steps=1.5", r"training\.steps: must be an integer, got 1\.5"),
        ("steps=true", r"training\.steps: must be an integer, got True"),
        ("qkv_bias=1", r"model\.qkv_bias: must be true or false, got 1"),
        ("corpus=7", r"data\.corpus: must be a string, got 7"),
        ("betas=0.9", r"training\.betas: must be a list of 2, got 0\.9"),
        ("betas=[0.9]", r"training\.betas: must be a list of 2, got \[0\.9\]"),
        ("betas=[0.9, 'x']", r"training\.betas\[1\]: must be a number, got 'x'"),
        ("files=tokens.bin", r"data\.files: must be a list, got 'tokens\.bin'"),
        ("order=sorted", r"training\.order: must be 'epochs' or 'random', got 'sorted'"),
        ("steps=0", r"training\.steps: must be at least 1, got 0"),
        ("n_head=5", "must be a multiple of n_head"),
        ("held_out=a.bin", "is only for token files"),
        ("weights=[1.0]", r"data\.weights: are only for token files: name those as well \(--data\)"),
        ('files=["a", ""]', r"data\.files: one of the names is empty"),
        ("lr=5e-5", r"training\.min_lr: 0\.0001 is above training\.lr, 5e-05, .*min_lr=5e-06.*schedule=constant"),
        ("min_lr=2e-3", r"training\.min_lr: 0\.002 is above training\.lr, 0\.001"),
        ("label_smoothing=1", r"training\.label_smoothing: must be in \[0, 1\), got 1\.0"),
        ("betas=[0.9, 1]", r"training\.betas: must be in \[0, 1\), got \(0\.9, 1\.0\)"),
        ("clip=0", r"training\.clip: must be positive \(inf: no limit\)"),
        ("extended=[[5, 9], [5, 10]]", r"training\.extended: must be pairs .* got \[\[5, 9\], \[5, 10\]\]"),
        ("extended=[[0, 9]]", r"training\.extended: must be pairs"),
        ("extended=[[5, 0]]", r"training\.extended: must be pairs"),
        ("preset=gpt2", r"preset: .* use --preset"),
        ("about=x", "unknown key 'about': there are corpus"),
        ("vocab_size=256", "must be at least 257 .*, got 256"),
        ("warmup=2001", r"training\.warmup: 2001 steps of warm-up are more than the run's 2000"),
        ("steps=99", r"training\.warmup: 100 steps of warm-up are more than the run's 99 steps: set a shorter"),
        ("model.lr=1", r"unknown key 'model\.lr': did you mean training\.lr\?"),
        ("learning_rate=1", r"unknown key 'learning_rate': did you mean training\.lr\?"),
        ("training.max_iters=1", r"did you mean training\.steps\?"),
        ("n_layers=1", r"did you mean model\.n_layer\?"),
        ("num_heads=1", r"did you mean model\.n_head\?"),
        ("d_model=1", r"did you mean model\.n_embd\?"),
        ("context_length=1", r"did you mean model\.block_size\?"),
        ("training.checkpoint=true", r"did you mean training\.recompute\?"),
        ("steps", "'steps': a setting is written key=value"),
        ("=3", "a setting is written key=value"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(change, message):
    with pytest.raises(ConfigError, match=message):
        PRESETS["char-cpu"].changed(dict([parse_change(change)]))


def test_the_names_of_other_libraries_are_not_keys_and_each_names_one():
    ours = {key.split(".")[1] for key, _ in keys()}
    assert not ours & config_module._ELSEWHERE.keys()
    assert ours >= set(config_module._ELSEWHERE.values())


@pytest.mark.parametrize("changes", [{"lr": 1.0, "training.lr": 2.0}, {"training.lr": 1.0, "lr": 1.0}], ids=str)
def test_a_key_that_is_given_twice_is_refused(changes):
    first, second = changes
    with pytest.raises(ConfigError, match=f"{first} and {second} are the same key"):
        PRESETS["char-cpu"].changed(changes)


def test_a_warm_up_may_last_for_the_whole_run_and_no_longer():
    assert TrainSettings(steps=5, warmup=5).warmup == 5
    with pytest.raises(ConfigError, match=r"training\.warmup: 6 steps"):
        TrainSettings(steps=5, warmup=6)
    epochs = TrainSettings(steps=5, epochs=3, warmup=20, accumulation=2)  # how many steps that is, the data say
    assert epochs.counted(14).steps == 21
    with pytest.raises(ConfigError, match=r"training\.warmup: 20 steps of warm-up are more than the run's 18"):
        epochs.counted(12)
    assert TrainSettings(steps=200).counted(7) == TrainSettings(steps=200)


@pytest.mark.parametrize(
    ("epochs", "batches", "accumulation", "steps"),
    [(2, 281, 1000, 1), (2, 281, 100, 5), (10, 18, 1, 180), (3, 1, 2, 1)],
)
def test_epochs_are_as_many_steps_as_their_batches_fill(epochs, batches, accumulation, steps):
    settings = TrainSettings(epochs=epochs, accumulation=accumulation, warmup=0)
    assert settings.counted(batches).steps == steps


def test_either_all_files_have_weights_or_none_has():
    assert DataSettings(files=("a",), weights=(1.0,)).weights == (1.0,)
    with pytest.raises(ConfigError, match=r"data\.weights: got 2 for 1 files"):
        DataSettings(files=("a",), weights=(1.0, 2.0))


def test_a_constant_rate_has_no_floor():
    assert TrainSettings(lr=1e-5, min_lr=1e-4, schedule="constant").lr == 1e-5


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[trainig]\nlr = 1\n", r"my\.toml: unknown table \[trainig\]: did you mean training\?"),
        (b"[training]\nlr = \n", r"my\.toml: not TOML"),
        (b"\xff", r"my\.toml: not UTF-8"),
        (b"[training]\nsteps = 'many'\n", r"my\.toml: training\.steps: must be an integer"),
        (b"preset = 7\n", r"my\.toml: preset: must be a string"),
        (b"preset = 'huge'\n", r"my\.toml: unknown preset 'huge': there are char-cpu"),
        (b"preset = 'babby'\n", r"my\.toml: unknown preset 'babby': did you mean baby\?"),
        (b"steps = 7.5\n", r"my\.toml: training\.steps: must be"),
        (b"training = 3\n", r"my\.toml: training: must be a table, which a line \[training\] begins; got 3"),
        (b"[[training]]\nlr = 1\n", r"my\.toml: training: must be a table"),
        (b"[" * 100_000, r"my\.toml: not TOML"),
        (b"# " * 600_000, r"my\.toml: is longer than"),
        (b"lr = 1.0\n[training]\nlr = 2.0\n", r"my\.toml: lr and training\.lr are the same key: give it once"),
    ],
)
def test_a_wrong_file_is_refused_by_name(content, message, tmp_path):
    (tmp_path / "my.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "my.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_at_once_and_a_byte_order_mark_is_no_setting(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match=r"pipe\.toml: not a regular file"):
        read_toml(tmp_path / "pipe.toml")
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf[training]\r\nsteps = 5\r\n")
    assert read_toml(tmp_path / "marked.toml") == {"training.steps": 5}


def test_a_path_that_is_not_text_cannot_be_written():
    with pytest.raises(ConfigError, match="is not Unicode text"):
        RunConfig(data=DataSettings(corpus="\udcff.txt")).to_toml()


def test_the_written_file_explains_each_key():
    text = PRESETS["gpt2"].to_toml()
    assert "accumulation = 40  # batches whose gradients make one update" in text
    assert tomllib.loads(text)["training"]["lr"] == 6e-4


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
def test_fewer_steps_keep_the_shape_of_a_run(steps):
    settings = PRESETS["stories"].fitted({"steps": steps}).training
    assert settings.steps == steps
    assert settings.warmup < steps
    assert 1 <= settings.eval_every <= steps
    assert PRESETS["stories"].fitted({}) == PRESETS["stories"]
    for name in ("stories", "char-cpu"):  # more steps change nothing else
        assert PRESETS[name].fitted({"steps": 10**6}) == PRESETS[name].changed({"steps": 10**6})
    assert PRESETS["book-mini"].fitted({"training.steps": steps}).training.epochs == 0


def test_a_setting_that_is_given_with_the_steps_is_not_fitted_to_them():
    settings = PRESETS["char-cpu"].fitted({"steps": 30, "training.warmup": 20, "eval_every": 50}).training
    assert (settings.steps, settings.warmup, settings.eval_every) == (30, 20, 50)
    with pytest.raises(ConfigError, match=r"training\.warmup: 31 steps of warm-up are more than the run's 30"):
        PRESETS["char-cpu"].fitted({"steps": 30, "warmup": 31})
    assert PRESETS["book-mini"].fitted({"steps": 30, "epochs": 2}).training.epochs == 2
    with pytest.raises(ConfigError, match=r"training\.steps: must be an integer, got 'few'"):
        PRESETS["char-cpu"].fitted({"steps": "few"})


def test_the_steps_of_a_file_are_fitted_over_its_preset(tmp_path):
    (tmp_path / "my.toml").write_text("preset = 'char-cpu'\n[training]\nsteps = 30\n")
    assert load_config(tmp_path / "my.toml") == PRESETS["char-cpu"].fitted({"steps": 30})


def test_absolute_paths_are_valid_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = DataSettings(corpus="a.txt", files=("b.bin",), held_out="d.bin", tokenizer="runs/c")
    assert RunConfig(data=data).absolute().data == DataSettings(
        corpus=str(tmp_path / "a.txt"),
        files=(str(tmp_path / "b.bin"),),
        held_out=str(tmp_path / "d.bin"),
        tokenizer=str(tmp_path / "runs/c"),
    )
    assert PRESETS["stories"].absolute() == PRESETS["stories"]
    # These may also be names, of a model or of a file that ships: a path is what is there.
    both = RunConfig(
        data=DataSettings(init="base", pairs="gone"), finetune=FineTuneSettings("assistant", "base", "instructions")
    )
    assert (both.absolute().data.init, both.absolute().data.pairs) == ("base", "gone")
    for name in ("base", "gone", "instructions"):
        (tmp_path / name).mkdir()
    found = both.absolute()
    assert [found.data.init, found.data.pairs] == [str(tmp_path / "base"), str(tmp_path / "gone")]
    assert [found.finetune.base, found.finetune.data] == [str(tmp_path / "base"), str(tmp_path / "instructions")]


@pytest.mark.parametrize("key", ["lr", "seed", "steps"])
def test_an_integer_above_63_bits_is_refused(key):
    with pytest.raises(ConfigError, match=rf"{key}: must be below 2"):
        PRESETS["char-cpu"].changed({f"training.{key}": 10**400})


def test_a_kind_of_model_is_written_and_another_is_refused():
    config = PRESETS["char-cpu"]
    values = config_module.parse_toml(config.to_toml())
    assert values["model.kind"] == config.model.kind == "gpt"
    with pytest.raises(ConfigError, match=r"model\.kind: must be"):
        config.changed({"model.kind": "rnn"})


def test_another_kind_of_model_has_its_own_sizes(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class OtherConfig:
        kind = "other"
        n_layer: int = 7
        dropout: float = 0.5

    monkeypatch.setitem(config_module.KINDS, "other", OtherConfig)
    monkeypatch.setitem(config_module._TYPES["model"], "kind", str)
    config = PRESETS["char-cpu"].changed({"model.kind": "other", "model.dropout": 0.25})
    assert config.model == OtherConfig(7, 0.25)
    assert set(config_module.parse_toml(config.to_toml())) & {"model.kind", "model.n_layer", "model.n_head"} == {
        "model.kind", "model.n_layer",
    }  # fmt: skip
    assert config_module.differences(PRESETS["char-cpu"], config)[0] == 'model.kind: "gpt" before, "other" now'
    with pytest.raises(ConfigError, match=r"model\.n_head: is not a setting of the model other: leave it out"):
        config.changed({"model.n_head": 2})
