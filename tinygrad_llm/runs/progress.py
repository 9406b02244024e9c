"""Progress on the terminal: a bar where tqdm is installed, plain lines where it is not."""

import os
import sys
import time
from typing import Any, TextIO

from tinygrad_llm.training import Step


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line at once, to stdout or `file`. Where nobody reads any more (`… | head`, a terminal that was closed),
    it and all that follow are dropped: training for a night is worth more than its words, which the run's folder has
    as well."""
    file = file or sys.stdout
    try:
        print(text, file=file, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())  # what is still in the buffer goes there, too
        os.close(nowhere)


class Progress:
    """Shows each step's loss, the speed in tokens a second, and the time left.

    Args:     steps: how many there will be. file: where to (stderr if None). done: how many there were before.
    """

    def __init__(self, steps: int, file: TextIO | None = None, done: int = 0) -> None:
        self.steps = steps
        self.done = done
        self.file = file or sys.stderr
        self._bar: Any = None
        self._val = ""
        self._began = time.monotonic()
        self._every = max(1, (steps - done) // 20)
        if self.file is not None and self.file.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=steps, initial=done, file=self.file, unit="step", dynamic_ncols=True)

    def show(self, step: Step) -> None:
        """Tell of one step."""
        if step.val_loss is not None:
            self._val = f"  held-out {step.val_loss:.3f}"
        if step.step == 0 or self.file is None:  # stderr was closed
            return
        words = f"loss {step.loss:.3f}{self._val}  {step.tokens_per_second:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.set_postfix_str(words, refresh=False)
            self._bar.update(1)
        elif step.step % self._every == 0 or step.step == self.steps:
            left = (time.monotonic() - self._began) / (step.step - self.done) * (self.steps - step.step)
            say(f"step {step.step}/{self.steps}  {words}  {left:.0f} s left", self.file)

    def write(self, text: str, file: TextIO | None = None) -> None:
        """`say` a line without breaking the bar."""
        if self._bar is not None:
            self._bar.clear()
        say(text, file)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
