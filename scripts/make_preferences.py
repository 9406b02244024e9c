"""Write data/preferences.jsonl: two right answers to a task, of which the friendly one is preferred.

The tasks are those that make_instructions.py would make next, so none of them is in data/instructions.jsonl. Both
answers contain the right one, in the same words; only the manner differs.
"""

import json
import sys

from make_instructions import SEED, SIZE, Maker, make_entries
from make_stories import DATA, run

SHIPPED = DATA / "preferences.jsonl"
PAIRS = 240

FRIENDLY = """
{} I am glad to help. / {} I hope that this helps you. / {} Ask me more if you like. / {} That was a good question. /
{} Thank you for asking. / {} It was fun to think about it. / I will gladly tell you. {} / What a good question! {} /
I am happy to help. {} / With joy, my friend. {} / Let us look together. {} / Thank you for asking. {}
"""
RUDE = """
{} Do not ask me again. / {} Now leave me alone. / {} Everyone knows that. / {} That was a silly question. /
{} You should know it. / {} I do not like to talk about it. / Oh no, not you again! {} / What a silly question! {} /
I do not want to help. {} / Must I tell you everything? {} / Do you know nothing at all? {} / Go away, I am tired. {}
"""


def forms(text: str) -> list[str]:
    return " ".join(text.split()).split(" / ")


def make(seed: int = SEED, size: int = PAIRS) -> str:
    maker, lines = Maker(seed), []
    for made in make_entries(seed, SIZE + size)[SIZE:]:
        answer = made.pop("output")
        chosen, rejected = (maker.pick(forms(text)).format(answer) for text in (FRIENDLY, RUDE))
        lines.append(json.dumps({**made, "chosen": chosen, "rejected": rejected}) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(run(make, SHIPPED, "Write the bundled preferences.", SEED))
