"""Every option of a command reaches the function that does the work; so do 0, the empty text and a plain no."""

import argparse
import dataclasses
import inspect
import io
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

from tinygrad_llm.cli import COMMANDS, UsageError, main, options
from tinygrad_llm.cli import _load as load
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import load_tokenizer

SAMPLING = "--temperature 0 --top-k 7 --top-p 0.5 --repetition-penalty 1.5 --forbid ca"
CHOSEN = {"temperature": 0.0, "top_k": 7, "top_p": 0.5, "repetition_penalty": 1.5, "forbidden": "ca"}
USUAL = {"temperature": 0.8, "top_k": None, "top_p": None, "repetition_penalty": 1.0, "forbidden": ""}
WRITING = f"{SAMPLING} --stop x --stop y --max-new-tokens 3 --seed 4"


class ArrivedError(BaseException):
    """Ends a command where its work would begin."""


def arrived(monkeypatch, target, line, run):
    """The arguments by name that a command line calls `target` with: "module:function". RUN is the folder of a run."""
    module, _, name = target.partition(":")
    owner, _, name = name.rpartition(".")
    owner = pkgutil.resolve_name(f"tinygrad_llm.{module}" + (f":{owner}" if owner else ""))
    signature = inspect.signature(getattr(owner, name))
    found = {}

    def spy(*args, **options):
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        found.update(bound.arguments | bound.arguments.get("options", {}))
        raise ArrivedError

    monkeypatch.setattr(owner, name, spy)
    with pytest.raises(ArrivedError):
        main([str(run) if word == "RUN" else word for word in shlex.split(line)])
    return found


def plain(value, tokenizer):
    """A value as the tables below have it: a random generator as its seed, settings as a dict, ids as their text."""
    match value:
        case Generator():
            drawn = value.randint(0, 1 << 28, (4,)).tolist()
            return next(seed for seed in range(10) if Generator(seed).randint(0, 1 << 28, (4,)).tolist() == drawn)
        case list() if any(isinstance(one, Generator) for one in value):
            return [plain(one, tokenizer) for one in value]
        case str() | Path() if Path(value).name == "stories":  # the run
            return "RUN"
        case Path():
            return str(value)
        case _ if dataclasses.is_dataclass(value):
            fields = dataclasses.asdict(value)
            if "forbidden" in fields:
                fields["forbidden"] = "".join(sorted(tokenizer.decode(list(fields["forbidden"])), reverse=True))
            return fields
    return value


