"""`python -m tinygrad_llm.bench.worker module:function OPTIONS`: one contender in its own process.

Creates the Subject, then reads requests (`answer`, `round`, `about`), one per line, until its standard input is closed.
Each reply is one line of JSON: {"value": …}, or {"error": …}, after which the worker ends.
"""

import contextlib
import gc
import importlib
import json
import sys
import traceback
from typing import Any

from tinygrad_llm.bench.harness import Subject


def main(place: str, options: str) -> int:
    """Serve requests until standard input is closed; return the exit status."""
    replies = sys.stdout

    def reply(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=replies, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # output of a library must not look like a reply
        try:
            module, _, function = place.partition(":")
            subject: Subject = getattr(importlib.import_module(module), function)(**json.loads(options))
            reply({"value": None})
            for line in sys.stdin:
                gc.collect()  # so that no round pays for the garbage of the one before
                reply({"value": getattr(subject, line.strip())()})
        except Exception as error:
            traceback.print_exc()
            reply({"error": f"{type(error).__name__}: {error}"})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
