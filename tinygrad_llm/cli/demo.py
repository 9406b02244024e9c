"""`tinygrad-llm demo`: from a text to a model that writes, in two minutes; with --full, to an assistant, in ten."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tinygrad_llm.cli import stages
from tinygrad_llm.cli.options import add_json, add_overwrite, add_seed, check_out, folder, integer
from tinygrad_llm.cli.progress import command_line, fold, listed, sample_lines, say
from tinygrad_llm.cli.trace import trace_text
from tinygrad_llm.cli.watch import watch
from tinygrad_llm.gradcheck import GradcheckResult, gpt_problem, gradcheck
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import RunConfig
from tinygrad_llm.runs.data import make_tokenizer, read_source, tokenize
from tinygrad_llm.runs.folder import CONFIG, TRACE, RunFolder, about_run, clear_run, load_run
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.runs.run import Run
from tinygrad_llm.storage.text import to_json

EXAMPLE = "tinygrad-llm demo"
FOLDER, FULL = Path("runs/demo"), Path("runs/full")
SAMPLE_TOKENS = 250


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--full",
        action="store_true",
        help="then make a classifier and an assistant of it, and compare figures before and after: 10 minutes in all; "
        "called again, it continues where it was stopped",
    )
    parser.add_argument("--steps", type=integer(1), metavar="N", help="training steps (fewer: sooner, worse stories)")
    parser.add_argument(
        "--out", type=folder, metavar="FOLDER", help=f"(default {FOLDER}, replaced each time; with --full {FULL})"
    )
    add_overwrite(parser, "a run that is already in the folder of --out")
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    began = time.perf_counter()
    out = sys.stderr if args.json else sys.stdout
    steps = {} if args.steps is None else {"training.steps": args.steps}
    config = PRESETS["stories"].fitted(steps | {"training.seed": args.seed})
    if args.full:
        return _full(args, config, steps, out)
    place = args.out or FOLDER
    ours = place == FOLDER and about_run(FOLDER).get("corpus") == "stories"  # an earlier demo's, to be replaced
    status, training, proof, written = pretrain(config, check_out(place, args.overwrite or ours), out)
    figures = _figures(training, proof, time.perf_counter() - began)
    say(listed(written), out)
    if not status:
        page = _trace(training)
        say(fold(f"wrote {page}: open it in a browser, and step through backprop"), out)
    if not any(path.suffix == ".png" for path in written):
        say("(for a picture of the losses: pip install 'tinygrad_llm[app]')", out)
    say("\nTry next:", out)
    for line in next_commands(training.folder.path):
        say(line, out)
    if args.json:
        say(to_json(figures))
    return status


def _full(args: argparse.Namespace, config: RunConfig, steps: dict[str, Any], out: TextIO) -> int:
    """The whole story: the base, the stages after it, their figures, and three questions."""
    began, place = time.perf_counter(), args.out or FULL
    folder = place / stages.BASE
    if args.overwrite:
        for name in stages.FOLDERS:
            old = RunFolder(place / name, resumed=True)
            old.lock()  # unless another process trains it
            old.release()
            clear_run(place / name)
    begun = (folder / CONFIG).is_file()
    for name in stages.FOLDERS:
        check_out(place / name, overwrite=begun)
    status, base = stages.trained(folder, config, out, lambda: pretrain(config, folder, out)[:2])
    if not status:
        status, results, questions = stages.run_stages(base, place, steps, out)
    if status:
        say(f"the same command continues from here; all that is done is in {place}", out)
        return status
    seconds = time.perf_counter() - began
    say("\n" + "\n".join(stages.report(results, questions)) + f"\n\nin {seconds:.0f} s; talk with it:", out)
    say(command_line([*_program(), "chat", str(place / "friendly")], "   "), out)
    if args.json:
        say(to_json({"out": str(place), "seconds": seconds, **results, "questions": questions}))
    return 0


def pretrain(config: RunConfig, place: Path, out: TextIO) -> tuple[int, Run, GradcheckResult, list[Path]]:
    """The six parts from a text to a model that writes.

    Returns:  the exit status, which is 130 if a signal came before the last step; the run, the proof of its gradient,
              and the files that were written.
    """
    began = time.perf_counter()

    def tell(text: str) -> None:
        say(text, out)

    training = _prepare(config, place, tell)
    proof = _prove(training, tell)
    settings, model = training.config.training, training.model
    tell(f"\n5. Training: {settings.steps} steps of {settings.batch_size} × {model.config.block_size} tokens.")
    status, _ = watch(training, out)  # saves it; the samples below are saved again

    tell("6. What it writes now, each from another seed:\n")
    for seed in (11, 12, 13):
        tell(sample_lines(training.sample(SAMPLE_TOKENS, seed), "   ") + "\n")
    written = training.save()
    figures = _figures(training, proof, time.perf_counter() - began)
    tell(
        f"Held-out loss {figures['loss_before']:.2f} → {figures['val_loss']:.2f} nats per token, "
        f"in {figures['seconds']:.0f} s."
    )
    return status, training, proof, written


def _trace(training: Run) -> Path:
    """Write the page of a sentence's forward and backward pass into the folder of the run."""
    model, tokenizer = load_run(training.folder.path)
    ids = tokenizer.encode("Once there was a little fox. The fox was")[: model.block_size]
    return trace_text(model, tokenizer, ids, training.folder.path).save(training.folder.path / TRACE)


