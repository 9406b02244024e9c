"""The weights that a run starts from: those of another run, of a published GPT-2, or of another file."""

from collections.abc import Mapping
from typing import Any

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.runs.config import RunConfig
from tinygrad_llm.runs.folder import choose_weights
from tinygrad_llm.tokenizer import AnyTokenizer, Tokenizer, vocabulary_hash
from tinygrad_llm.training import ConfigError
from tinygrad_llm.weights import find_tokenizer, fit, tokenizer_for
from tinygrad_llm.weights.find import find_weights, folder_of

_SIZES = ("n_layer", "n_head", "n_embd", "qkv_bias", "tie_weights", "positions")
_ROWS = ("transformer.wte.weight", "lm_head.weight")  # one for each token
_POSITIONS = "transformer.wpe.weight"


def with_start(config: RunConfig, *changes: Mapping[str, Any]) -> RunConfig:
    """The configuration with the sizes and the tokenizer of the weights that the changes start from, if they name any.

    Args:     changes: which are made afterwards, so that they may choose a smaller block, for example.
    Raises:   LoadError, TokenizerError: there are no such weights, or they cannot be used.
    """
    named = [change[key] for change in changes for key in ("data.init", "init") if change.get(key)]
    if not named:
        return config
    if config.model.kind != "gpt":
        raise ConfigError(
            f"data.init: only a gpt starts from other weights, not the model {config.model.kind}: leave it out"
        )
    path = choose_weights(str(named[-1])).path
    sizes = GPT.from_pretrained(path).config
    settings: dict[str, Any] = {f"model.{name}": getattr(sizes, name) for name in (*_SIZES, "block_size")}
    if find_tokenizer(path) is not None:
        settings["data.tokenizer"] = str(folder_of(find_weights(path)))
    elif fit(Tokenizer.gpt2(), sizes.vocab_size) is not None:
        settings["data.tokenizer"] = "gpt2"
    return config.changed(settings)


def start_from(model: GPT, init: str, tokenizer: AnyTokenizer) -> None:
    """Put the weights at a path into a new model. Of positions beyond its block, and of padded rows, there are fewer.

    Args:     init: a run, the name of a published model, or another path that `GPT.from_pretrained` reads.
              tokenizer: that of the new run.
    Raises:   ConfigError: the sizes or the tokenizer are not those of the weights; all differences are named.
              LoadError, TokenizerError: the weights cannot be read.
    """
    path = choose_weights(init).path
    base = GPT.from_pretrained(path)
    different = _differences(model.config, base.config)
    if different:
        raise ConfigError(f"data.init: {init} has other sizes: {', '.join(different)}: leave these settings out")
    rows = base.config.vocab_size
    own = fit(tokenizer, rows) if find_tokenizer(path) is None else tokenizer_for(path, base.config)
    if own is None or vocabulary_hash(own) != vocabulary_hash(tokenizer):
        raise ConfigError(
            f"data.init: {init} has another tokenizer, of {rows} tokens and not {tokenizer.n_vocab}, or other ones: "
            "leave --tokenizer and data.tokenizer out"
        )
    state = base.state_dict()
    if _POSITIONS in state:
        state[_POSITIONS] = state[_POSITIONS][: model.config.block_size]
    for name in _ROWS:
        if name in state:
            state[name] = state[name][: tokenizer.n_vocab]
    model.load_state_dict(state)


def _differences(here: GPTConfig, there: GPTConfig) -> list[str]:
    found = [
        f"{name} {getattr(there, name)} and not {getattr(here, name)}"
        for name in _SIZES
        if getattr(here, name) != getattr(there, name)
    ]
    if here.block_size > there.block_size and there.positions == "absolute":
        found.append(f"block_size {there.block_size}, less than {here.block_size}")
    return found
