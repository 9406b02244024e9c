"""Chapter 6: a classifier of messages, from a table to a fine-tuned GPT-2."""

from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataLoader, Message, read_messages
from tinygrad_llm.datasets.public import public_file
from tinygrad_llm.models import GPT, GPTClassifier
from tinygrad_llm.nn import Linear
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ch05 import PROMPT, pretrained
from tinygrad_llm.study.book.ledger import TORCH, fact
from tinygrad_llm.study.book.material import Loaders, gpt2, train

SMS = ("sms-spam",)
LABELS = ("ham", "spam")  # their numbers are 0 and 1
END = 50256  # <|endoftext|>, which pads


# ---- the messages ----------------------------------------------------------------------------------------------------


@cache
def messages() -> tuple[Message, ...]:
    """All messages of the collection; a quoted message may hold several lines of the file."""
    found, _ = read_messages(public_file("sms-spam"))
    return tuple(found)


def numbers(label: str) -> Any:
    """The row numbers of the messages with a label."""
    return np.flatnonzero([message.label == label for message in messages()])


@cache
def parts() -> tuple[list[int], list[int], list[int]]:
    """The row numbers for training (70 %), validation (10 %) and test: as much ham as spam, shuffled.

    The book draws them by pandas, whose `sample(random_state=123)` is NumPy's.
    """
    ham, spam = numbers("ham"), numbers("spam")
    chosen = ham[np.random.RandomState(123).choice(len(ham), len(spam), replace=False)]
    rows = np.concatenate([chosen, spam])
    rows = rows[np.random.RandomState(123).permutation(len(rows))]
    a, b = int(0.7 * len(rows)), int(0.7 * len(rows)) + int(0.1 * len(rows))
    return rows[:a].tolist(), rows[a:b].tolist(), rows[b:].tolist()


@cache
def encoded(row: int) -> list[int]:
    """The ids of a message."""
    return gpt2().encode(messages()[row].text, disallowed_special=())


class Texts:
    """Messages as ids of one length, padded at the end or cut, each with the number of its label."""

    def __init__(self, rows: list[int], length: int) -> None:
        texts = [encoded(i)[:length] for i in rows]
        self.ids = np.array([text + [END] * (length - len(text)) for text in texts])
        self.labels = np.array([LABELS.index(messages()[i].label) for i in rows])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.ids[i], self.labels[i]


def longest() -> int:
    """The tokens of the longest message for training."""
    return max(len(encoded(i)) for i in parts()[0])


class Three(NamedTuple):
    """The batches for training, which are shuffled, for validation, and for the test."""

    train: DataLoader
    val: DataLoader
    test: DataLoader


def loaders(rng: Generator, length: int | None = None) -> Three:
    """Batches of 8."""
    train_part, val, test = (Texts(rows, length or longest()) for rows in parts())
    return Three(
        DataLoader(train_part, 8, shuffle=True, drop_last=True, rng=rng),
        DataLoader(val, 8, rng=rng),
        DataLoader(test, 8, rng=rng),
    )


@fact("ch06-01", "5572 / 4825 747", needs=SMS)
def counts() -> list[Any]:
    """The rows of the table; ham and spam."""
    return [len(messages()), [len(numbers(label)) for label in LABELS]]


@fact("ch06-03", "1045 149 300", needs=SMS)
def sizes() -> list[int]:
    """As much ham as spam: messages for training, validation and test."""
    return [len(rows) for rows in parts()]


@fact("ch06-03+", "517 79 151 / 2087 4694 881 1172 2170", origin="pandas", needs=SMS)
def spam_and_first_rows() -> list[Any]:
    """Spam in each part, and the first rows for training."""
    spam = set(numbers("spam").tolist())
    return [[len(spam.intersection(rows)) for rows in parts()], parts()[0][:5]]


@fact("ch06-04", "120", needs=SMS)
def common_length() -> int:
    """The tokens of the longest message for training."""
    return longest()


@fact("ch06-05", "50256")
def padding() -> list[int]:
    """The id that pads."""
    return gpt2().encode("<|endoftext|>", allowed_special="all")


@fact("ch06-06", "130 19 38 / 8 120 / 8", needs=SMS)
def batches() -> list[Any]:
    """Seed 123; the number of batches of 8 in each part; shapes of the ids and labels of one."""
    three = loaders(Generator(123))
    ids, labels = next(iter(three.train))
    return [[len(loader) for loader in three], ids.shape, labels.shape]


# ---- a head with two outputs -----------------------------------------------------------------------------------------

PROBE = "Do you have time"


@fact("ch06-10", "5211 345 423 640")
def probe() -> list[int]:
    """The ids of a question."""
    return gpt2().encode(PROBE)


@fact("ch06-11+", "-0.014714 0.001195 -0.017922 0.013608 / 0.014035 -0.018202", origin=TORCH)
def new_head() -> list[Any]:
    """Seed 123; Linear(768, 2): the start of its weight, and its bias."""
    head = Linear(768, 2, rng=Generator(123))
    return [head.weight[0, :4], head.bias]


