"""Training: the loop, evaluation, presets, and runs that are kept in a folder."""

from tinygrad_llm.training.loop import Step, TrainingError, TrainSettings, evaluate, train, validation_batches
from tinygrad_llm.training.picture import save_loss_curve
from tinygrad_llm.training.presets import PRESETS, Preset
from tinygrad_llm.training.progress import Progress
from tinygrad_llm.training.run import FILES, AnyTokenizer, Run, about_run, holds_run, load_run, start_ids, write

__all__ = [
    "FILES",
    "PRESETS",
    "AnyTokenizer",
    "Preset",
    "Progress",
    "Run",
    "Step",
    "TrainSettings",
    "TrainingError",
    "about_run",
    "evaluate",
    "holds_run",
    "load_run",
    "save_loss_curve",
    "start_ids",
    "train",
    "validation_batches",
    "write",
]
