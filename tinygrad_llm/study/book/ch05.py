"""Chapter 5: losses, training, and ways to choose the next token."""

import copy
from functools import cache
from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ledger import TORCH, fact
from tinygrad_llm.study.book.material import (
    Loaders,
    gpt2,
    greedy,
    language_loss,
    mean_loss,
    train,
    verdict,
    verdict_ids,
    verdict_loaders,
)

VERDICT = ("the-verdict",)
INPUTS = np.array([[16833, 3626, 6100], [40, 1107, 588]])
TARGETS = np.array([[3626, 6100, 345], [1107, 588, 11311]])
PROMPT = "Every effort moves you"


# ---- the loss of an untrained model ----------------------------------------------------------------------------------


@cache
def untrained() -> GPT:
    """Seed 123: the model of 163 million parameters with room for 256 tokens."""
    return GPT(book_config(block_size=256), Generator(123)).eval()


@cache
def logits() -> Any:
    """The untrained model's logits of two short texts, (2, 3, 50257)."""
    with no_grad():
        return untrained()(INPUTS)


@fact("ch05-02", ("16657", "339", "42826", "49906", "29669", "41751", " Armed heNetflix"), tier="large")
def predictions() -> list[Any]:
    """The likeliest next ids of two short texts, and the first three as text."""
    ids = logits().data.argmax(-1)
    return [ids, gpt2().decode(ids[0])]


def target_probabilities() -> Any:
    """The probabilities of the six targets."""
    return logits().softmax(-1).gather(-1, TARGETS[..., None])


@fact("ch05-03", "7.4541e-05 3.1061e-05 1.1563e-05 / 1.0337e-05 5.6776e-05 4.7559e-06", tier="large", relative=6e-5)
def probabilities() -> Any:
    """The probabilities of the targets."""
    return target_probabilities()


@fact("ch05-04", "-9.5042 -10.3796 -11.3677 -11.4798 -9.7764 -12.2561 / -10.7940 10.7940", tier="large")
def losses() -> list[Any]:
    """Their logarithms, the mean of these, and the cross-entropy."""
    logs = target_probabilities().log()
    return [logs, logs.mean(), F.cross_entropy(logits().reshape(6, -1), TARGETS.reshape(6))]


@fact("ch05-06", "2 3 50257 / 6 50257 / 6", tier="large")
def shapes() -> list[Any]:
    """Shapes of the logits, of the flat logits, and of the flat targets."""
    return [logits().shape, logits().flatten(0, 1).shape, TARGETS.reshape(-1).shape]


@fact("ch05-07", "20479 5145", needs=VERDICT)
def story() -> list[int]:
    """The Verdict: characters and tokens."""
    return [len(verdict()), len(verdict_ids())]


@fact("ch05-08", "9 1 / 2 256 / 4608 512", needs=VERDICT)
def batches() -> list[Any]:
    """Training and validation: the number of batches, the shape of one, and the tokens of each part."""
    loaders = verdict_loaders(Generator(123))
    tokens = [sum(x.size for x, _ in loader) for loader in loaders]
    return [[len(loader) for loader in loaders], next(iter(loaders.train))[0].shape, tokens]


@fact("ch05-09", "0 7 14 5 6 1 17 2 11 12 9 16 13 10 3 8 15 4", origin=TORCH, needs=VERDICT)
def order() -> list[int]:
    """Seed 123; the order of the windows in the first pass."""
    train_loader, _ = verdict_loaders(Generator(123))
    starts = {tuple(train_loader.dataset[i][0].tolist()): i for i in range(18)}
    return [starts[tuple(row.tolist())] for x, _ in train_loader for row in x]


@fact("ch05-10", "10.98758347829183 10.98110580444336", tier="large", needs=VERDICT, relative=5e-7)
def untrained_losses() -> list[float]:
    """Seed 123 for the model, and again: the mean loss of all training batches, and of the validation batch."""
    return [mean_loss(untrained(), loader) for loader in verdict_loaders(Generator(123))]


# ---- training --------------------------------------------------------------------------------------------------------


@fact(
    "ch05-25",
    "10.87870 11.00605 / 10.98149 10.98673 / 10.88086 10.96676 / 10.91883 10.94940 / 11.05372 10.93206 / "
    "10.85335 10.91355 / 7.52183 8.37972 / 7.66077 8.30366 / 39 3242112",
    origin=TORCH,
    tier="large",
    needs=VERDICT,
    units=10,
)
def small_training() -> list[Any]:
    """Seed 123; a small model, one pass: training and validation losses at steps 0, 5 … 25, 185, 190; how many there
    are; the model's parameters.
    """
    rng = Generator(123)
    model = GPT(book_config(block_size=12, n_embd=32, n_head=4, n_layer=2), rng)
    optimizer = AdamW(model.parameters(), lr=5e-4, weight_decay=0.1)
    pairs = [pair for _, *pair in train(model, verdict_loaders(rng, 12), optimizer, epochs=1, batches=1)]
    return [pairs[:6], pairs[-2:], len(pairs), model.num_parameters()]


