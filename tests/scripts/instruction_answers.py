"""A second program that computes the answers of data/instructions.jsonl.

It reads an entry as a person would: it has its own tables of words, and takes names from the stories.
"""

import calendar
import re

import make_stories

STORIES = make_stories.SHIPPED.read_text("ascii")

SIDES = [
    ["big", "hot", "wet", "old", "happy", "high", "fast", "empty", "up", "early", "hard", "day", "inside"],
    ["small", "cold", "dry", "young", "sad", "low", "slow", "full", "down", "late", "soft", "night", "outside"],
]
IRREGULAR_PLURALS = {"mouse": "mice", "goose": "geese", "foot": "feet", "leaf": "leaves"}
IRREGULAR_PAST = {
    "run": "ran", "see": "saw", "find": "found", "give": "gave", "take": "took", "come": "came", "go": "went",
    "sing": "sang", "fall": "fell", "eat": "ate", "stand": "stood", "sit": "sat", "sleep": "slept", "grow": "grew",
    "cry": "cried", "smile": "smiled",
}  # fmt: skip
SOUNDS = {  # how the last syllable of a word sounds
    "at": "cat hat", "ee": "bee tree", "ouse": "house mouse", "or": "door floor", "ight": "night light",
    "ay": "day play", "oat": "boat goat", "air": "bear pear", "ar": "star far", "oon": "moon soon", "all": "ball wall",
    "ing": "king ring", "oze": "nose rose", "ake": "cake lake", "ill": "hill mill", "en": "hen ten", "ook": "book look",
    "ox": "fox box",
}  # fmt: skip
SOUND = {word: sound for sound, words in SOUNDS.items() for word in words.split()}
IS = {
    "an animal": {"fox", "mouse", "bear", "owl", "goose", "frog"},
    "food": {"bread", "cake", "soup", "honey", "apple", "pear"},
    "a color": {"red", "blue", "green", "yellow", "white", "brown"},
    "a day": set(calendar.day_name),
    "a place": {"farm", "lake", "meadow", "river", "hill", "pond"},
}
COUNTING = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
DAYS = list(calendar.day_name)


def listed(entry):
    """The words of the list in an entry: its input, or else what follows a colon or a comma."""
    text = (
        entry.get("input")
        or re.search(r"(?:: |(?:longer|alphabet|bigger|smaller), )(.*)[.?]$", entry["instruction"])[1]
    )
    return re.split(r", | or ", text)


def asked(entry, *patterns):
    """The word that one of the patterns finds, or else the input."""
    for pattern in patterns:
        if found := re.search(pattern, entry["instruction"]):
            return found[1]
    return entry["input"]


def whole(entry):
    return f"{entry['instruction']} {entry.get('input', '')}"


def numbers(entry):
    return [int(digits) for digits in re.findall(r"\d+", whole(entry))]


def sentence(entry):
    return entry.get("input") or entry["instruction"].partition(": ")[2]


def plural(word):
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if re.search(r"(x|s|ch|sh)$", word) else "s")


def past(verb):
    return IRREGULAR_PAST.get(verb, verb + "ed")


def more(word):
    if word == "good":
        return "better"
    if word.endswith("y"):
        return word[:-1] + "ier"
    return word + (word[-1] if re.fullmatch(r"[^aeiou]+[aeiou][^aeiouw]", word) else "") + "er"


def is_girl(name):
    girl = re.search(rf"girl (?:named|called) {name}\b", STORIES)
    boy = re.search(rf"boy (?:named|called) {name}\b", STORIES)
    assert bool(girl) != bool(boy)
    return bool(girl)


def opposite(e):
    word = asked(e, r"opposite of (?!the word|this)(\w+)")
    (side,) = (i for i in (0, 1) if word in SIDES[i])
    return f"It is {SIDES[1 - side][SIDES[side].index(word)]}."


def yes_or_no(e):
    group = re.search(r"(an animal|food|a color|a day|a place)\?", e["instruction"])[1]
    word = e.get("input") or re.search(rf"(?:[Ii]s|that) (?:an? )?(\w+) (?:is )?{group}", e["instruction"])[1]
    return "Yes, it is." if word in IS[group] else "No, it is not."


def choose_by_group(e):
    group = re.search(r"(an animal|food|a color|a day|a place)\b", e["instruction"])[1]
    (word,) = (word for word in listed(e) if word in IS[group])
    return f"It is {word}."


def category(e):
    patterns = r"^Is (?:an? )?(\w+)", r"the word (\w+) belong", r"kind of thing is (?:an? )?(\w+)"
    (group,) = (group for group, words in IS.items() if asked(e, *patterns) in words)
    return f"It is {group}."


def days(e):
    word, way = asked(e, r"(\w+day)[.?]"), re.search(r"before|after|tomorrow|yesterday", e["instruction"])[0]
    return f"It is {DAYS[(DAYS.index(word) + (1 if way in ('after', 'tomorrow') else -1)) % 7]}."


def next_number(e):
    way, word = re.search(r"(before|after) (this one|\w+)", e["instruction"]).groups()
    number = COUNTING.index(e["input"] if word == "this one" else word)
    return f"It is {COUNTING[number + (1 if way == 'after' else -1)]}."


