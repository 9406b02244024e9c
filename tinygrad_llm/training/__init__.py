"""Training: the loop, evaluation, presets, and runs that are kept in a folder."""

from tinygrad_llm.training.config import (
    ConfigError,
    DataSettings,
    RunConfig,
    TrainSettings,
    keys,
    parse_change,
    read_toml,
)
from tinygrad_llm.training.evaluation import (
    Choice,
    ChoiceScore,
    TextScore,
    default_stride,
    next_tokens,
    read_choices,
    score_choices,
    score_file,
    score_tokens,
    scoring_windows,
    token_losses,
)
from tinygrad_llm.training.lock import InUseError
from tinygrad_llm.training.loop import Step, Trainer, TrainingError, evaluate, make_optimizer, train, validation_batches
from tinygrad_llm.training.picture import save_gradients, save_loss_curve
from tinygrad_llm.training.plan import Plan, measure_run, plan_run
from tinygrad_llm.training.presets import PRESETS, find_preset
from tinygrad_llm.training.progress import Progress, say
from tinygrad_llm.training.run import (
    FILES,
    Run,
    about_run,
    holds_run,
    load_config,
    load_run,
    read_metrics,
    start_ids,
    write,
)
from tinygrad_llm.training.tensorboard import Scalars, find_writer

__all__ = [
    "FILES",
    "PRESETS",
    "Choice",
    "ChoiceScore",
    "ConfigError",
    "DataSettings",
    "InUseError",
    "Plan",
    "Progress",
    "Run",
    "RunConfig",
    "Scalars",
    "Step",
    "TextScore",
    "TrainSettings",
    "Trainer",
    "TrainingError",
    "about_run",
    "default_stride",
    "evaluate",
    "find_preset",
    "find_writer",
    "holds_run",
    "keys",
    "load_config",
    "load_run",
    "make_optimizer",
    "measure_run",
    "next_tokens",
    "parse_change",
    "plan_run",
    "read_choices",
    "read_metrics",
    "read_toml",
    "save_gradients",
    "save_loss_curve",
    "say",
    "score_choices",
    "score_file",
    "score_tokens",
    "scoring_windows",
    "start_ids",
    "token_losses",
    "train",
    "validation_batches",
    "write",
]
