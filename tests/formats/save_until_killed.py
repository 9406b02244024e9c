"""A program for test_checkpoint.py: for every line `<folder> <numbers>` it forks a child that saves until it is killed.

It prints the child's process id, then the step of every save that returned, then `gone` when the child has ended.
The package is imported once, so that a run costs milliseconds.
"""

import os
import sys
import traceback
from pathlib import Path

import numpy as np

from tinygrad_llm.formats import Checkpoints, save_checkpoint


def save_for_ever(folder, numbers):
    """Checkpoints whose every number is their step, and one more file that is replaced each time."""
    checkpoints = Checkpoints(folder)
    step = 0
    if checkpoints.latest():
        step = checkpoints.load_latest()[1]["step"]
    while True:
        step += 1
        arrays = {"x": np.full(numbers, step, np.float32)}
        save_checkpoint(folder / "last.safetensors", arrays, {"step": step})
        checkpoints.save(step, arrays, loss=1 / step)
        os.write(1, f"{step}\n".encode())  # whole, or not at all


for line in sys.stdin:
    folder, numbers = line.rstrip("\n").rsplit(" ", 1)
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(Path(folder), int(numbers))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