def count_a_word(e):
    word = re.search(r"(?:word|read) (\w+)", e["instruction"])[1]
    return f"You read it {COUNTING[listed(e).count(word)]} times."


def subtraction(e):
    a, b = numbers(e)
    return f"It is {b - a if re.match(r'Take [0-9]', e['instruction']) else a - b}."


def story_sum(e):
    name, a, things = re.search(r"(\w+) ha[sd] (\w+) (\w+)", re.sub(r"How many .*?\?", "", whole(e))).groups()
    b = re.search(r"(\w+) more", whole(e))[1]
    return f"Now {name} has {COUNTING[COUNTING.index(a) + COUNTING.index(b)]} {things}."


def place_in_a_list(e):
    place = re.search(r"first|second|last", e["instruction"])[0]
    return f"It is {listed(e)[{'first': 0, 'second': 1, 'last': -1}[place]]}."


def question(e):
    subject, verb, rest = re.fullmatch(r"(\w+|The \w+) (is|was|can|will|must) (\w+)\.", sentence(e)).groups()
    return f"{verb.capitalize()} {subject.replace('The', 'the')} {rest}?"


def pronoun(e):
    name, rest = sentence(e).split(" ", 1)
    return f"{'She' if is_girl(name) else 'He'} {rest}"


def who_has_it(e):
    thing = re.search(r"has the (\w+)[?.]", e["instruction"])[1]
    name = re.search(rf"(\w+) has an? {thing}", whole(e))[1]
    return f"{name} has the {thing}."


def what_color(e):
    thing = re.search(r"(?:color is|color of) the (\w+)", e["instruction"])[1]
    color = re.search(rf"an? (\w+) {thing}", whole(e))[1]
    return f"The {thing} is {color}."


def replace(e):
    found = re.search(r"(\w+) instead of (\w+)", e["instruction"])
    new, old = found.groups() if found else re.search(r"Change (\w+) to (\w+)", e["instruction"]).groups()[::-1]
    return sentence(e).replace(old, new)


def join(e):
    (a, did), (b, same) = (part.split(" ", 1) for part in sentence(e).rstrip(".").split(". "))
    assert did == same
    return f"{a} and {b} {did}."


def two(e):
    word = asked(e, r"plural of (?!the word)(\w+)", r"one (\w+)\.")
    return f"One {word}, two {plural(word)}."


def past_tense(e):
    return f"They {past(asked(e, r'tense of (?!the verb)([a-z]+)', r'they ([a-z]+)[.]'))}."


def comparative(e):
    return f"It is {more(asked(e, r'comparative of (?!the word)([a-z]+)', r'This one is ([a-z]+)'))}."


def a_or_an(e):
    word = asked(e, r"Does (\w+)", r"before (?!the word)(\w+)")
    return f"It is {'an' if word[0] in 'aeiou' else 'a'} {word}."


def rhymes(e, answer):
    word, given = asked(e, r"rhymes with (?!this)(\w+)"), re.fullmatch(r"It is (\w+)\.", answer)
    return bool(given) and given[1] != word and SOUND[given[1]] == SOUND[word]


CHECKS = {
    "opposite": opposite,
    "plural": two,
    "past tense": past_tense,
    "comparative": comparative,
    "a or an": a_or_an,
    "he or she": lambda e: f"You say {'she' if is_girl(asked(e, r'for (?!this)([A-Za-z]+)')) else 'he'}.",
    "first letter": lambda e: f"It is {asked(e, r'letter of (?!the word)([a-z]+)', r'does ([a-z]+) begin')[0]}.",
    "spelling": lambda e: f"It is {', '.join(asked(e, r'[Ss]pell (?!the word)([a-z]+)', r'letters of ([a-z]+)'))}.",
    "longer word": lambda e: f"It is {max(listed(e), key=len)}.",
    "first in the alphabet": lambda e: f"It is {min(listed(e))}.",
    "category": category,
    "yes or no": yes_or_no,
    "choose by group": choose_by_group,
    "days": days,
    "next number": next_number,
    "numbers as words": lambda e: f"It is {COUNTING[sum(numbers(e))]}.",
    "count things": lambda e: f"There are {COUNTING[len(listed(e))]}.",
    "count a word": count_a_word,
    "sort numbers": lambda e: f"The order is {', '.join(map(str, sorted(numbers(e))))}.",
    "compare numbers": lambda e: f"It is {(max if 'bigger' in e['instruction'] else min)(numbers(e))}.",
    "addition": lambda e: f"It is {sum(numbers(e))}.",
    "subtraction": subtraction,
    "story sum": story_sum,
    "place in a list": place_in_a_list,
    "question": question,
    "negation": lambda e: re.sub(r" (is|was|will|must) ", r" \1 not ", sentence(e)),
    "pronoun": pronoun,
    "who has it": who_has_it,
    "what color": what_color,
    "replace": replace,
    "join": join,
}


def right(entry, answer):
    """Whether an answer to a task is right; there is more than one word that rhymes."""
    return rhymes(entry, answer) if entry["kind"] == "rhyme" else answer == CHECKS[entry["kind"]](entry)
