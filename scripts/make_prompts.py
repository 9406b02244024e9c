"""Write data/spam.json: the spam task in words, for a model that answers by prompting alone.

The messages are of make_messages.py with another seed, and none of them is in data/messages.tsv: so a classifier that
was trained on that file has not seen them either.
"""

import json
import sys

from make_messages import SEED, SIZES, letters, make_rows
from make_stories import DATA, run

SHIPPED = DATA / "spam.json"
TEXTS = 100  # of each label
TASK = {
    "instruction": "Is this message spam? Spam wants money, or wants to sell something. Answer yes or no.",
    "labels": {"ham": "no", "spam": "yes"},
}


def make(seed: int = SEED, size: int = TEXTS) -> str:
    known = {letters(text) for _, text in make_rows(seed, SIZES)}
    left, lines = dict.fromkeys(SIZES, size), []
    for label, text in make_rows(seed + 1, dict.fromkeys(SIZES, 2 * size)):
        if letters(text) not in known and left[label]:
            left[label] -= 1
            lines.append("  " + json.dumps({"text": text, "label": label}))
    return json.dumps(TASK)[:-1] + ', "examples": [\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    sys.exit(run(make, SHIPPED, "Write the bundled spam task.", SEED))
