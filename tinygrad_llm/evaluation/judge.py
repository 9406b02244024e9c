"""A judge: another model, behind an OpenAI-compatible endpoint that the user names, scores answers from 0 to 100.

    POST URL/chat/completions   {"model": …, "messages": [{"role": "user", "content": the question}], …}
    the reply                   {"choices": [{"message": {"content": "85"}}], …}

Servers of this kind run on one's own machine (llama.cpp, Ollama, vLLM) or elsewhere. The instruction, the expected
answer and the model's answer are sent there, and nothing else. The question is like the one of the book, section 7.8.
"""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from typing import NamedTuple
from urllib.parse import urlsplit

from tinygrad_llm.storage.files import LoadError, parse_json, show
from tinygrad_llm.storage.text import one_line
from tinygrad_llm.weights.connection import (
    DownloadError,
    NoRedirects,
    Transient,
    Unreachable,
    network_errors,
    open_url,
    refusal,
)

KEY = "TINYGRAD_LLM_JUDGE_KEY"  # the variable that holds the key of the endpoint, where it needs one
_LOCAL = ("localhost", "127.0.0.1", "::1")
_MOST = 1_000_000  # bytes of a reply
_LONGEST_WAIT = 60.0  # seconds, of those that a server asks for

_NUMBER = re.compile(r"(?<!\w)(?<!\d[.,])[-+]?\d+(?:\.\d+)?(?!\w|[.,]\d)")
_SCALE = re.compile(r"(/|out of|\b0\s*(to|[-–]))\s*100\b")


class Judged(NamedTuple):
    """A score from 0 to 100, None where the reply has none; and the reply."""

    score: float | None
    reply: str


class Judge:
    """Asks a model to score answers.

    Args:     url: of the endpoint, such as http://localhost:11434/v1; https, or http on this machine. model: its name
              there. key: None: no key is sent. timeout: seconds until a reply must be complete. attempts: for each
              answer, where the connection fails or the server is busy. pause: seconds before the second attempt; it
              doubles before each further one.
    Raises:   ValueError: the URL is of another kind.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        *,
        timeout: float = 300.0,
        attempts: int = 4,
        pause: float = 1.0,
    ) -> None:
        self.url, self.model, self.timeout = _endpoint(url), model, timeout
        self.attempts, self.pause = attempts, pause
        if key and not re.fullmatch(r"[\x21-\x7e]+", key):
            raise ValueError(f"{KEY}: the key must be of visible ASCII characters, without spaces")
        self._key = key

    def score(self, prompt: str, expected: str, answer: str) -> Judged:
        """Let the judge score one answer.

        Raises:   Unreachable, a ValueError: no reply after all attempts, or a refusal, such as 401 or 404.
                  DownloadError, a ValueError: the reply is not of this kind.
        """
        reply = self._ask(question(prompt, expected, answer))
        return Judged(score_in(reply), reply)

    def _ask(self, text: str) -> str:
        # The likeliest tokens, and a fixed seed: as far as the server can, the same question gets the same reply.
        asked = {"model": self.model, "messages": [{"role": "user", "content": text}], "temperature": 0, "seed": 123}
        for attempt in range(1, self.attempts + 1):
            try:
                return _content(self.url, self._post(json.dumps(asked).encode()))
            except Transient as error:
                if attempt == self.attempts:
                    raise Unreachable(self._without_key(f"{self.url}: {error}, in {attempt} attempts")) from None
                time.sleep(max(self.pause * 2 ** (attempt - 1), min(error.wait, _LONGEST_WAIT)))
            except DownloadError as error:
                raise type(error)(self._without_key(str(error))) from None
        raise ValueError(f"attempts must be at least 1, got {self.attempts}")

    def _without_key(self, text: str) -> str:
        """The text of an error, in which a server may have repeated the key."""
        return text.replace(self._key, "…") if self._key else text

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "tinygrad_llm"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        handlers: list[urllib.request.BaseHandler] = [NoRedirects()]
        if urlsplit(self.url).hostname in _LOCAL:
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy elsewhere cannot reach this machine
        try:
            # A connection must bring 1 kB/s over `window` seconds: no shorter reply may take longer.
            with (
                network_errors(self.url),
                open_url(self.url, headers, self.timeout, self.timeout, *handlers, data=body) as response,
            ):
                data: bytes = response.read(_MOST + 1)
                if response.length and len(data) <= _MOST:
                    raise Transient(f"the connection broke after {len(data)} bytes")
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        if len(data) > _MOST:
            raise DownloadError(f"{self.url}: the reply has more than {_MOST} bytes")
        return data

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        """The error for a status other than success, with what the server says about it."""
        with error:
            try:
                said = one_line(error.read(2000).decode(errors="replace"))[:300]
            except (OSError, http.client.HTTPException):
                said = ""
        found = refusal(self.url, error)
        if isinstance(found, Transient):
            wait = error.headers.get("Retry-After", "")
            found.wait = float(wait) if re.fullmatch(r"\d{1,5}", wait) else 0.0
            return found
        hint = f"; {KEY} must hold the key" if error.code in (401, 403) else ""
        return Unreachable(f"{found}{hint}" + (f": {said}" if said else ""))


def question(prompt: str, expected: str, answer: str) -> str:
    """What the judge is asked."""
    return (
        f"A model was given this task:\n\n{prompt}\n\nA right answer is:\n\n{expected}\n\nThe model's answer is:\n\n"
        f"{answer}\n\nHow good is the model's answer, from 0 (worthless) to 100 (perfect)? Reply with one integer and "
        "nothing else."
    )


def score_in(reply: str) -> float | None:
    """The score in a reply: a number that is alone on the first line, or the only one of all; None if it is not clear.

    The scale ("/ 100", "out of 100", "0 to 100") is no such number.
    """
    text = _SCALE.sub(" ", reply).strip()
    first = text.partition("\n")[0]
    alone = not re.search(r"\w", _NUMBER.sub("", first))
    numbers = {float(number) for number in _NUMBER.findall(first if alone else text)}
    score = numbers.pop() if len(numbers) == 1 else -1.0
    return score if 0 <= score <= 100 else None


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises here
    except ValueError as error:
        raise ValueError(f"--judge {show(url)}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"--judge: the URL must not hold a name or a password: {KEY} may hold a key")
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ValueError(f"--judge {show(url)}: must be a URL such as http://localhost:11434/v1")
    if parts.scheme == "http" and host not in _LOCAL:
        raise ValueError(f"--judge {show(url)}: must begin with https://, except on this machine (localhost)")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}" + (
        "" if path.endswith("/chat/completions") else "/chat/completions"
    )


def _content(url: str, data: bytes) -> str:
    """The text in a reply."""
    try:
        fields = parse_json(f"{url}: the reply", data)
    except LoadError as error:
        raise DownloadError(one_line(error)[:300]) from None
    try:
        content = fields["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        content = None
    if not isinstance(content, str):
        raise DownloadError(f"{url}: the reply has no choices[0].message.content: {show(fields)}")
    return content
