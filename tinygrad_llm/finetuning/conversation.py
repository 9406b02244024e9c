"""A conversation with an assistant: turns become a prompt, and the answer comes piece by piece."""

from collections import abc
from collections.abc import Sequence
from typing import NamedTuple

from tinygrad_llm.finetuning.assistant import Style, prompt_of
from tinygrad_llm.generation import Sampling, crop, words_cropped, write
from tinygrad_llm.generation.loop import LanguageModel
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import AnyTokenizer

GREEDY = Sampling(0.0)


class Turn(NamedTuple):
    """A text of the user, and the assistant's answer."""

    user: str
    assistant: str


class Prompt(NamedTuple):
    """The ids of a conversation up to the next answer, and what did not fit."""

    ids: list[int]
    forgotten: int  # of the first turns
    cropped: bool = False  # whether the next turn lost the beginning of its text


class Conversation:
    """A chat: the turns so far, and a text for the system that stands before them.

    Each turn is written as in training: prompt, answer, end of text. The oldest turns are forgotten when the model
    could not read them and write an answer too. They stay in `turns`.

    Args:     style: how the assistant was trained. max_new_tokens: of one answer; at most half of what the model reads
              is kept free for it, or an eighth if the next turn alone needs more. history: how many of the last turns
              the model reads; None: all that fit. An assistant that was trained on single questions answers best
              without any. stop: strings before which an answer ends. refuse: a text that is too long is an error;
              else it loses its beginning.
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
        stop: Sequence[str] = (),
        refuse: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.style = model, tokenizer, style
        self.sampling, self.max_new_tokens = sampling, max_new_tokens
        self.rng = Generator(0) if rng is None else rng
        self.history, self.refuse = history, refuse
        self.stop = (*stop_strings(style), *stop)
        self.system = ""
        self.turns: list[Turn] = []
        # Of the last answer: how many turns did not fit, whether its text lost its beginning, and after how many tokens
        # it was cut, because it may have no more (0: it ended by itself, or its reader stopped it).
        self.forgotten, self.cropped, self.cut = 0, False, 0

    def answer(self, text: str) -> abc.Generator[str, None, None]:
        """The answer to `text`, one piece for each token, without white space before and after it.

        It ends at the end of text, and where the model begins to write the next prompt. The turn is kept when the
        answer has ended, or the reader has closed it.

        Raises:   ValueError: as `prompt`, raised by the call itself; the model's scores are NaN or infinite.
        """
        ids, self.forgotten, self.cropped = self.prompt(text)
        self.cut = 0
        room = min(self.max_new_tokens, self.model.block_size - len(ids))
        pieces = write(self.model, self.tokenizer, ids, room, self.sampling, self.rng, self.stop)

        def keep() -> abc.Generator[str, None, None]:
            said = held = ""
            try:
                for piece in pieces:
                    held = (held + piece).lstrip() if not said else held + piece
                    ready = held.rstrip()  # white space may be the last of the answer
                    said, held = said + ready, held[len(ready) :]
                    yield ready
                self.cut = 0 if pieces.ended else room
            except GeneratorExit:  # the turn ends where its reader stopped
                pass
            self.turns.append(Turn(text, said))

        return keep()

    def prompt(self, text: str) -> Prompt:
        """The ids that the model reads to answer `text`.

        Raises:   ValueError: this text is too long for the model and must not be cropped; the system's text leaves no
                  room for it; it holds a special token, or a character that the tokenizer lacks.
        """
        block = self.model.block_size
        longest = block - min(self.max_new_tokens, block // 2)
        alone = max(longest, block - max(1, block // 8))
        turns = self.turns if self.history is None else self.turns[max(0, len(self.turns) - self.history) :]
        return prompt_ids(self.tokenizer, self.style, turns, text, self.system, longest, alone, self.refuse)

    @property
    def notes(self) -> list[str]:
        """What to tell the user of an answer that begins: what the model does not read."""
        notes = [words_cropped(1, 1, self.model.block_size)] if self.cropped else []
        if self.forgotten:
            notes.append(f"earlier turns that no longer fit, and are not read: {self.forgotten}")
        return notes

    @property
    def ending(self) -> str:
        """What to tell the user of an answer that has ended: whether it was cut."""
        if not self.cut:
            return ""
        most = "the most that it may have (--max-new-tokens)"
        why = most if self.cut == self.max_new_tokens else "because the model can read no more"
        return f"the answer is cut after {self.cut} tokens, {why}"

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
    refuse: bool = False,
) -> Prompt:
    """The ids of a conversation whose next turn begins with `text`, at most `longest` of them.

    Args:     alone: how many ids there may be without any earlier turn; None: longest. refuse: see `Conversation`.
    Raises:   ValueError: as `Conversation.prompt`.
    """
    for where, given in (("the system's text", system), ("the text", text)):
        for token in tokenizer.special_tokens:
            if token in given:
                raise ValueError(f"{where} holds the special token {token!r}: leave it out")
        tokenizer.encode(given)  # so that an error counts characters from the beginning of this text

    plain = tokenizer.encode_ordinary  # an answer may spell a special token in other tokens
    start = plain(f"{system}\n\n") if system else []
    alone = (longest if alone is None else alone) - len(start)
    last = _last_turn(tokenizer, style, text, alone, refuse)
    cropped = last != plain(prompt_of(text, "", style))
    room = longest - len(start) - len(last)
    end = [] if tokenizer.eot_token is None else [tokenizer.eot_token]
    kept: list[int] = []
    for i, turn in enumerate(reversed(turns)):
        ids = plain(prompt_of(turn.user, "", style)) + plain(style.space + turn.assistant) + end
        if len(ids) + len(kept) > room:
            return Prompt(start + kept + last, len(turns) - i, cropped)
        kept = ids + kept
    return Prompt(start + kept + last, 0, cropped)


def _last_turn(tokenizer: AnyTokenizer, style: Style, text: str, longest: int, refuse: bool) -> list[int]:
    """The ids of a turn that waits for its answer; where they would be too many, the text loses its beginning.

    Raises:   ValueError: they are too many even without the text, or must not be cropped.
    """
    ids = tokenizer.encode_ordinary(text)
    around = len(tokenizer.encode_ordinary(prompt_of("", "", style)))
    if around > longest:
        raise ValueError(
            f"the prompt has {around} tokens without any text of yours, more than the {longest} that the model reads "
            "before it answers: shorten the system's text, or choose another model"
        )
    turn = tokenizer.encode_ordinary(prompt_of(text, "", style))
    while len(turn) > longest:
        # One token fewer than there were, if not many: pieces may have other ids next to the words around them.
        ids = crop(ids, min(len(ids) - 1, longest - around), refuse)
        rest = tokenizer.decode(ids).lstrip("\N{REPLACEMENT CHARACTER}")  # half a character at the cut
        turn = tokenizer.encode_ordinary(prompt_of(rest, "", style))
    return turn