@pytest.mark.parametrize(
    ("line", "target", "expected"),
    [
        (
            f"generate RUN {WRITING}",
            "cli.generate:write",
            {"sampling": CHOSEN, "stop": ["x", "y"], "max_new_tokens": 3, "rng": 4},
        ),
        ("generate RUN", "cli.generate:write", {"sampling": USUAL, "stop": [], "max_new_tokens": 200, "rng": 0}),
        ("generate RUN --max-new-tokens 0", "cli.generate:write", {"max_new_tokens": 0}),
        (
            f"generate RUN {WRITING} --samples 2",
            "cli.generate:write_all",
            {"sampling": CHOSEN, "stop": ["x", "y"], "max_new_tokens": 3, "rngs": [4, 5]},
        ),
        (
            f"chat RUN {WRITING} --history 0 --no-crop",
            "cli.chat:Conversation",
            {"sampling": CHOSEN, "stop": ["x", "y"], "max_new_tokens": 3, "rng": 4, "history": 0, "refuse": True},
        ),
        (
            "chat RUN",
            "cli.chat:Conversation",
            {"sampling": USUAL | {"temperature": 0}, "stop": [], "max_new_tokens": 200, "rng": 0, "history": None}
            | {"refuse": False},
        ),
        (
            "eval RUN f --stride 3 --batch-size 2 --plain-special --dtype uint16 --keep-newlines",
            "cli.eval:score_file",
            {"file": "f", "stride": 3, "batch_size": 2, "special": "plain", "dtype": "uint16", "keep_newlines": True},
        ),
        (
            'eval RUN ""',
            "cli.eval:score_file",
            {"file": "", "stride": 8, "batch_size": None, "special": "error", "dtype": None, "keep_newlines": False},
        ),
        (
            "eval RUN --choices choices --batch-size 2 --allow-special --no-crop",
            "cli.eval:score_choices",
            {"batch_size": 2, "special": "allow", "refuse": True},
        ),
        ("eval RUN --choices choices", "cli.eval:score_choices", {"special": "error", "refuse": False}),
        ('eval RUN --next "" --top 3', "cli.eval:next_tokens", {"top": 3}),
        ("eval RUN --next cat", "cli.eval:next_tokens", {"top": 10}),
        ("eval RUN --next cat --no-crop", "cli.eval:crop", {"refuse": True}),
        ("eval RUN --next cat --plain-special", "cli.eval:encode_text", {"special": "plain"}),
        (
            "eval RUN --prompts spam --shots 0 --seed 7 --batch-size 2 --allow-special --no-crop",
            "cli.eval_tasks:score_prompts",
            {"shots": 0, "seed": 7, "batch_size": 2, "special": "allow", "refuse": True},
        ),
        (
            "eval RUN --prompts spam --shots 2",
            "cli.eval_tasks:score_prompts",
            {"shots": 2, "seed": 0, "batch_size": None, "special": "error", "refuse": False},
        ),
        (
            "tokenizer train text.txt --out t.json --vocab-size 300 --special A B",
            "cli.tokenizer:Tokenizer.train",
            {"vocab_size": 300, "special_tokens": ["<|endoftext|>", "A", "B"]},
        ),
        (
            "tokenizer train text.txt --out t.json --kind wordpiece --cased",
            "cli.tokenizer:WordPieceTokenizer.train",
            {"vocab_size": 1024, "lowercase": False},
        ),
        (
            "tokenizer encode f --tokenizer RUN --out ids.bin --workers 1 --dtype uint32 --allow-special --overwrite "
            "--keep-newlines",
            "cli.tokenizer:encode_file",
            {"path": "f", "out": "ids.bin", "workers": 1, "dtype": "uint32", "special": "allow", "overwrite": True}
            | {"keep_newlines": True},
        ),
        (
            "tokenizer encode f --tokenizer RUN --out ids.bin",
            "cli.tokenizer:encode_file",
            {"workers": None, "dtype": None, "special": "error", "overwrite": False, "keep_newlines": False},
        ),
        (
            "tokenizer decode text.txt --tokenizer RUN --dtype uint32",
            "cli.tokenizer:TokenFile.open",
            {"path": "text.txt", "dtype": "uint32"},
        ),
        ("tokenizer stats text.txt --tokenizer RUN --top 3 --plain-special", "cli.tokenizer:_figures", {"top": 3}),
        ("trace --example attention --seed 3", "cli.trace:example", {"name": "attention", "seed": 3}),
        (
            "download gpt2 --from huggingface --out f --overwrite",
            "cli.download:download",
            {"name": "gpt2", "folder": "f", "source": "huggingface", "overwrite": True},
        ),
        ("download gpt2 --out f", "cli.download:download", {"source": "openai", "overwrite": False}),
        ("download sms-spam --out f --overwrite", "cli.download:download_public", {"folder": "f", "overwrite": True}),
        ("explain tanh --seed 3", "cli.explain:explain", {"seed": 3}),
        ("convert RUN new --n-head 2", "cli.convert:read_pretrained", {"n_head": 2}),
        (
            "convert RUN new --to npz",
            "cli.convert:write_pretrained",
            {"form": "npz", "end_of_text": 269, "padding": None},
        ),
        ("convert RUN new --to huggingface", "cli.convert:write_tokenizer", {"form": "huggingface"}),
        ("convert RUN new --overwrite", "cli.convert:atomic_folder", {"overwrite": True}),
        ("convert RUN new", "cli.convert:atomic_folder", {"overwrite": False}),
        (
            "train --resume RUN --steps 5 --workers 1 --seed 0 --checkpoint-every 7 --set lr=0.5",
            "cli.train:Run.resume",
            {
                "more": 5,
                "changes": {"training.checkpoint_every": 7, "training.workers": 1, "training.seed": 0}
                | {"training.lr": 0.5},
            },
        ),
        ("train --resume RUN", "cli.train:Run.resume", {"more": None, "changes": {}}),
        ("train --plan --resume RUN --steps 5 --workers 2", "cli.train:load_saved", {"more": 5}),
        ("train --plan --resume RUN --steps 5", "cli.train:plan_run", {"done": 3}),
        ("train --resume RUN --steps 5", "cli.train:check_rest", {"done": 3, "steps": 8}),
        ("train --plan --resume RUN --steps 5", "cli.train:check_rest", {"done": 3, "steps": 8}),
        (
            "train --out f --init RUN --overwrite",
            "cli.train:check_out",
            {"folder": "f", "overwrite": True, "start": "RUN"},
        ),
        ("chat RUN --web --style plain --port 0", "cli.chat_server:ChatServer", {"port": 0}),
        ("chat RUN --web --style plain", "cli.chat_server:ChatServer", {"port": 8000}),
        ("gradcheck exp --seed 3", "cli.gradcheck:run_cases", {"seed": 3}),
        (
            "gradcheck exp --mutants --method central --seed 3",
            "gradcheck.mutants:hunt",
            {"method": "central", "seed": 3},
        ),
        ("gradcheck --curve exp --seed 3", "gradcheck.curve:curve", {"seed": 3}),
        (
            "bench learn stories --steps 600 --lr 0.5 0.25 --threads 1 --against",
            "bench.learn:learn",
            {"steps": 600, "threads": 1, "rates": {"adamw": 0.5, "muon": 0.25}, "against": []},
        ),
        ("bench attention --rounds 1 --threads 2 --against", "cli.bench:Setup", {"rounds": 1, "threads": 2}),
        ("bench scaling --rounds 1 --threads 2 --against", "cli.bench:Setup", {"rounds": 1, "threads": 2}),
    ],
)
def test_every_option_arrives(line, target, expected, runs, place, monkeypatch):
    (place / "text.txt").write_text("the cat sat")
    found = arrived(monkeypatch, target, line, runs["stories"])
    tokenizer = load_tokenizer(runs["stories"])
    assert {name: plain(found[name], tokenizer) for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "--config run.toml --corpus text.txt --no-keep-newlines --tokenizer bpe --checkpoint-every 2 --workers 1 "
            "--seed 0 --steps 9",
            {"data.corpus": "text.txt", "data.keep_newlines": False, "data.tokenizer": "bpe", "data.files": ()}
            | {"training.checkpoint_every": 2, "training.workers": 1, "training.seed": 0, "training.steps": 9},
        ),
        ("--config run.toml", {"data.keep_newlines": True, "training.seed": 3, "training.workers": 2}),
        (
            "--data a.bin b.bin --weights 1 2 --val c.bin",
            {"data.files": ("a.bin", "b.bin"), "data.weights": (1.0, 2.0), "data.held_out": "c.bin"},
        ),
        (
            "--model translator --pairs text.tsv --from b --to a",
            {"data.pairs": "text.tsv", "data.source": "b", "data.target": "a", "model.kind": "translator"},
        ),
        ("--init RUN", {"data.init": "RUN"}),
    ],
)
def test_every_option_of_a_training_is_in_its_configuration(line, expected, runs, place, monkeypatch):
    (place / "run.toml").write_text("data.keep_newlines = true\ntraining.seed = 3\ntraining.workers = 2\n")
    found = arrived(monkeypatch, "cli.train:Run.new", f"train --out new {line}", runs["stories"])
    values = found["config"].flat()
    shown = {name: "RUN" if values[name] == str(runs["stories"]) else values[name] for name in expected}
    assert {name: tuple(x) if isinstance(x, list) else x for name, x in shown.items()} == expected


