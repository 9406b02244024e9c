"""data/spam.json is the output of its script, and none of its messages is in data/messages.tsv."""

import json
from collections import Counter
from itertools import pairwise

import make_messages
import make_prompts

TASK = json.loads(make_prompts.SHIPPED.read_bytes().decode("ascii"))
TEXTS = [example["text"] for example in TASK["examples"]]


def test_the_shipped_file_is_the_output_of_the_script():
    assert make_prompts.make().encode("ascii") == make_prompts.SHIPPED.read_bytes()


def test_no_message_is_among_those_that_a_classifier_is_trained_on():
    rows = make_messages.SHIPPED.read_text(encoding="ascii").splitlines()
    known = {make_messages.letters(row.partition("\t")[2]) for row in rows}
    assert not known & set(map(make_messages.letters, TEXTS))
    assert len(set(map(make_messages.letters, TEXTS))) == len(TEXTS)


def test_labels_are_equally_frequent_and_mixed():
    labels = [example["label"] for example in TASK["examples"]]
    assert Counter(labels) == dict.fromkeys(make_messages.SIZES, make_prompts.TEXTS)
    changes = sum(one != other for one, other in pairwise(labels))
    assert changes > len(labels) / 3