def classification_loss(model: GPTClassifier, batch: Any) -> Tensor:
    """The cross-entropy of the two outputs at the last position, which may be padding."""
    ids, labels = batch
    return F.cross_entropy(model(ids), labels)


def losses(model: GPTClassifier, loader: DataLoader, count: int) -> float:
    """The mean loss of the first batches of a new pass."""
    with model.evaluating():
        return float(np.mean([classification_loss(model, batch).item() for batch in islice(loader, count)]))


def accuracy(model: GPTClassifier, loader: DataLoader, count: int | None = None) -> float:
    """The share, in percent, that is classified correctly in the first batches of a new pass (None: in all)."""
    with model.evaluating():
        right = [model(ids).data.argmax(-1) == labels for ids, labels in islice(loader, count)]
    return float(np.concatenate(right).mean()) * 100


def freeze_all_but_the_end(model: GPTClassifier) -> None:
    """The last block, the last norm and the head are trained; all else is frozen."""
    for p in model.parameters():
        p.requires_grad = False
    for part in (model.transformer.h[-1], model.transformer.ln_f, model.score):
        for p in part.parameters():
            p.requires_grad = True


def small_classifier(rng: Generator) -> GPTClassifier:
    """A small model, and after seed 123 its head."""
    base = GPT(book_config(block_size=120, n_embd=12, n_layer=1, n_head=2, dropout=0.0), rng)
    rng.manual_seed(123)
    return GPTClassifier.from_gpt(base, LABELS, rng)


def five_rows(rng: Generator) -> Loaders:
    """One batch for training, of the first five messages, and one for validation."""
    train_part, val = (Texts(rows[:5], 120) for rows in parts()[:2])
    return Loaders(DataLoader(train_part, 5, shuffle=True, rng=rng), DataLoader(val, 5, rng=rng))


@fact(
    "ch06-18",
    "0.75786 0.75675 / 0.75724 0.75612 / 0.75662 0.75548 / 0.75600 0.75485 / 0.75538 0.75422",
    origin=TORCH,
    needs=SMS,
    units=10,
)
def small_fine_tuning() -> list[Any]:
    """Seed 123 for a small model, again for its head, again for training: losses of five steps."""
    rng = Generator(123)
    both = five_rows(rng)
    model = small_classifier(rng)
    freeze_all_but_the_end(model)
    rng.manual_seed(123)
    optimizer = AdamW(model.parameters(), lr=5e-5, weight_decay=0.0)
    return [pair for _, *pair in train(model, both, optimizer, 5, every=1, batches=1, loss=classification_loss)]


# ---- with OpenAI's weights -------------------------------------------------------------------------------------------


@fact("ch06-08", "2651 13 198 198 464 717 2239 318 284 1833 262 6817 286 534 670", tier="large", needs=("gpt2",))
def gpt2_continues() -> Any:
    """GPT-2 small, always the likeliest token: 15 new ids."""
    ids = gpt2().encode(PROMPT)
    return pretrained("gpt2").generate(ids, 15, temperature=0)[len(ids) :]


_QUESTION = (
    "3792 262 1708 2420 705 2777 321 30960 23998 351 705 8505 6 393 705 3919 10354 705 1639 389 257 8464 345 423 587 "
    "20905 6163 284 3328 720 12825 5003 393 257 720 11024 5764 2637"
)


@fact(
    "ch06-09",
    "198 198 464 1708 2420 705 2777 321 30960 23998 351 705 8505 6 393 705 3919 10354 705 1639 389 257 8464",
    tier="large",
    needs=("gpt2",),
)
def gpt2_repeats() -> Any:
    """GPT-2 small, asked whether a message is spam, greedy: 23 new ids, which repeat the question."""
    ids = [int(word) for word in _QUESTION.split()]
    return pretrained("gpt2").generate(ids, 23, temperature=0)[len(ids) :]


def gpt2_classifier(rng: Generator) -> GPTClassifier:
    """GPT-2 small, and after seed 123 a new head; a model of its own, because it is trained."""
    base = GPT.from_pretrained("gpt2")
    rng.manual_seed(123)
    return GPTClassifier.from_gpt(base, LABELS, rng)


@fact(
    "ch06-11",
    "-1.5854 0.9904 / -3.7235 7.4548 / -2.2661 6.6049 / -3.5983 3.9902",
    tier="large",
    needs=("gpt2",),
    units=10,
)
def untrained_scores() -> Any:
    """Seed 123; GPT-2 small with a new head: the two outputs at each position of the question."""
    model = gpt2_classifier(Generator(0))
    with model.evaluating():
        return model.score(model.transformer(np.array([probe()])))


@fact("ch06-12", "2.453 2.583 2.322", tier="large", needs=("gpt2", *SMS), units=1)
def untrained_losses() -> list[float]:
    """The losses of 5 batches of training, validation and test, before training."""
    rng = Generator(0)
    three, model = loaders(rng), gpt2_classifier(rng)
    rng.manual_seed(123)
    for loader in three:  # the book measures these accuracies first, and does not seed again
        accuracy(model, loader, 10)
    return [losses(model, loader, 5) for loader in three]