@fact("ch05-24", "39", needs=VERDICT)
def evaluations() -> int:
    """How many evaluations one pass of ch05-25 makes: one for each five steps, with the first."""
    steps = len(verdict_loaders(Generator(123), 12).train)
    return len(range(0, steps, 5))


class Training:
    """Seed 123; the book's training of 163 million parameters on the story, 10 passes of 9 steps."""

    def __init__(self) -> None:
        self.rng = Generator(123)
        self.model = GPT(book_config(block_size=256), self.rng)
        self.optimizer = AdamW(self.model.parameters(), lr=4e-4, weight_decay=0.1)
        self.loaders = verdict_loaders(self.rng)
        self.samples: list[str] = []

    def run(self, epochs: int) -> list[tuple[float, float]]:
        """Training and validation losses at every fifth step."""
        log = train(self.model, self.loaders, self.optimizer, epochs, after_pass=self.write)
        return [pair for _, *pair in log]  # type: ignore[misc]

    def write(self) -> None:
        """Keep what the model writes after a pass."""
        self.samples.append(greedy(self.model, PROMPT, 50).rstrip())


@cache
def trained() -> tuple[Training, list[tuple[float, float]]]:
    """The model after 10 passes, and its losses."""
    training = Training()
    return training, training.run(10)


@fact(
    "ch05-11",
    "9.781 9.933 / 8.111 8.339 / 6.661 7.048 / 5.961 6.616 / 5.726 6.600 / 5.201 6.348 / 4.417 6.278 / 4.069 6.226 / "
    "3.732 6.160 / 2.850 6.179 / 2.427 6.141 / 2.104 6.134 / 1.882 6.233 / 1.320 6.238 / 0.985 6.242 / 0.717 6.293 / "
    "0.541 6.393 / 0.391 6.452",
    tier="slow",
    needs=VERDICT,
    units=2,
)
def training_losses() -> Any:
    """Seed 123; model, AdamW, 10 passes: training and validation losses after steps 0, 5, 10 … to the end."""
    return trained()[1]


@fact("ch05-12", (PROMPT + "," * 12 + ".",), tier="slow", needs=VERDICT)
def sample_after_one_pass() -> str:
    """The model's text after the first pass."""
    return trained()[0].samples[0]


@fact(
    "ch05-12+",
    (
        PROMPT + ' know," was one of the axioms he laid down across the Sevres and silver of an exquisitely appointed'
        " lun",
    ),
    tier="slow",
    needs=VERDICT,
)
def sample_after_training() -> str:
    """The model's text after training, always the likeliest token."""
    return greedy(trained()[0].model, PROMPT, 25)


@fact(
    "ch05-19", (PROMPT + " stand to work on surprise, a one of us had gone with random-",), tier="slow", needs=VERDICT
)
def random_sample() -> str:
    """Seed 123; its text with temperature 1.4, among the 25 likeliest tokens."""
    model = trained()[0].model.eval()
    ids = model.generate(gpt2().encode(PROMPT), 15, temperature=1.4, top_k=25, rng=Generator(123))
    return gpt2().decode(ids)


@fact("ch05-20", "0.271 6.545 / 0.244 6.614", tier="slow", needs=VERDICT, units=2)
def one_more_pass() -> list[tuple[float, float]]:
    """Exercise 5.4: seed 123, new loaders, one more pass with the model and the optimizer's state."""
    training = copy.deepcopy(trained()[0])
    training.rng.manual_seed(123)
    training.loaders = verdict_loaders(training.rng)
    return training.run(1)


@fact("ch05-30", "7.6 10.1", tier="slow", needs=VERDICT)
def one_step() -> list[float]:
    """Seed 123; the same model, batches of one window: training and validation loss after one step on the first."""
    rng = Generator(123)
    loaders = first_windows(rng)
    model = GPT(book_config(block_size=256), rng)
    optimizer = AdamW(model.parameters(), lr=5e-4, weight_decay=0.1)
    return list(next(train(model, loaders, optimizer, 1, batches=1, loss=single)))[1:]


def first_windows(rng: Generator) -> Loaders:
    """One window for training and one for validation, as lists that draw nothing."""
    both = verdict_loaders(rng, batch_size=1)
    return Loaders(*([next(iter(loader.dataset))] for loader in both))  # type: ignore[arg-type]


def single(model: GPT, window: Any) -> Tensor:
    """The loss of one window."""
    return language_loss(model, [row[None] for row in window])


# ---- choosing the next token -----------------------------------------------------------------------------------------

V = np.array([4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79], np.float32)  # logits of nine words


@fact("ch05-13", "3 3")
def likeliest_and_drawn() -> list[Any]:
    """Nine words: the likeliest, and one drawn with seed 123."""
    return [V.argmax(), Generator(123).multinomial(Tensor(V).softmax(-1).data)]


