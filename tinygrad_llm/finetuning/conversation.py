"""A conversation with an assistant: turns become a prompt, and the answer comes piece by piece."""

from collections import abc
from collections.abc import Sequence
from typing import NamedTuple

from tinygrad_llm.finetuning.assistant import Style, prompt_of
from tinygrad_llm.generation import Sampling, write
from tinygrad_llm.generation.loop import LanguageModel
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import AnyTokenizer

GREEDY = Sampling(0.0)


class Turn(NamedTuple):
    """A text of the user, and the assistant's answer."""

    user: str
    assistant: str


class Prompt(NamedTuple):
    """The ids of a conversation up to the next answer, and how many of its first turns did not fit."""

    ids: list[int]
    forgotten: int


class Conversation:
    """A chat: the turns so far, and a text for the system that stands before them.

    Each turn is written as in training: prompt, answer, end of text. The oldest turns are forgotten when the model
    could not read them and write an answer too. They stay in `turns`.

    Args:     style: how the assistant was trained. max_new_tokens: of one answer; at most half of what the model reads
              is kept free for it, or an eighth if the next turn alone needs more. history: how many of the last turns
              the model reads; None: all that fit. An assistant that was trained on single questions answers best
              without any.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: AnyTokenizer,
        style: Style,
        sampling: Sampling = GREEDY,
        rng: Generator | None = None,
        max_new_tokens: int = 200,
        history: int | None = None,
    ) -> None:
        self.model, self.tokenizer, self.style = model, tokenizer, style
        self.sampling, self.max_new_tokens = sampling, max_new_tokens
        self.rng = Generator(0) if rng is None else rng
        self.history = history
        self.system = ""
        self.turns: list[Turn] = []
        self.forgotten = 0  # how many turns did not fit in the last call of `answer`

    def answer(self, text: str) -> abc.Generator[str, None, None]:
        """The answer to `text`, one piece for each token, without white space before and after it.

        It ends at the end of text, and where the model begins to write the next prompt. The turn is kept when the
        answer has ended, or the reader has closed it.

        Raises:   ValueError: as `prompt`, raised by the call itself; the model's scores are NaN or infinite.
        """
        ids, self.forgotten = self.prompt(text)
        room = min(self.max_new_tokens, self.model.block_size - len(ids))
        stop = stop_strings(self.style)
        pieces = write(self.model, self.tokenizer, ids, room, self.sampling, self.rng, stop)

        def keep() -> abc.Generator[str, None, None]:
            said = held = ""
            try:
                for piece in pieces:
                    held = (held + piece).lstrip() if not said else held + piece
                    ready = held.rstrip()  # white space may be the last of the answer
                    said, held = said + ready, held[len(ready) :]
                    yield ready
            except GeneratorExit:  # the turn ends where its reader stopped
                pass
            self.turns.append(Turn(text, said))

        return keep()

    def prompt(self, text: str) -> Prompt:
        """The ids that the model reads to answer `text`.

        Raises:   ValueError: this text alone is too long for the model, holds a special token, or has a character that
                  the tokenizer lacks.
        """
        block = self.model.block_size
        longest = block - min(self.max_new_tokens, block // 2)
        alone = max(longest, block - max(1, block // 8))
        turns = self.turns if self.history is None else self.turns[max(0, len(self.turns) - self.history) :]
        return prompt_ids(self.tokenizer, self.style, turns, text, self.system, longest, alone)

    def reset(self) -> None:
        """Forget all turns; the system's text stays."""
        self.turns = []


def stop_strings(style: Style) -> tuple[str, ...]:
    """The beginnings of a prompt's lines: a model that writes one of them plays the user."""
    return tuple(f"\n{line}" for line in prompt_of("", "", style).splitlines() if line)


def prompt_ids(
    tokenizer: AnyTokenizer,
    style: Style,
    turns: Sequence[Turn],
    text: str,
    system: str,
    longest: int,
    alone: int | None = None,
) -> Prompt:
    """The ids of a conversation whose next turn begins with `text`, at most `longest` of them.

    Args:     alone: how many ids there may be without any earlier turn; None: longest.
    Raises:   ValueError: as `Conversation.prompt`.
    """
    for where, given in (("the system's text", system), ("the text", text)):
        for token in tokenizer.special_tokens:
            if token in given:
                raise ValueError(f"{where} holds the special token {token!r}: leave it out")
        tokenizer.encode(given)  # so that an error counts characters from the beginning of this text

    plain = tokenizer.encode_ordinary  # an answer may spell a special token in other tokens
    start = plain(f"{system}\n\n") if system else []
    last = plain(prompt_of(text, "", style))
    room = longest - len(start) - len(last)
    alone = longest if alone is None else alone
    if len(start) + len(last) > alone:
        raise ValueError(
            f"the prompt has {len(start) + len(last)} tokens, more than the {alone} that the model reads before it "
            "answers: shorten the text" + (" or the system's text" if system else "")
        )
    end = [] if tokenizer.eot_token is None else [tokenizer.eot_token]
    kept: list[int] = []
    for i, turn in enumerate(reversed(turns)):
        ids = plain(prompt_of(turn.user, "", style)) + plain(style.space + turn.assistant) + end
        if len(ids) + len(kept) > room:
            return Prompt(start + kept + last, len(turns) - i)
        kept = ids + kept
    return Prompt(start + kept + last, 0)
