"""Every setting of a run, in one tree of dataclasses: names, types, defaults and help are defined only here.

A preset, a TOML file and `--set key=value` change it, in that order. A TOML file has the same tables; the preset gives
the values that it leaves out:

    preset = "char-cpu"

    [data]
    corpus = "shakespeare.txt"

    [training]
    steps = 5000
    betas = [0.9, 0.95]
"""

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tinygrad_llm.datasets import CORPORA
from tinygrad_llm.datasets.public import PUBLIC
from tinygrad_llm.finetuning.settings import FineTuneSettings
from tinygrad_llm.models import MODELS, GPTConfig
from tinygrad_llm.storage.files import LoadError, not_utf8, open_regular
from tinygrad_llm.storage.text import nearest
from tinygrad_llm.training import ConfigError, TrainSettings
from tinygrad_llm.training.settings import setting

_MAX_BYTES = 1_000_000


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The data that a run learns from, and how it is cut into tokens.

    Raises:   ConfigError: an empty name; another number of weights than of files, or a weight that is not above 0;
              vocab_size below 257.
    """

    corpus: str = setting("stories", f"a text: {', '.join(CORPORA)}, or the path of a UTF-8 file")
    files: tuple[str, ...] = setting((), "token files, read instead of a text")
    weights: tuple[float, ...] = setting(
        (), "how often to draw from each file, relative to the others; empty: each window once an epoch"
    )
    keep_newlines: bool = setting(False, "leave the line ends \\r\\n and \\r in a text, instead of reading them as \\n")
    dtype: Literal["", "uint16", "uint32"] = setting("", "type of the ids in token files without a .json next to them")
    held_out: str = setting("", "a token file to measure on; empty: the last tenth of each file")
    init: str = setting("", "weights to start from: a run, gpt2 or another path; empty: random ones")
    tokenizer: str = setting(
        "char", "char, bpe or wordpiece, learned from the text; gpt2; a tokenizer file; or a run's folder"
    )
    vocab_size: int = setting(2048, "number of tokens that a bpe or wordpiece tokenizer learns")
    pairs: str = setting("translations", "of a translator: translations, or a table with tabs, one pair on each line")
    source: str = setting("", "of a translator: the column to translate from, by the first line; empty: the first")
    target: str = setting("", "of a translator: the column to translate to; empty: the second")

    def __post_init__(self) -> None:
        if not all(self.files):
            raise ConfigError("data.files: one of the names is empty: name a file")
        if self.weights and not self.files:
            raise ConfigError("data.weights: are only for token files: name those as well (--data)")
        if self.weights and len(self.weights) != len(self.files):
            raise ConfigError(f"data.weights: got {len(self.weights)} for {len(self.files)} files: give one each")
        if not all(0 < weight < math.inf for weight in self.weights):
            raise ConfigError(f"data.weights: must be finite and above 0, got {list(self.weights)}")
        if self.held_out and not self.files:
            raise ConfigError("data.held_out: is only for token files; of a text the last tenth is held out")
        if self.vocab_size < 257:
            raise ConfigError(f"data.vocab_size: must be at least 257 (bytes and end of text), got {self.vocab_size}")


OF_PAIRS = {"pairs", "source", "target"}  # the settings of [data] that only a translator has
OF_BOTH = {"tokenizer", "vocab_size"}
NOT_OF_PAIRS = {"order", "stride", "recompute"}  # the settings of [training] that a translator does not have

# The table [model] is the config of one of `MODELS`, except for vocab_size, which the tokenizer decides; and `kind`.
MODEL_HELP = {
    "kind": f"which model it is: {', '.join(MODELS)}; another one has its own sizes",
    "block_size": "number of tokens that the model reads at once",
    "n_layer": "number of blocks, each attention and MLP",
    "n_head": "number of attention heads in each block",
    "n_embd": "number of channels; a multiple of n_head",
    "segments": "of an encoder: how many kinds of text it tells apart, such as question and answer",
    "layer_norm_eps": "of an encoder: added to the variance in every layer norm",
    "dropout": "probability of dropout at embeddings, attention weights and the output of each sublayer",
    "qkv_bias": "whether queries, keys and values have a bias",
    "tie_weights": "whether the output head is the embedding itself",
    "norm_first": "of a translator: layer norm before each sublayer, and not after each sum",
    "cross_attention": "of a translator: whether the decoder sees the source",
    "initializer_range": 'standard deviation of the initial weights; "none": those of PyTorch\'s layers',
    "positions": "how the model knows where tokens stand: absolute (learned), sinusoidal (fixed), rotary (relative)",
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Every setting of a run. `model.vocab_size` is ignored: the tokenizer decides it."""

    about: str = ""
    preset: str = ""
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    model: Any = dataclasses.field(default_factory=GPTConfig)  # the config of one of `MODELS`
    training: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    finetune: FineTuneSettings = dataclasses.field(default_factory=FineTuneSettings)

    @property
    def tables(self) -> dict[str, list[Any]]:
        """The tables that matter, with their fields: fine-tuning has text, tokenizer and sizes from the base."""
        names = ("model", "training", "finetune") if self.finetune.task else ("data", "model", "training")
        own = {name: list(_TABLES[name]) for name in names}
        sizes = {field.name for field in dataclasses.fields(self.model)} | {"kind"}
        if "data" in own:
            paired = self.model.kind == "translator"
            own["data"] = [f for f in own["data"] if f.name in OF_BOTH or (f.name in OF_PAIRS) == paired]
            own["training"] = [f for f in own["training"] if not paired or f.name not in NOT_OF_PAIRS]
        own["model"] = [field for field in own["model"] if field.name in ({"dropout"} if self.finetune.task else sizes)]
        return own

    @property
    def examples(self) -> str:
        """The examples that it learns from, a file or a name; "" where it learns from one long text."""
        return self.finetune.data or (self.data.pairs if self.model.kind == "translator" else "")

    def flat(self) -> dict[str, Any]:
        """Every key, as "training.lr", with its value."""
        return {
            f"{table}.{field.name}": getattr(getattr(self, table), field.name)
            for table, fields in _TABLES.items()
            for field in fields
            if hasattr(getattr(self, table), field.name)
        }

    def changed(self, changes: Mapping[str, Any]) -> "RunConfig":
        """A copy with other values of some keys; a key may leave out its table where only one table has it.

        Raises:   ConfigError: an unknown key (the nearest is named); a key that is given twice, with and without its
                  table; a value of the wrong type or out of range; a setting that this kind of model does not have.
        """
        tables: dict[str, dict[str, Any]] = {table: {} for table in _TABLES}
        names: dict[str, str] = {}
        for given, value in changes.items():
            table, name, kind = _find(given)
            key = f"{table}.{name}"
            if key in names:
                raise ConfigError(f"{names[key]} and {given} are the same key: give it once")
            names[key] = given
            tables[table][name] = _convert(key, value, kind)
        kind = tables["model"].pop("kind", self.model.kind)
        before = self if kind == self.model.kind else dataclasses.replace(self, model=KINDS[kind]())
        if foreign := [name for name in tables["model"] if not hasattr(before.model, name)]:
            raise ConfigError(f"model.{foreign[0]}: is not a setting of the model {kind}: leave it out")
        for table in () if self.finetune.task else ("data", "training"):
            own = {field.name for field in before.tables[table]}
            for name, value in tables[table].items():
                if name not in own and value != getattr(getattr(before, table), name):
                    raise ConfigError(f"{table}.{name}: has no effect on the model {kind}: leave it out")
        try:
            parts = {
                table: dataclasses.replace(getattr(before, table), **values)
                for table, values in tables.items()
                if values
            }
        except ValueError as error:  # GPTConfig raises it
            raise ConfigError(str(error)) from None
        return dataclasses.replace(before, **parts)

    def to_toml(self) -> str:
        """The configuration as TOML, with a comment for each key; a default of None is left out.

        Raises:   ConfigError: a path that is not Unicode text.
        """
        lines = [f"preset = {_toml(self.preset)}"]
        for table, fields in self.tables.items():
            lines += ["", f"[{table}]"]
            for field in fields:
                value = getattr(getattr(self, table), field.name)
                if value is not None or field.default is not None:
                    lines.append(f"{field.name} = {_toml(value)}  # {_help(field)}")
        return "\n".join(lines) + "\n"

    def fitted(self, changes: Mapping[str, Any]) -> "RunConfig":
        """As `changed`, for a new run: where `changes` set the steps, settings that depend on them fit the new number.

        The warm-up and the steps between evaluations become shorter; epochs and the schedule of an extended run end.
        A setting that is among the changes stays as it is there.

        Raises:   as `changed`.
        """
        given = {f"{table}.{name}": changes[key] for key in changes for table, name, _ in [_find(key)]}
        steps = given.get("training.steps")
        if type(steps) is not int or given.get("training.epochs"):
            return self.changed(changes)
        fit = {
            "training.warmup": min(self.training.warmup, steps // 5),
            "training.eval_every": min(self.training.eval_every, max(1, steps // 4)),
            "training.extended": (),
            "training.epochs": 0,
        }
        return self.changed({**changes, **{key: value for key, value in fit.items() if key not in given}})

    def absolute(self) -> "RunConfig":
        """A copy with absolute paths, which is valid in every folder."""
        data = self.data
        named = data.corpus in CORPORA or data.corpus in PUBLIC
        corpus = data.corpus if named else str(Path(data.corpus).absolute())

        def there(path: str) -> str:  # else the name of a model or of a file that ships with the package
            return str(Path(path).absolute()) if path and Path(path).exists() else path

        data = dataclasses.replace(
            data,
            corpus=corpus,
            files=tuple(str(Path(file).absolute()) for file in data.files),
            held_out=data.held_out and str(Path(data.held_out).absolute()),
            init=there(data.init),
            pairs=there(data.pairs),
            tokenizer=data.tokenizer if data.tokenizer in TOKENIZERS else str(Path(data.tokenizer).absolute()),
        )
        s = self.finetune
        return dataclasses.replace(
            self, data=data, finetune=dataclasses.replace(s, base=there(s.base), data=there(s.data))
        )


TOKENIZERS = ("char", "bpe", "wordpiece", "gpt2")
KINDS: dict[str, Any] = {kind: model.config_class for kind, model in MODELS.items()}


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The key "model.kind": in a config, it is the class itself that says it."""

    kind: Literal[*MODELS] = "gpt"  # type: ignore[valid-type]


_CLASSES: dict[str, tuple[Any, ...]] = {
    "data": (DataSettings,),
    "model": (_Kind, *KINDS.values()),
    "training": (TrainSettings,),
    "finetune": (FineTuneSettings,),
}
# The fields of each table; of [model], those that any of the models has.
_TABLES: dict[str, tuple[Any, ...]] = {
    table: tuple({field.name: field for kind in kinds for field in dataclasses.fields(kind)}.values())
    for table, kinds in _CLASSES.items()
}
_TABLES["model"] = tuple(field for field in _TABLES["model"] if field.name != "vocab_size")
_TYPES = {
    table: {name: hint for kind in reversed(kinds) for name, hint in typing.get_type_hints(kind).items()}
    for table, kinds in _CLASSES.items()
}
# The names of our keys in PyTorch, nanoGPT, Hugging Face and the book.
_ELSEWHERE = {
    theirs: ours
    for ours, names in {
        "lr": "learning_rate max_lr peak_lr",
        "min_lr": "eta_min final_lr",
        "steps": "max_iters max_steps num_steps n_steps iterations total_steps",
        "epochs": "num_epochs n_epochs num_train_epochs max_epochs",
        "warmup": "warmup_iters warmup_steps num_warmup_steps",
        "accumulation": "gradient_accumulation_steps grad_accum_steps accumulation_steps",
        "clip": "grad_clip max_grad_norm max_norm clip_grad_norm",
        "eval_every": "eval_interval eval_freq eval_steps",
        "eval_batches": "eval_iters eval_iter",
        "schedule": "lr_scheduler lr_scheduler_type lr_decay decay_lr",
        "block_size": "context_length context_size ctx_len n_ctx n_positions seq_len max_seq_len max_length",
        "n_layer": "n_layers num_layers num_hidden_layers",
        "n_head": "n_heads num_heads num_attention_heads",
        "n_embd": "d_model n_embed emb_dim embed_dim hidden_size hidden_dim",
        "dropout": "drop_rate dropout_rate p_drop",
        "tie_weights": "weight_tying tie_word_embeddings tie_embeddings",
        "vocab_size": "n_vocab",
        "seed": "random_seed manual_seed",
        "workers": "num_workers num_threads threads",
        "recompute": "checkpoint gradient_checkpointing activation_checkpointing",
    }.items()
    for theirs in names.split()
}
# These may change when a run is resumed: none of them changes what the steps so far have done. The paths of files are
# not compared, but their contents are.
MAY_CHANGE = frozenset(
    {"training.steps", "training.extended", "training.epochs", "training.checkpoint_every", "training.on_bad_step"}
    | {"training.recompute"}
    | {"data.corpus", "data.keep_newlines"}
    | {"data.files", "data.held_out", "data.tokenizer", "data.pairs", "finetune.base", "finetune.data"}
)


def keys(tables: Iterable[str] = ("data", "model", "training")) -> Iterator[tuple[str, str]]:
    """(key, help) of every setting of these tables."""
    for table in tables:
        for field in _TABLES[table]:
            yield f"{table}.{field.name}", _help(field)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The values of a TOML file by key, such as "training.lr"; the name of a preset has the key "preset".

    Raises:   ConfigError: it cannot be read, is not TOML, or has an unknown table.
    """
    text = read_text(path)
    try:
        return parse_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_text(path: str | Path) -> str:
    """The text of a settings file.

    Raises:   ConfigError: it cannot be read, is no regular file or not UTF-8 text, or is longer than a megabyte.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{path}: is longer than the {_MAX_BYTES} bytes that a configuration may have")
        return data.removeprefix(b"\xef\xbb\xbf").decode()  # editors on Windows begin a file with this mark
    except LoadError as error:  # a pipe, which could keep us waiting for ever
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {not_utf8(error)}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """As `read_toml`, from a text."""
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from None
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            if name not in _TABLES:
                raise ConfigError(f"unknown table [{name}]{nearest(name, _TABLES)}")
            found |= {f"{name}.{key}": item for key, item in value.items()}
        elif name in _TABLES:
            raise ConfigError(f"{name}: must be a table, which a line [{name}] begins; got {value!r}")
        else:
            found[name] = value
    if not isinstance(found.get("preset", ""), str):
        raise ConfigError(f"preset: must be a string, got {found['preset']!r}")
    return found


def parse_change(text: str) -> tuple[str, Any]:
    """The key and the value of `key=value`: a value as in TOML, or the text itself where it is not TOML.

    Raises:   ConfigError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r}: a setting is written key=value")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")
    except (ValueError, RecursionError):
        return key.strip(), value.strip()
    return key.strip(), parsed["value"] if len(parsed) == 1 else value.strip()


def differences(before: RunConfig, now: RunConfig) -> list[str]:
    """The differences that prevent a run from being resumed, such as "training.lr: 0.001 before, 0.01 now"."""
    old, new = before.flat(), now.flat()
    return [
        f"{key}: {_toml(old[key])} before, {_toml(new[key])} now"
        for key in old
        if key in new
        and old[key] != new[key]
        # The path of a tokenizer may change; the kind that is learned may not.
        and (key not in MAY_CHANGE or (key == "data.tokenizer" and {old[key], new[key]} & {"char", "bpe", "wordpiece"}))
    ]


def _help(field: "dataclasses.Field[Any]") -> str:
    return str(field.metadata.get("help") or MODEL_HELP[field.name])


def _find(key: str) -> tuple[str, str, Any]:
    """The table, name and type of a key."""
    if key == "preset":
        raise ConfigError("preset: is not a setting: use --preset")
    table, dot, name = key.rpartition(".")
    found = [
        (t, field.name) for t, fields in _TABLES.items() for field in fields if field.name == name and table in ("", t)
    ]
    if len(found) != 1:
        known = [known for known, _ in keys(_TABLES)]
        meant = [k for k in known if k.endswith("." + _ELSEWHERE.get(name, name))]
        near = nearest(key, known if dot else [k.split(".")[1] for k in known])
        raise ConfigError(f"unknown key {key!r}" + (f": did you mean {meant[0]}?" if meant else near))
    return *found[0], _TYPES[found[0][0]][found[0][1]]


def _convert(key: str, value: Any, kind: Any) -> Any:
    """The value converted to the type of a field: 1 is also a float, and a list becomes a tuple."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in args:
            *some, last = map(repr, args)
            raise ConfigError(f"{key}: must be {', '.join(some)} or {last}, got {value!r}")
        return value
    if origin is types.UnionType:  # int | None; TOML has no None
        return None if value is None or value == "none" else _convert(key, value, args[0])
    if origin is tuple:
        repeats = args[-1] is Ellipsis
        if not isinstance(value, list | tuple) or not (repeats or len(value) == len(args)):
            what = "a list" if repeats else f"a list of {len(args)}"
            raise ConfigError(f"{key}: must be {what}, got {value!r}")
        each = [args[0]] * len(value) if repeats else args
        return tuple(_convert(f"{key}[{i}]", item, one) for i, (item, one) in enumerate(zip(value, each, strict=True)))
    if type(value) is int and abs(value) >= 2**63:
        raise ConfigError(f"{key}: must be below 2⁶³")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise ConfigError(f"{key}: must be {names[kind]}, got {value!r}")
    return value


def _toml(value: Any) -> str:
    """A string, number, bool, or list of them, as TOML. Its strings are those of JSON, except for DEL. None: "none"."""
    if value is None:
        return '"none"'
    if isinstance(value, str):
        if not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ConfigError(f"{value!r}: cannot be written to config.toml: it is not Unicode text")
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
