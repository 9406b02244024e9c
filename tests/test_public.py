"""What the package offers: the names exist, and each has a docstring."""

import ast
import importlib
import inspect
import pkgutil
import types

import pytest

import tinygrad_llm
from tinygrad_llm import finetuning, generation, optim, training, weights
from tinygrad_llm.finetuning.settings import FineTuneSettings
from tinygrad_llm.generation import Sampling
from tinygrad_llm.generation.search import beam_search, translate

MODULES = [
    module for module in pkgutil.walk_packages(tinygrad_llm.__path__, "tinygrad_llm.") if module.name[-8:] != "__main__"
]
# Every command's module has these two functions, which `cli.Command` describes.
COMMAND_FUNCTIONS = {"add_arguments", "run"}
# Functions that draw an input for a case: one line each, which their names repeat.
DRAWS = {"normal", "positive", "ids", "fixed", "mask"}


def test_the_interface_is_the_designed_one():
    names = "Tensor Generator GPT GPTConfig Tokenizer no_grad grad detect_anomaly AnomalyError nn optim functional"
    assert sorted(tinygrad_llm.__all__) == sorted(names.split())


def test_every_offered_name_exists_once_and_has_a_docstring():
    wrong = []
    for name in ("tinygrad_llm", *(module.name for module in MODULES)):
        module = importlib.import_module(name)
        names = getattr(module, "__all__", [])
        wrong += [f"{name}.{offered} is listed twice" for offered in set(names) if names.count(offered) > 1]
        for offered in names:
            thing = getattr(module, offered, None)
            documented = not isinstance(thing, type | types.FunctionType | types.ModuleType) or thing.__doc__
            if not hasattr(module, offered) or not documented:
                wrong.append(f"{name}.{offered} does not exist, or has no docstring")
    assert wrong == []


def test_every_public_function_and_class_has_a_docstring(trees):
    missing = []
    for path, tree in trees.items():
        exempt = {"cli": COMMAND_FUNCTIONS, "gradcheck": DRAWS}.get(path.parent.name, set())
        named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if path.name == "wrong_formulas.py":  # a table says in words what each of these functions gets wrong
            named = []
        public = [node for node in named if not node.name.startswith("_") and node.name not in exempt]
        missing += [
            f"{path.name}: {getattr(node, 'name', 'the file')}"
            for node in (tree, *public)
            if not ast.get_docstring(node)
        ]
    assert missing == []


def test_every_folder_lists_what_it_offers():
    program = ["tinygrad_llm.cli", "tinygrad_llm.runs"]  # importing one of their files must not load all others
    folders = [module.name for module in MODULES if module.ispkg]
    assert [name for name in folders if not hasattr(importlib.import_module(name), "__all__")] == program


STEPS = {"schedule": "cosine", "decay": "matrices", "clip": 1.0, "order": "epochs", "stride": 8, "masks": "torch"}
ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "maximize": False}
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
WRITE = {"sampling": Sampling(1.0, None, None, 1.0, ()), "stop": ()}
LOOP = {"sampling": Sampling(1.0, None, None, 1.0, ()), "rng": None, "use_cache": True, "eos_id": None}
SCHEDULE = {"min_lr": 0.0, "warmup": 0}
DEFAULTS = [
    # PyTorch's
    (optim.Adam, ADAM | {"weight_decay": 0.0}),
    (optim.AdamW, ADAM | {"weight_decay": 0.01}),
    (
        optim.SGD,
        {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False},
    ),
    (
        optim.Muon,
        {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "ns_coefficients": NEWTON_SCHULZ}
        | {"eps": 1e-7, "ns_steps": 5, "adjust_lr_fn": None},
    ),
    (optim.newton_schulz, {"coefficients": NEWTON_SCHULZ, "steps": 5, "eps": 1e-7}),
    # of papers
    (beam_search, {"width": 4, "length_penalty": 0.6, "max_new_tokens": None}),
    (translate, {"width": 1, "length_penalty": 0.6, "batch_size": 32, "names": ()}),
    (finetuning.Preference, {"held_out": (), "beta": 0.1}),
    # nothing that was not asked for
    *((schedule, SCHEDULE) for schedule in optim.SCHEDULES.values()),
    (
        generation.Sampling,
        {"temperature": 1.0, "top_k": None, "top_p": None, "repetition_penalty": 1.0, "forbidden": ()},
    ),
    (generation.generate, LOOP),
    (generation.stream, LOOP | {"n_vocab": None}),
    (generation.write, WRITE | {"rng": None}),
    (generation.write_all, WRITE | {"rngs": None}),
    (generation.crop, {"refuse": False, "keep": "last", "what": "the text"}),
    (generation.words_cropped, {"part": "beginning"}),
    (finetuning.Classification, {"held_out": (), "class_weights": None}),
    (finetuning.PaddedExamples, {"grouped": False}),
    (finetuning.collate, {"prompt_lengths": None, "max_length": None}),
    (finetuning.encode_entries, {"mask_prompt": False}),
    (weights.read_pretrained, {"n_head": None, "allow_non_finite": False}),
    (weights.write_pretrained, {"form": "safetensors", "end_of_text": None, "padding": None}),
    (weights.write_tokenizer, {"form": "safetensors"}),
    (training.LanguageModeling, {"held_out": (), "label_smoothing": 0.0}),
    (training.Translation, {"label_smoothing": 0.0}),
    (
        FineTuneSettings,
        {"task": "", "base": "", "data": "", "layers": "all", "rank": 8, "alpha": 16.0, "lora_dropout": 0.0}
        | {"embeddings": 0, "too_long": "cut", "balance": True, "class_weights": False, "style": "alpaca"}
        | {"mask_prompt": False, "grouped": True, "beta": 0.1},
    ),
    (
        training.TrainSettings,
        {"steps": 2000, "extended": (), "epochs": 0, "batch_size": 12, "accumulation": 1, "optimizer": "adamw"}
        | {"lr": 1e-3, "min_lr": 1e-4, "warmup": 100, "betas": (0.9, 0.99), "eps": 1e-8, "momentum": 0.0}
        | {"weight_decay": 0.1, "label_smoothing": 0.0, "eval_every": 250, "eval_batches": 20, "checkpoint_every": 0}
        | {"on_bad_step": "stop", "recompute": False, "workers": None, "seed": 0}
        | STEPS,
    ),
]


@pytest.mark.parametrize(("thing", "defaults"), DEFAULTS, ids=[thing.__name__ for thing, _ in DEFAULTS])
def test_defaults_are_those_that_users_rely_on(thing, defaults):
    parameters = inspect.signature(thing).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == defaults