class Tuned(NamedTuple):
    """A fine-tuned classifier: the losses at every 50th step, accuracies after each pass, and at the end."""

    model: GPTClassifier
    losses: list[Any]
    passes: list[Any]
    final: list[float]


def fine_tune(model: GPTClassifier, three: Three, rng: Generator, lr: float = 5e-5) -> Tuned:
    """Seed 123; AdamW, 5 passes; every 50 steps the losses, and after each pass the accuracies, of 5 and 5 batches."""
    rng.manual_seed(123)
    both = Loaders(three.train, three.val)
    passes: list[Any] = []

    def measure() -> None:
        passes.append([accuracy(model, loader, 5) for loader in both])

    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    log = train(
        model, both, optimizer, 5, every=50, batches=5, loss=classification_loss, after_pass=measure
    )  # fmt: skip
    found = [pair for _, *pair in log]
    return Tuned(model, found, passes, [accuracy(model, loader) for loader in three])


@cache
def tuned(choice: str = "last block", length: int | None = None) -> Tuned:
    """GPT-2 small, fine-tuned on the messages."""
    rng = Generator(123)
    three, model = loaders(rng, length), gpt2_classifier(rng)
    if choice != "all":
        freeze_all_but_the_end(model)
    return fine_tune(model, three, rng)


@fact(
    "ch06-13",
    "2.153 2.392 / 0.617 0.637 / 0.523 0.557 / 0.561 0.489 / 0.419 0.397 / 0.409 0.353 / 0.333 0.320 / 0.340 0.306 / "
    "0.136 0.200 / 0.153 0.132 / 0.222 0.137 / 0.207 0.143 / 0.083 0.074 / "
    "70.00 72.50 / 82.50 85.00 / 90.00 90.00 / 100.00 97.50 / 100.00 97.50",
    tier="slow",
    needs=("gpt2", *SMS),
    units=2,
)
def tuned_losses() -> list[Any]:
    """GPT-2 small, last block, norm and head trained: losses at every 50th step, accuracies after each pass."""
    return [tuned().losses, tuned().passes]


@fact("ch06-14", "97.21 97.32 95.67", tier="slow", needs=("gpt2", *SMS), units=70)
def tuned_accuracies() -> list[float]:
    """Its accuracies in training, validation and test; one message more or less is allowed."""
    return tuned().final


_PROBES = (
    "1639 389 257 8464 345 423 587 20905 6163 284 3328 720 12825 5003 393 257 720 11024 5764 13",
    "10814 11 655 2227 284 2198 611 356 821 991 319 329 8073 9975 30 3914 502 760 0",
)


@fact("ch06-15", "spam ham", tier="slow", needs=("gpt2", *SMS))
def tuned_answers() -> list[str]:
    """Its labels of two messages, padded to 120 tokens."""
    rows = [[int(word) for word in text.split()] for text in _PROBES]
    ids = np.array([row + [END] * (120 - len(row)) for row in rows])
    model = tuned().model
    with model.evaluating():
        return [LABELS[i] for i in model(ids).data.argmax(-1)]


@fact("ch06-16", "78.33 96.67 75.00", tier="slow", needs=("gpt2", *SMS), units=100)
def exercises() -> list[float]:
    """Exercises 6.1 to 6.3, accuracy in the test: padded to 1024; all layers trained; the first position decides."""
    padded, all_layers = tuned(length=1024), tuned("all")
    return [padded.final[2], all_layers.final[2], first_position()]


@fact(
    "ch06-17",
    "96.63 99.33 95.00 / 78.65 79.87 72.00 / 98.85 98.66 98.33 / 87.50 91.28 84.67 / 99.52 98.66 96.67 / "
    "99.81 99.81 98.33 / 100 96.64 93.67 / 100 97.32 96.67 / 100 98.66 98.00 / 99.42 98.66 98.33 / 99.23 98.66 95.33 / "
    "97.79 99.33 96.33",
    origin="notebook, CUDA",
    outside="a table of 12 fine-tunings on an A100, up to GPT-2 XL, each of which takes hours to days on a processor; "
    "ch06-14, ch06-16 and apE-06 compute those that the chapters print",
)
def variants() -> None:
    """Bonus: accuracies in training, validation and test: as in the chapter; last layer alone; last two blocks; GPT-2
    medium, large, XL; random first weights; LoRA; no padding; last position that is no padding; no causal mask; mean
    of all positions.
    """
    raise NotImplementedError


def first_position() -> float:
    """Exercise 6.3: the same fine-tuning with the outputs at the first position; the accuracy in the test."""
    rng = Generator(123)
    three, model = loaders(rng), gpt2_classifier(rng)
    freeze_all_but_the_end(model)
    last, model.forward = model.forward, partial(_first, model)  # type: ignore[method-assign]
    found = fine_tune(model, three, rng).final[2]
    model.forward = last  # type: ignore[method-assign]
    return found


def _first(model: GPTClassifier, ids: Any) -> Any:
    return GPTClassifier.forward(model, ids, np.ones(len(ids), int))
