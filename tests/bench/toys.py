"""Toy contenders for the workers of test_harness.py. They log each request, and do no work."""

import os
import sys
import time


class Counter:
    """Reports 1, 2, 3, … seconds times `unit`, but returns at once."""

    def __init__(self, log, name, unit=1.0):
        self.log, self.name, self.unit, self.rounds = log, name, unit, 0

    def write(self, word):
        with open(self.log, "a") as file:
            file.write(f"{self.name} {word}\n")

    def answer(self):
        self.write("answer")
        return {"name": self.name, "variable": os.environ.get("TOY")}

    def round(self):
        self.write("round")
        self.rounds += 1
        return self.rounds * self.unit

    def about(self):
        self.write("about")
        return {"rounds": self.rounds, "process": os.getpid()}


class Environment(Counter):
    """Reports the environment variables of its process."""

    def answer(self):
        return dict(os.environ)


class Talker(Counter):
    """Prints, as libraries do."""

    def round(self):
        print("a library says hello")
        return super().round()


class Raiser(Counter):
    def round(self):
        raise RuntimeError("the work is\ntoo hard")


class Crasher(Counter):
    def round(self):
        print("the last words", file=sys.stderr, flush=True)
        os._exit(7)


class Babbler(Counter):
    """Writes `said` to file descriptor 1, where replies go, before each reply."""

    def __init__(self, log, name, said):
        super().__init__(log, name)
        self.said = said

    def round(self):
        os.write(1, self.said.encode())
        return super().round()


class Sleeper(Counter):
    """Never replies."""

    def round(self):
        time.sleep(3600)


def not_to_be_made(log, name):
    raise ValueError("cannot be made")