def thousand(temperature: float) -> Any:
    """Seed 123: how often each word is drawn in 1000 draws."""
    p = Tensor(V / np.float32(temperature)).softmax(-1).data
    rng = Generator(123)
    return np.bincount([int(rng.multinomial(p)[0]) for _ in range(1000)], minlength=len(V))


@fact("ch05-14", "73 0 0 582 2 0 0 343 0")
def drawn() -> Any:
    """1000 draws, temperature 1."""
    return thousand(1.0)


@fact("ch05-15", "0 0 0 985 0 0 0 15 0")
def drawn_cold() -> Any:
    """1000 draws, temperature 0.1."""
    return thousand(0.1)


@fact("ch05-17", "0.0430")
def exercise_5_1() -> Any:
    """Exercise 5.1: the probability of word 6 with temperature 5."""
    return Tensor(V / 5).softmax(-1)[6]


@fact("ch05-18", "6.75 6.28 4.51 / 3 7 0 / 0.0615 0 0 0.5775 0 0 0 0.3610 0")
def top_3() -> list[Any]:
    """The three largest logits, their places, and the softmax without the others."""
    places = np.argsort(-V)[:3]
    kept = np.full_like(V, -np.inf)
    kept[places] = V[places]
    return [V[places], places, Tensor(kept).softmax(-1)]


# ---- with OpenAI's weights -------------------------------------------------------------------------------------------


@cache
def pretrained(name: str) -> GPT:
    """A GPT-2 as OpenAI published it."""
    return GPT.from_pretrained(name).eval()


@fact("ch05-29", "497,759,232 1,419,292,672 / 50257 1024 768 12 12")
def gpt2_sizes() -> list[Any]:
    """GPT-2 small and medium: the bytes of their data files, 4 for each parameter; the small one's five sizes."""
    small, medium = (GPTConfig.published[name] for name in ("gpt2", "gpt2-medium"))
    sizes = [small.vocab_size, small.block_size, small.n_embd, small.n_head, small.n_layer]
    return [4 * small.num_parameters, 4 * medium.num_parameters, sizes]


@fact(
    "ch05-21",
    "50257 768 / -0.11010301 -0.03926672 0.03310751 -0.1363697 0.01506208 0.04531523 / "
    "0.04034033 -0.04861503 0.04624869 0.08605453 0.00253983 0.04318958 / "
    "0.05135201 -0.02768905 0.0499369 0.00704835 0.15519823 0.12067825",
    tier="large",
    needs=("gpt2",),
)
def gpt2_embedding() -> list[Any]:
    """GPT-2 small: the shape of its token embedding, and the corners of the rows 0, 1 and the last."""
    weight = pretrained("gpt2").transformer.wte.weight.data
    return [weight.shape, weight[[0, 1, -1]][:, [0, 1, 2, -3, -2, -1]]]


_CREATIVE = "3812 4917 281 7306 649 835 284 3357 1223 0 198 198 2061 1838 514 765 284 307 319 1353 286 326 30 198 198"


@fact("ch05-22", _CREATIVE, tier="large", needs=("gpt2",))
def gpt2_writes() -> Any:
    """Seed 123; GPT-2 small, temperature 1.5, among the 50 likeliest tokens: 25 new ids."""
    ids = gpt2().encode(PROMPT)
    return pretrained("gpt2").generate(ids, 25, temperature=1.5, top_k=50, rng=Generator(123))[len(ids) :]


@fact("ch05-23", "3.754748 3.559618", tier="large", needs=("gpt2", *VERDICT), units=10)
def gpt2_losses() -> list[float]:
    """Exercise 5.5: seed 123; GPT-2 small's loss on the story."""
    return [mean_loss(pretrained("gpt2"), loader) for loader in verdict_loaders(Generator(123))]


@fact(
    "ch05-28",
    "2651 11 475 340 338 407 1576 13 198 198 1 40 1101 407 1016 284 1650 994 290 910 11 705 40 1101 407 1016 284 466 "
    "428 4032",
    tier="large",
    needs=("gpt2",),
)
def gpt2_greedy() -> Any:
    """GPT-2 small, always the likeliest token: 30 new ids."""
    ids = [6109, 3626, 6100]
    return pretrained("gpt2").generate(ids, 30, temperature=0)[len(ids) :]


@fact(
    "ch05-27",
    "3812 4917 281 7306 1204 13 921 836 470 423 284 2453 534 1459 530 379 1752 11 780 611 345 466 345 1183 1239",
    tier="slow",
    needs=("gpt2-xl",),
)
def gpt2_xl_writes() -> Any:
    """Exercise 5.6: seed 123; GPT-2 XL as in ch05-22."""
    ids = gpt2().encode(PROMPT)
    return pretrained("gpt2-xl").generate(ids, 25, temperature=1.5, top_k=50, rng=Generator(123))[len(ids) :]
