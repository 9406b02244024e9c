"""`scope`: context managers that are decorators too, also of generator functions."""

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, _GeneratorContextManager
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


def scope(function: Callable[P, Iterator[None]]) -> Callable[P, "Scope"]:
    """Like `contextlib.contextmanager`; as a decorator of a generator function, it is active while the generator runs.

    It is not active between the generator's steps, because then the caller's code runs.
    """

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Scope:
        return Scope(function, args, kwargs)  # type: ignore[arg-type]

    return make


class Scope(_GeneratorContextManager[None]):
    """The result of a function that `scope` decorates."""

    def __call__(self, function: Any) -> Any:
        if not inspect.isgeneratorfunction(function):
            return super().__call__(function)

        @wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _Steps(function(*args, **kwargs), self._recreate_cm))

        return steps


class _Steps(Generator[Any, Any, Any]):
    """A generator, each step of which runs inside a context manager of its own."""

    def __init__(self, steps: Generator[Any, Any, Any], scope: Callable[[], AbstractContextManager[Any]]) -> None:
        self._steps, self._scope = steps, scope

    def send(self, value: Any) -> Any:
        return self._run(self._steps.send, value)

    def throw(self, *error: Any) -> Any:
        return self._run(self._steps.throw, *error)

    def close(self) -> None:
        self._run(self._steps.close)

    def _run(self, step: Callable[..., Any], *args: Any) -> Any:
        with self._scope():
            return step(*args)
