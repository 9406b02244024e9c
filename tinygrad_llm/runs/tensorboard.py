"""The figures of a run for TensorBoard, where a package that writes its files is installed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_llm.training import Step

SCALARS = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_second")


def find_writer() -> Any:
    """What opens a folder to `add_scalar` to: tensorboardX's, or TensorBoard's own; None where neither is installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        pass
    else:
        return SummaryWriter
    try:
        from tensorboard.summary import Writer
    except ImportError:
        return None
    return Writer


class Scalars:
    """TensorBoard's files in one folder; `steps` are those before, which it is to show as well.

    Raises:   ImportError: nothing is installed that writes them.
    """

    def __init__(self, folder: Path, steps: Sequence[Step] = ()) -> None:
        writer = find_writer()
        if writer is None:
            raise ImportError("TensorBoard's files need a package that writes them: pip install tensorboardX")
        self._writer = writer(str(folder))
        for step in steps:
            self.write(step)

    def write(self, step: Step) -> None:
        """Add the figures of one step; what is no number is left out, and at step 0 all but the held-out loss."""
        for name in SCALARS if step.step else ("val_loss",):
            value = getattr(step, name)
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, step.step)
        if step.val_loss is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
