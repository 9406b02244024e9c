"""Training: the task, the loop, and the workers that share a gradient."""

from tinygrad_llm.training.loop import Step, Trainer, TrainingError, evaluate, make_optimizer, train, validation_batches
from tinygrad_llm.training.settings import ConfigError, TrainSettings

__all__ = [
    "ConfigError",
    "Step",
    "TrainSettings",
    "Trainer",
    "TrainingError",
    "evaluate",
    "make_optimizer",
    "train",
    "validation_batches",
]
