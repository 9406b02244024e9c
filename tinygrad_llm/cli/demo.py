"""`tinygrad-llm demo`: the whole road in about two minutes."""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path

from tinygrad_llm.cli import train
from tinygrad_llm.cli.options import add_json, add_seed, check_out, folder, integer
from tinygrad_llm.gradcheck import GradcheckResult, gpt_problem, gradcheck
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.runs.run import Run, about_run

EXAMPLE = "tinygrad-llm demo"
FOLDER = Path("runs/demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=integer(1), metavar="N", help="training steps (fewer: sooner, worse stories)")
    parser.add_argument("--out", type=folder, default=FOLDER, metavar="FOLDER", help=f"default {FOLDER}, made anew")
    parser.add_argument("--overwrite", action="store_true", help="replace a run in another folder given by --out")
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    began = time.perf_counter()
    ours = args.out == FOLDER and about_run(FOLDER).get("corpus") == "stories"  # an earlier demo's, to be made anew
    folder = check_out(args.out, args.overwrite or ours)
    config = PRESETS["stories"].shortened(args.steps).changed({"training.seed": args.seed})
    out = sys.stderr if args.json else sys.stdout

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    say("1. A text. Short stories, made by a grammar (scripts/make_stories.py); 90 % to learn from, 10 % held out.")
    training = Run(config, folder)
    say(f"   {len(training.text):,} characters. They begin:\n   {training.text[:100]!r} …")

    say("\n2. A tokenizer, learned from it: byte pairs that are frequent become tokens.")
    tokenizer = training.make_tokenizer()
    words = tokenizer.encode("Once upon a time there was a little fox.")
    spelled = sum(map(len, training.sources + training.held_out))
    say(f"   {tokenizer.n_vocab} tokens; {spelled:,} of them spell the stories.")
    say("   " + "|".join(tokenizer.decode([i]) for i in words) + f"  →  {words}")

    say("\n3. A model: a GPT, GPT-2's architecture, in NumPy.")
    model = training.make_model()
    c = model.config
    say(
        f"   {c.n_layer} layers, {c.n_head} heads, {c.n_embd} channels, {c.block_size} tokens at a time: "
        f"{model.num_parameters():,} parameters."
    )

    say("\n4. Proof of its gradient. A small copy, each of its parameters, by complex step (exact to rounding):")
    proof = prove_small_copy(model)
    checked = sum(c.elements for c in proof.comparisons)
    say(f"   {checked:,} derivatives, worst relative error {proof.worst.error:.1e}. Backprop is right.")

    say(f"\n5. Training: {training.settings.steps} steps of {training.settings.batch_size} × {c.block_size} tokens.")
    status, _ = train.watch(training, out)  # saved first of all; with the samples once more below

    say("6. What it writes now, each from another seed:\n")
    for seed in (11, 12, 13):
        say("   " + training.sample(250, seed).strip() + "\n")
    written = training.save()
    first, last = training.steps[0], training.steps[-1]
    held_out = [step.val_loss for step in training.steps if step.val_loss is not None][-1]
    seconds = time.perf_counter() - began
    say(f"Held-out loss {first.loss:.2f} → {held_out:.2f} nats a token, in {seconds:.0f} s.")
    say("Saved " + ", ".join(str(path) for path in written))
    if not any(path.suffix == ".png" for path in written):
        say("(for a picture of the losses: pip install 'tinygrad_llm[app]')")
    say("\nTry next:")
    for line in next_commands(training.folder):
        say("   " + line)
    if args.json:
        figures = {"out": str(training.folder), "steps": last.step, "loss_before": first.loss, "val_loss": held_out}
        figures |= {"derivatives": checked, "worst_error": proof.worst.error, "seconds": seconds}
        print(json.dumps(figures | {"samples": [text for _, text in training.samples[-3:]]}))
    return status


def prove_small_copy(model: GPT) -> GradcheckResult:
    """Check every parameter of a model that differs from this one in its sizes alone.

    Raises:   GradcheckError: a gradient is wrong.
    """
    small = dataclasses.replace(model.config, vocab_size=11, block_size=6, n_head=2, n_embd=4)
    fn, inputs, names = gpt_problem(small, Generator(0))
    return gradcheck(fn, inputs, names=names)


def next_commands(folder: Path) -> list[str]:
    """Commands that work as they stand, in the way this one was called."""
    script = Path(sys.argv[0]).name
    call = "tinygrad-llm" if script.startswith("tinygrad-llm") else f"{shlex.quote(sys.executable)} -m tinygrad_llm"
    return [
        f'{call} generate {shlex.quote(str(folder))} --prompt "Once there was a" --seed 7',
        f"{call} gradcheck",
        f"{call} train --corpus python-docs --preset char-cpu --steps 500 --out runs/docs",
        f'{call} tokenizer encode "Hello, do you like tea?"',
        f"{call} doctor",
    ]
