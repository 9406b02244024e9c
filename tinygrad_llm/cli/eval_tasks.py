"""The part of `tinygrad-llm eval` for tasks: labels by prompting alone, and the answers of an assistant."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.finetune import report
from tinygrad_llm.cli.options import say_cropped
from tinygrad_llm.cli.progress import fold, progress
from tinygrad_llm.datasets import DataError, plain, question, read_instructions
from tinygrad_llm.datasets.public import example_file
from tinygrad_llm.evaluation import PromptTask, check_shots, read_prompts, score_prompts, standard_error
from tinygrad_llm.evaluation.judge import KEY, Judge
from tinygrad_llm.finetuning import STYLES, classify, refuse_special
from tinygrad_llm.finetuning.classifier import encode_messages, ends_for
from tinygrad_llm.models import GPT, read_classifier
from tinygrad_llm.runs.answers import LONGEST_ANSWER, score_answers, taught
from tinygrad_llm.runs.folder import choose_weights, stated_style
from tinygrad_llm.storage.text import nearest, one_line
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.weights import tokenizer_for

DEFAULT_SHOTS = (0, 1, 4)
STYLE = "alpaca"  # of a model that was trained without one


def prompts(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    """The accuracy by number of solved examples."""
    task = read_prompts(args.prompts)
    shots = list(dict.fromkeys(args.shots or [n for n in DEFAULT_SHOTS if n < len(task.examples)]))
    for n in shots:
        check_shots(task, n)
    beside = _classified(args, task) if args.classifier is not None else None
    scores = []
    with progress("prompt", Path(args.prompts).name, len(shots)) as update:
        for n in shots:
            how = (args.seed, args.batch_size, args.special, not args.crop)
            scores.append(score_prompts(model, tokenizer, task, n, *how))
            update(len(scores))
    size, chance = len(task.examples), 1 / len(task.labels)
    if not args.json:
        words = ", ".join(f"{word} ({label})" for label, word in zip(task.labels, task.words, strict=True))
        print(fold(one_line(f"{args.prompts}: {size} texts; the model writes one of {words}"), hang="    "))
        print(f"{'solved examples in the prompt':<36} {'accuracy':>9}  standard error")
        for score in scores:
            print(_row(str(score.shots), score.accuracy, score.standard_error))
        if beside is not None:
            print(_row(f"{args.classifier}, fine-tuned", beside["accuracy"], beside["standard_error"]))
        print(_row("chance", chance, standard_error(chance, size)))
        if beside is not None and beside["seen"]:
            print(fold(f"{args.classifier} saw {beside['seen']} of these texts in training", hang="    "))
    say_cropped(args, sum(score.cut for score in scores), size * len(scores), model.block_size)
    figures: dict[str, Any] = {
        "prompts": args.prompts, "n": size, "chance": chance, "seed": args.seed,
        "scores": [score._asdict() for score in scores],
    }  # fmt: skip
    if beside is not None:
        figures["classifier"] = beside
    return figures


def _row(name: str, accuracy: float, error: float) -> str:
    name = name if len(name) <= 36 else f"… {name[-34:]}"
    return f"{name:<36} {accuracy:>9.1%}  ± {error:.1%}"


def _classified(args: argparse.Namespace, task: PromptTask) -> dict[str, Any]:
    """The accuracy of the classifier on the texts of a task, and its standard error; how many texts it has seen.

    Raises:   UsageError: the labels are not its classes.
    """
    path = choose_weights(args.classifier).path
    model = read_classifier(path)
    tokenizer = tokenizer_for(path, model.config)
    missing = [label for label in task.labels if label not in model.config.labels]
    if missing:
        raise UsageError(
            f"{args.classifier}: has the classes {', '.join(model.config.labels)}, and {task.where} the label "
            f"{missing[0]}: name its classes in labels, each with its word"
        )
    texts = [text for text, _ in task.examples]
    how = (not args.crop, lambda i: f"{task.where}: example {i + 1}", ends_for(model, tokenizer))
    rows, cut = encode_messages(texts, tokenizer, model.block_size, *how)
    say_cropped(args, cut, len(texts), model.block_size, "end")
    predicted = classify(model, rows).argmax(axis=1).tolist()
    pairs = zip(predicted, task.examples, strict=True)
    right = sum(model.config.labels[k] == task.labels[label] for k, (_, label) in pairs)
    accuracy, known = right / len(texts), taught(args.classifier).questions
    seen = sum(plain(text) in known for text in texts)
    error = standard_error(accuracy, len(texts))
    return {"run": str(args.classifier), "accuracy": accuracy, "standard_error": error, "seen": seen}


def instructions(args: argparse.Namespace, model: GPT, tokenizer: AnyTokenizer) -> dict[str, Any]:
    """Exact match and token F1 of answers by kind of task; and a judge's scores, if the user names one."""
    path, judge = example_file(args.instructions), _judge(args)
    every = read_instructions(path)
    refuse_special(every, tokenizer, path)
    known = taught(args.run, path)
    entries = [entry for entry in every if question(entry) not in known.questions]
    if not entries:
        raise DataError(
            f"{path}: {args.run} was trained on all its {len(every)} entries, or chosen by them: give others"
        )
    left_out = len(every) - len(entries)
    style = args.style or stated_style(args.run) or STYLE
    if style not in STYLES:
        where = "--style" if args.style else f"{args.run}: was trained with"
        raise UsageError(f"{where}: unknown prompt style {style!r}{nearest(style, STYLES)}")
    with progress("answer", path.name, len(entries)) as update:
        how = (args.max_new_tokens or LONGEST_ANSWER, not args.crop, update)
        results = score_answers(model, tokenizer, entries, style, *how)
    if not args.json:
        text = f"{args.instructions}: {len(entries)} entries, prompt style {style}"
        if left_out:
            text += f"; the other {left_out} are left out: {' and '.join(map(str, known.runs))} saw them in training"
        print(fold("\n".join([text, *known.notes]), hang="    "))
        print(report(results))
    say_cropped(args, results["cropped"], len(entries), model.block_size)
    figures = {"instructions": args.instructions, "style": style, "left_out": left_out, "notes": known.notes, **results}
    if judge is not None:
        figures["judge"] = _judged(args, judge, results["answers"])
    return figures


def _judge(args: argparse.Namespace) -> Judge | None:
    if (args.judge is None) != (args.judge_model is None):
        raise UsageError("give --judge URL and --judge-model NAME, or neither")
    return None if args.judge is None else Judge(args.judge, args.judge_model, os.environ.get(KEY))


def _judged(args: argparse.Namespace, judge: Judge, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The judge's scores, which are also put to the answers."""
    scores = []
    with progress("answer", "judge", len(answers)) as update:
        for number, one in enumerate(answers, 1):
            task = f"{one['instruction']}\n\n{one['input']}".strip()
            found = judge.score(task, one["output"], one["answer"])
            one |= {"score": found.score, "judged": found.reply}
            if found.score is not None:
                scores.append(found.score)
            update(number)
    mean = sum(scores) / len(scores) if scores else None
    if not args.json:
        text = "no reply holds a score" if mean is None else f"{mean:.1f} of 100, the mean of {len(scores)} scores"
        unclear = len(answers) - len(scores)
        text += f"; {unclear} replies hold no number from 0 to 100" if unclear and scores else ""
        print(fold(f"judge {args.judge_model}: {text}", hang="    "))
    return {"url": judge.url, "model": judge.model, "scored": len(scores), "mean": mean}