def _prepare(config: RunConfig, place: Path, tell: Callable[[str], None]) -> Run:
    """The first three steps: text, tokenizer, model."""
    tell(
        "1. A text. Short stories, made by a grammar (scripts/make_stories.py);\n   90 % to learn from, 10 % held out."
    )
    source = read_source(config.data)
    tell(
        f"   {len(source.text):,} characters. They begin:\n"
        + fold(source.text[:150].rpartition(" ")[0] + " …", " " * 6)
    )

    tell("\n2. A tokenizer, learned from it: byte pairs that are frequent become tokens.")
    tokenizer = make_tokenizer(config.data, source)
    data = tokenize(config, source, tokenizer)
    words = tokenizer.encode("Once upon a time there was a little fox.")
    tell(
        f"   {tokenizer.n_vocab:,} tokens; {sum(map(len, data.training + data.held_out)):,} of them spell the stories."
    )
    tell(fold("|".join(tokenizer.decode([i]) for i in words), "      "))
    tell(fold(" ".join(map(str, words)), "      "))

    tell("\n3. A model: a GPT, GPT-2's architecture, in NumPy.")
    training = Run.new(config, place, data)
    c = training.model.config
    sizes = f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} channels, {c.block_size} tokens at a time"
    tell(fold(f"{sizes}: {training.model.num_parameters():,} parameters.", "   "))
    return training


def _prove(training: Run, tell: Callable[[str], None]) -> GradcheckResult:
    """The fourth step: the gradient of a small copy of the model."""
    tell("\n4. Proof of its gradient. A small copy, each of its parameters, by complex step\n   (exact to rounding):")
    proof = prove_small_copy(training.model)
    count, error = _checked(proof), proof.worst.error
    tell(fold(f"{count:,} derivatives, worst relative error {error:.1e}. Backprop is right.", "   "))
    return proof


def _checked(proof: GradcheckResult) -> int:
    return sum(comparison.elements for comparison in proof.comparisons)


def _figures(training: Run, proof: GradcheckResult, seconds: float) -> dict[str, Any]:
    return {
        "out": str(training.folder.path),
        "steps": training.steps[-1].step,
        "loss_before": training.steps[0].loss,
        "val_loss": [step.val_loss for step in training.steps if step.val_loss is not None][-1],
        "derivatives": _checked(proof),
        "worst_error": proof.worst.error,
        "seconds": seconds,
        "samples": [text for _, text in training.samples[-3:]],
    }


def prove_small_copy(model: GPT) -> GradcheckResult:
    """Check every parameter of a model that differs from this one only in its sizes.

    Raises:   GradcheckError: a gradient is wrong.
    """
    small = dataclasses.replace(model.config, vocab_size=11, block_size=6, n_head=2, n_embd=4)
    fn, inputs, names = gpt_problem(small, Generator(0))
    return gradcheck(fn, inputs, names=names)


def next_commands(folder: Path) -> list[str]:
    """Commands that work as they are printed, called in the same way as this one."""
    return [
        command_line([*_program(), *words], "   ")
        for words in (
            ["generate", str(folder), "--prompt", "Once there was a", "--seed", "7"],
            ["gradcheck"],
            ["train", "--corpus", "python-docs", "--steps", "500", "--out", "runs/docs"],
            ["tokenizer", "encode", "Hello, do you like tea?"],
            ["doctor"],
        )
    ]


def _program() -> list[str]:
    script = Path(sys.argv[0]).name
    return ["tinygrad-llm"] if script.startswith("tinygrad-llm") else [_here(sys.executable), "-m", "tinygrad_llm"]


def _here(program: str) -> str:
    """The path of a program, from the current folder if it is below it."""
    path, here = Path(program), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else program