def arguments_of(name, parser):
    """The arguments of a command and of its actions, each with the words that lead to it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, part in action.choices.items():
                yield from arguments_of(f"{name} {word}", part)
        else:
            yield name, action


def test_the_help_states_every_default():
    wrong, count = [], 0
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        load(command).add_arguments(parser)
        for name, action in arguments_of(command, parser):
            default = action.default
            if type(default) in (int, float) or (isinstance(default, str) and default not in ("", argparse.SUPPRESS)):
                count += 1
                shown = default if isinstance(default, str) else f"{default:g}"
                stated = re.search(rf"(?<![\w.]){re.escape(shown)}(?![\w.]\w)", action.help)
                wrong += [f"{name} {action.dest}: {default!r}, {action.help}"] * (not stated)
    assert wrong == []
    assert count > 30


def test_the_lines_of_a_file_or_of_stdin_are_numbered_and_limited(place, monkeypatch):
    path = place / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")  # as Windows writes it
    monkeypatch.setattr(options, "_MAX_BYTES", 7)
    assert options.read_lines(path) == {f"{path}: line 1": "a", f"{path}: line 2": "b"}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\nc\nd")))
    assert options.read_lines(None) == {f"stdin: line {i}": letter for i, letter in enumerate("abcd", 1)}
    for content, message in (
        (b"12345678", "longer than 7 bytes: split it"),
        (b"\xff", r"not UTF-8 text \(byte 0xff"),
    ):
        path.write_bytes(content)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        for file, where in ((path, str(path)), (None, "stdin")):
            with pytest.raises(UsageError, match=f"^{re.escape(where)}: {message}"):
                options.read_lines(file)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match=r"^there is no stdin: give a text, or --file FILE$"):
        options.read_lines(None)


def test_a_number_lies_between_its_limits():
    for least, most, right, wrong in ((0, None, ["0", "7"], ["-1", "x", "", "1.0"]), (2, 4, ["2", "4"], ["1", "5"])):
        parse = options.integer(least, most)
        assert [parse(text) for text in right] == [int(text) for text in right]
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        for text in wrong:
            with pytest.raises(argparse.ArgumentTypeError) as error:
                parse(text)
            assert str(error.value) == f"got {text!r}, but it must be an integer {allowed}"
