"""Training on a terminal: a progress bar, samples, and signals that let the step end and save."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

import numpy as np

from tinygrad_llm.cli.progress import Bar, sample_lines, say
from tinygrad_llm.runs.run import Run
from tinygrad_llm.training import Step

STOPPED = 130  # exit status after a request to stop; the run is saved, and can be resumed. A shell's own for Ctrl-C
_HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed
SAMPLE_TOKENS = 60  # of the text that the model writes at each evaluation
_STOP = [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]


class StepBar:
    """A `Bar` of training steps: the loss, the last held-out loss, the speed, and the time left.

    Args:     steps: how many there will be. file: where to write; None: stderr. done: how many there were before.
    """

    def __init__(self, steps: int, file: TextIO | None = None, done: int = 0) -> None:
        self._bar = Bar("step", total=steps, done=done, file=file, lines=20)
        self._held_out: list[str] = []
        self.write, self.close = self._bar.write, self._bar.close

    def show(self, step: Step) -> None:
        """Show one step."""
        if step.val_loss is not None:
            self._held_out = [f"held-out {step.val_loss:.3f}"]
        if step.step:  # step 0 only carries the loss before training
            speed = f"{step.tokens_per_second:,.0f} tokens/s"
            self._bar.update(step.step, words=[f"loss {step.loss:.3f}", *self._held_out, speed])


class Signals:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP sets `stopped`; a second Ctrl-C or SIGTERM ends the program.

    Once `stopped` is set, the program should save and exit with `STOPPED`.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in _STOP:
                if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup has it ignored
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stopped and number != _HANGUP:  # the shell and the system send one SIGHUP each
            raise KeyboardInterrupt
        self.stopped = True


def watch(run: Run, out: TextIO) -> tuple[int, list[Path]]:
    """Train with a progress bar on stderr, and a sample at each evaluation on `out`; then save.

    Returns:  the exit status, which is 130 if a signal came before the last step; the paths that were written.
    Raises:   KeyboardInterrupt: a second Ctrl-C. TrainingError, InUseError: as `Run.train`.
    """
    steps = run.config.training.steps
    bar = StepBar(steps, done=run.trainer.step)
    with Signals() as signals:
        try:
            for step in run.train(lambda: signals.stopped, SAMPLE_TOKENS):
                bar.show(step)
                for line in _remarks(run, step):
                    bar.write(line, out)
        finally:
            bar.close()
        stopped = run.trainer.step < steps
        if stopped:
            say(f"\nstopped after step {run.trainer.step}; saving", sys.stderr)
        return STOPPED if stopped else 0, run.save()


def _remarks(run: Run, step: Step) -> list[str]:
    """Lines about a step, which are printed in addition to the bar."""
    lines = []
    if step.skipped:
        lines.append(f"step {step.step}: skipped, its loss is {step.loss}, its gradient norm {step.grad_norm}")
    if step.spike:
        lines.append(
            f"step {step.step}: loss {step.loss:.3f} is {step.z_score:.1f} standard deviations above the last hundred"
        )
    if step.val_loss is not None:
        text = sample_lines(_sample(run, step), "    ")
        lines.append(f"\nstep {step.step}: held-out loss {step.val_loss:.3f}. {run.data.heading}:\n{text}\n")
    return lines


def _sample(run: Run, step: Step) -> str:
    """The sample of this step, or why there is none."""
    if run.samples and run.samples[-1][0] == step.step:
        return run.samples[-1][1]
    try:
        with np.errstate(all="ignore"):
            return run.sample(SAMPLE_TOKENS)
    except ValueError as error:  # a run that diverges is reported by its losses, and need not end here
        return f"(nothing: {error})"
