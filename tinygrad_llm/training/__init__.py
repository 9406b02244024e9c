"""Training: the task, the loop, and the workers that share a gradient."""

from tinygrad_llm.training.examples import Examples
from tinygrad_llm.training.language_model import LanguageModeling, held_out_windows, train
from tinygrad_llm.training.loop import Trainer, make_optimizer
from tinygrad_llm.training.records import Step, TrainingError
from tinygrad_llm.training.settings import ConfigError, TrainSettings
from tinygrad_llm.training.task import Batch, Batches, Evaluation, Task
from tinygrad_llm.training.translation import Translation, encode_translations

__all__ = [
    "Batch", "Batches", "ConfigError", "Evaluation", "Examples", "LanguageModeling", "Step", "Task",
    "TrainSettings", "Trainer", "TrainingError", "Translation", "encode_translations", "held_out_windows",
    "make_optimizer", "train",
]  # fmt: skip
