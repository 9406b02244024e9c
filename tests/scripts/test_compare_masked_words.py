"""scripts/compare_masked_words.py: the three guesses, counted by hand on models that are easy to predict."""

import numpy as np
import pytest

from tinygrad_llm.models import GPT, Encoder, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.runs.run import Run


@pytest.fixture(scope="module")
def script(script):
    return script("compare_masked_words")


def test_each_guess_is_counted(script, tmp_path):
    (tmp_path / "text.txt").write_text("the cat and the dog and the cow sat. <|endoftext|>\n" * 200)
    sizes = {"model.n_layer": 1, "model.n_head": 1, "model.n_embd": 8, "model.block_size": 8, "data.vocab_size": 300}
    short = {"training.steps": 1, "training.warmup": 0, "training.workers": 1, "training.eval_batches": 1}
    config = PRESETS["encoder-tiny"].changed({**sizes, **short, "data.corpus": str(tmp_path / "text.txt")})
    run = Run.new(config, tmp_path / "encoder")
    list(run.train())
    run.save()
    tokenizer = run.data.tokenizer
    the, cat, dog = tokenizer.encode("the cat dog")
    encoder = Encoder(run.model.config)
    for p in encoder.parameters():
        p.data = np.zeros_like(p.data)
    encoder.cls["predictions"].bias.data[cat] = 1.0  # always "cat"
    encoder.save_pretrained(tmp_path / "encoder")
    gpt = GPT(GPTConfig(tokenizer.n_vocab, 8, n_layer=1, n_head=1, n_embd=8, tie_weights=False))
    gpt.transformer.ln_f.weight.data[:] = 0
    gpt.transformer.ln_f.bias.data[:] = 1
    gpt.lm_head.weight.data[:] = 0
    gpt.lm_head.weight.data[dog] = 1  # always "dog"
    gpt.save_pretrained(tmp_path / "gpt")
    found = script.compare(tmp_path / "encoder", tmp_path / "gpt")
    every = run.config.changed({"training.eval_batches": 1000})
    words = np.concatenate(
        [targets[targets >= 0] for _, targets in run.data.make_task(every, Generator(0))[0].held_out]
    )
    assert np.bincount(run.data.training[0]).argmax() == the
    shares = {name: (words == token).mean() for name, token in (("unigram", the), ("encoder", cat), ("gpt", dog))}
    assert found == {**shares, "hidden": len(words)}
    assert min(shares.values()) > 0
