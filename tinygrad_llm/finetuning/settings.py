"""How to fine-tune: the base, the task, and which parameters are trained."""

import dataclasses
import math
from typing import Literal

from tinygrad_llm.finetuning.assistant import STYLES
from tinygrad_llm.models import GPT, EncoderClassifier, GPTClassifier
from tinygrad_llm.models.heads import Classifier
from tinygrad_llm.nn import Module, add_lora
from tinygrad_llm.random import Generator
from tinygrad_llm.training import ConfigError
from tinygrad_llm.training.settings import setting

TASKS = ("classifier", "assistant", "preference")


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
    """What a base model is trained on, and which of its parameters. Without a task, a run trains a model of text.

    Raises:   ConfigError: a value out of range.
    """

    task: Literal["", "classifier", "assistant", "preference"] = setting("", "classifier, assistant or preference")
    base: str = setting("", "the model to start from: a run's folder, a model's, or a name such as gpt2")
    data: str = setting("", "the file with examples")
    layers: Literal["all", "last", "head", "lora"] = setting(
        "all", "what is trained: all; last (block, final norm and head); head; or lora (adapters alone)"
    )
    rank: int = setting(8, "lora: rank of the adapters")
    alpha: float = setting(16.0, "lora: the adapters' output is scaled by alpha / rank")
    lora_dropout: float = setting(0.0, "lora: dropout of the adapters' input")
    embeddings: int = setting(0, "lora: rank of adapters of the embeddings, except one that the head shares; 0: none")
    too_long: Literal["cut", "refuse"] = setting("cut", "what becomes of examples longer than the model reads")
    balance: bool = setting(True, "classifier: leave out messages until every class has as many")
    class_weights: bool = setting(False, "classifier: let every class count as much, however many messages it has")
    style: Literal["alpaca", "phi3", "plain"] = setting("alpaca", f"assistant: prompt style, {', '.join(STYLES)}")
    mask_prompt: bool = setting(False, "assistant: train on the answers alone, and not on the prompts")
    grouped: bool = setting(True, "assistant: texts of similar length in one batch")
    beta: float = setting(0.1, "preference: how strongly the model is held to the base")

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"finetune.{name}: must be finite and above 0, got {getattr(self, name)}")
        if self.rank < 1:
            raise ConfigError(f"finetune.rank: must be at least 1, got {self.rank}")
        if self.embeddings < 0:
            raise ConfigError(f"finetune.embeddings: must be a rank, or 0 for none, got {self.embeddings}")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"finetune.lora_dropout: must lie in [0, 1), got {self.lora_dropout}")
        if self.task and not (self.base and self.data):
            raise ConfigError("finetune.base, finetune.data: name the base model and the file with examples")
        if self.layers == "head" and self.task in ("assistant", "preference"):
            raise ConfigError(f"finetune.layers: head is for a classifier; {self.task} takes all, last or lora")
        if self.class_weights and self.balance:
            raise ConfigError("finetune.class_weights: has no effect on balanced classes: set finetune.balance=false")


def choose_trained(model: GPT | Classifier, settings: FineTuneSettings, rng: Generator) -> None:
    """Freeze what the settings do not train, or put adapters beside the frozen layers.

    Args:     rng: draws the first values of adapters.
    Raises:   ConfigError: adapters are for a GPT, and the model is an encoder.
    """
    s = settings
    if s.layers == "lora" and isinstance(model, EncoderClassifier):
        raise ConfigError("finetune.layers: lora is for a GPT, and this base is an encoder: take all, last or head")
    if s.layers == "lora":
        add_lora(model, s.rank, s.alpha, s.lora_dropout, rng=rng, embeddings=s.embeddings)
        return
    if s.layers == "all":
        return
    trained: list[Module]
    last: list[Module]
    if isinstance(model, EncoderClassifier):
        trained, last = [model.bert.pooler["dense"], model.classifier], [model.bert.encoder["layer"][-1]]
    else:
        trained = [model.score if isinstance(model, GPTClassifier) else model.lm_head]
        last = [model.transformer.h[-1], model.transformer.ln_f]
    if s.layers == "last":
        trained += last
    kept = {id(p) for module in trained for p in module.parameters()}
    for p in model.parameters():
        p.requires_grad = id(p) in kept
