"""Train in child processes that are killed at random moments, and compare the result with a run that was not killed.

Usage: train_until_killed.py FOLDER KILLS [TASK LAYERS]. Without a task, a model of a text is trained; with one, a base
is fine-tuned. The children are forked from this process, which has imported everything and, with
OPENBLAS_NUM_THREADS=1, has no threads, so that a start costs a millisecond. Prints a JSON object.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import DataSettings, RunConfig
from tinygrad_llm.runs.folder import clear_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.runs.run import Run
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.training import TrainSettings

sys.modules["matplotlib"] = None  # drawing takes longer than these runs
os.fsync = lambda file: None  # processes are killed here, not the machine

folder, kills, tuned = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
TEXT = "The cat sat on the mat, and the mat was flat.\n" * 12
RESULTS = ("model.safetensors", "adapter_model.safetensors", "results.json")
training = TrainSettings(
    steps=(8 if tuned else 20) + 6 * kills,
    batch_size=4,
    warmup=2,
    eval_every=1,
    eval_batches=1,
    accumulation=2,
    workers=1,
    stride=4,
)


def of_a_text() -> RunConfig:
    (folder / "text.txt").write_text(TEXT)
    data = DataSettings(corpus=str(folder / "text.txt"), tokenizer="char")
    return RunConfig(
        data=data, model=GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, dropout=0.1), training=training
    )


def of_examples(task: str, layers: str) -> RunConfig:
    tokenizer = Tokenizer.train(TEXT, 270)
    sizes = GPTConfig(tokenizer.n_vocab, block_size=32, n_layer=1, n_head=2, n_embd=8, initializer_range=0.2)
    GPT(sizes, Generator(0)).save_pretrained(folder / "base")
    tokenizer.save(folder / "base" / "tokenizer.json")
    asked = [{"instruction": "Sat?", "input": "the cat " * (i % 3) + str(i)} for i in range(40)]
    lines = {
        "classifier": [f"{'ab'[i % 2]}\tthe {('cat', 'mat')[i % 2]} {i}" for i in range(40)],
        "assistant": [json.dumps({**one, "output": "cat"}) for one in asked],
        "preference": [json.dumps({**one, "chosen": "a cat", "rejected": "mat"}) for one in asked],
    }
    (folder / "examples").write_text("\n".join(lines[task]))
    named = {"finetune.task": task, "finetune.base": str(folder / "base"), "finetune.data": str(folder / "examples")}
    how = {"finetune.layers": layers, "finetune.style": "plain", "model.dropout": 0.1, "finetune.lora_dropout": 0.1}
    same = {f"training.{name}": getattr(training, name) for name in ("steps", "batch_size", "warmup", "eval_every")}
    rest = {"training.workers": 1, "training.epochs": 0, "training.accumulation": 2}
    return PRESETS[task].changed(named | how | same | rest)


config = of_examples(*tuned) if tuned else of_a_text()


def train(place: Path, pipe: int | None = None) -> None:
    if list((place / "checkpoints").glob("step-*")):
        run = Run.resume(place)
    else:
        clear_run(place)  # left by a kill before the first checkpoint
        run = Run.new(config, place)
    for _ in run.train(sample=3):
        if pipe is not None:
            os.write(pipe, b".")  # a step is done
    run.save()


def child(place: Path) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        train(place, writer)
        os._exit(0)
    os.close(writer)
    return pid, reader


train(folder / "whole")
moments = set()
rng = random.Random(0)
killed = 0
while True:
    pid, steps_done = child(folder / "parts")
    if killed < kills:
        for _ in range(rng.randint(0, 3)):
            os.read(steps_done, 1)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
    else:
        while os.read(steps_done, 1000):
            pass
    os.close(steps_done)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        killed += 1
        steps = read_metrics(folder / "parts" / "metrics.jsonl")
        moments.add(steps[-1].step if steps else -1)
    elif killed < kills:
        sys.exit(f"it ended after {killed} kills (status {status}): more steps are needed")
    else:
        break

one, other = (Checkpoints(folder / name / "checkpoints").load_latest() for name in ("whole", "parts"))
different = [name for name in one[0] if one[0][name].tobytes() != other[0][name].tobytes()]
different += [name for name in one[1] if name != "config" and one[1][name] != other[1][name]]
losses = [[step.loss for step in read_metrics(folder / name / "metrics.jsonl")] for name in ("whole", "parts")]
different += ["metrics"] * (losses[0] != losses[1])
for name in RESULTS:
    paths = [folder / place / name for place in ("whole", "parts")]
    different += [name] * (len({path.read_bytes() if path.exists() else None for path in paths}) > 1)
samples = [(folder / name / "samples.txt").read_text() for name in ("whole", "parts")]
different += ["samples"] * (samples[0] != samples[1])
print(json.dumps({"killed": killed, "different": different, "moments": len(moments)}))
