"""Write data/instructions.jsonl: tasks about the world of the stories, whose answers a program can check.

The kinds of task take turns. A kind is a function that draws words; above it are its wordings, one for each line, and
the form of its answer after `=>`. In a wording,

    (big|small|)     is one of the alternatives, as in a line of a story,
    {x}              is a word that the function drew,
    <                divides the instruction from the input, if there is one.

An entry that was made before is dropped, and another one is made.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from make_stories import DATA, NAMES_HE, NAMES_SHE, Teller, capital, correct_articles, run

SHIPPED = DATA / "instructions.jsonl"
SEED = 14
SIZE = 3_200  # entries
TRIES = 300  # draws in a row that may repeat earlier entries; after them, a kind is left out

Words = dict[str, str]

# ---- words, nearly all from the stories ----------------------------------------------------------------------------

GROUPS = {
    "an animal": "fox mouse bear owl goose frog",
    "food": "bread cake soup honey apple pear",
    "a color": "red blue green yellow white brown",
    "a day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "a place": "farm lake meadow river hill pond",
}
GROUP_OF = {word: group for group, words in GROUPS.items() for word in words.split()}
COUNTED = ("cake", "apple", "pear")  # of the food
ANIMALS, FOOD, COLORS, DAYS, _ = (words.split() for words in GROUPS.values())
THINGS = ["hat", "scarf", "ball", "kite", "drum", "bell", "book", "cup", "basket", "lamp", "rope", "umbrella"]
GIRLS, BOYS = NAMES_SHE[:5], NAMES_HE[:5]
NAMES = GIRLS + BOYS
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

OPPOSITES = """
    big small / hot cold / wet dry / old young / happy sad / high low / fast slow / empty full / up down / early late /
    hard soft / day night / inside outside
"""
PLURALS = """
    fox foxes / mouse mice / goose geese / leaf leaves / berry berries / cherry cherries / story stories / foot feet /
    apple apples / pear pears / plum plums / bird birds / bee bees / kite kites / boat boats / hat hats / stone stones /
    flower flowers / friend friends / paw paws / wing wings / bun buns
"""
PAST = """
    run ran / see saw / find found / give gave / take took / come came / go went / sing sang / fall fell / eat ate /
    stand stood / sit sat / sleep slept / grow grew / walk walked / laugh laughed / jump jumped / play played /
    cry cried / look looked / ask asked / smile smiled
"""
COMPARED = """
    tall taller / small smaller / big bigger / high higher / fast faster / loud louder / hard harder / strong stronger /
    long longer / old older / cold colder / bright brighter / happy happier / pretty prettier / good better
"""
RHYMES = """
    cat hat / bee tree / house mouse / door floor / night light / day play / boat goat / bear pear / star far /
    moon soon / ball wall / king ring / nose rose / cake lake / hill mill / hen ten / book look / fox box
"""
ALPHABET = ["apple", "bear", "cup", "drum", "fox", "goose", "hat", "kite", "lamp", "mouse", "owl", "pear", "rope"]
SHORT = ["fox", "owl", "hat", "cup", "bee", "red", "sun", "pie"]
LONG = ["butterfly", "umbrella", "neighbor", "squirrel", "grandmother", "fisherman", "strawberry", "treasure"]
A_AN = ["apple", "owl", "onion", "otter", "orchard", "umbrella", "oak", "ant"]
STATES = ["happy", "sad", "tired", "late", "proud", "afraid", "cold", "wet", "brave", "alone"]
ACTS = ["sing", "swim", "dance", "jump", "climb", "run", "help", "hide"]
DID = """
    ran home / found a coin / took the lamp / sang a song / ate the soup / laughed all day / fell asleep / saw a star /
    climbed the tree / opened the door
"""


def pairs(text: str) -> list[list[str]]:
    return [item.split() for item in text.split("/")]


def with_article(word: str) -> str:
    """`a fox`, but `bread`, `red` and `Monday`."""
    return f"a {word}" if GROUP_OF[word] in ("an animal", "a place") or word in COUNTED else word


def listed(words: Sequence[str], last: str = "") -> str:
    """`a, b, c`, or `a, b or c`."""
    return ", ".join(words) if not last else f"{', '.join(words[:-1])} {last} {words[-1]}"


class Maker(Teller):
    """Draws entries, as `Teller` draws stories."""

    def some(self, words: Sequence[str], n: int) -> list[str]:
        """Different words, in a random order."""
        left, drawn = list(words), []
        for _ in range(n):
            drawn.append(self.pick(left))
            left.remove(drawn[-1])
        return drawn

    def line(self, line: str, words: Words) -> str:
        return correct_articles(self.fill(line, words))


class Kind(NamedTuple):
    wordings: list[str]
    answer: str
    draw: Callable[[Maker], Words]


KINDS: dict[str, Kind] = {}


def kind(text: str) -> Callable[[Callable[[Maker], Words]], Callable[[Maker], Words]]:
    *wordings, answer = (line.strip() for line in text.strip().splitlines())

    def add(draw: Callable[[Maker], Words]) -> Callable[[Maker], Words]:
        KINDS[draw.__name__.replace("_", " ")] = Kind(wordings, answer.removeprefix("=> "), draw)
        return draw

    return add


# ---- words and their forms -----------------------------------------------------------------------------------------


@kind("""
    What is the opposite of {x}?
    (Give|Tell me|Say|Write) the opposite of {x}.
    Which word is the opposite of {x}?
    (Give|Tell me|Say|Write) the opposite of the word. < {x}
    What is the opposite of this? < {x}
    => It is {y}.
""")
def opposite(m: Maker) -> Words:
    x, y = m.some(m.pick(pairs(OPPOSITES)), 2)
    return {"x": x, "y": y}


@kind("""
    (What|Which word) is the plural of {x}?
    (Give|Tell me|Say|Write) the plural of {x}.
    Here is one {x}. What do you call two of them?
    (Give|Tell me|Say|Write) the plural of the word. < {x}
    => One {x}, two {y}.
""")
def plural(m: Maker) -> Words:
    x, y = m.pick(pairs(PLURALS))
    return {"x": x, "y": y}


@kind("""
    What is the past tense of {x}?
    (Give|Tell me|Say|Write) the past tense of {x}.
    Today they {x}. What did they do yesterday?
    (Give|Tell me|Say|Write) the past tense of the verb. < {x}
    => They {y}.
""")
def past_tense(m: Maker) -> Words:
    x, y = m.pick(pairs(PAST))
    return {"x": x, "y": y}


@kind("""
    What is the comparative of {x}?
    (Give|Tell me|Say|Write) the comparative of {x}.
    This one is {x}. That one is more so. What is that one?
    (Give|Tell me|Say|Write) the comparative of the word. < {x}
    => It is {y}.
""")
def comparative(m: Maker) -> Words:
    x, y = m.pick(pairs(COMPARED))
    return {"x": x, "y": y}


@kind("""
    Does {x} need an or a?
    (Write|Say|Put) an or a before {x}.
    (Write|Say|Put) an or a before the word. < {x}
    Which is right before {x}, an or a?
    => It is a {x}.
""")
def a_or_an(m: Maker) -> Words:
    return {"x": m.pick(A_AN + THINGS[:8])}


@kind("""
    Do you say he or she for {x}?
    (Choose|Write|Give|Tell me) he or she for {x}.
    Which word is right for {x}, he or she?
    (Choose|Write|Give|Tell me) he or she for this name. < {x}
    => You say {y}.
""")
def he_or_she(m: Maker) -> Words:
    x = m.pick(NAMES)
    return {"x": x, "y": "she" if x in GIRLS else "he"}


@kind("""
    (What|Which word) rhymes with {x}?
    (Find|Say|Give|Tell me) a word that rhymes with {x}.
    (Find|Say|Give|Tell me) a word that rhymes with this one. < {x}
    => It is {y}.
""")
def rhyme(m: Maker) -> Words:
    x, y = m.some(m.pick(pairs(RHYMES)), 2)
    return {"x": x, "y": y}


# ---- letters -------------------------------------------------------------------------------------------------------


@kind("""
    What is the first letter of {x}?
    (Give|Tell me|Say|Write) the first letter of {x}.
    With which letter does {x} begin?
    (Give|Tell me|Say|Write) the first letter of the word. < {x}
    => It is {y}.
""")
def first_letter(m: Maker) -> Words:
    x = m.pick(ANIMALS + FOOD)
    return {"x": x, "y": x[0]}


@kind("""
    How do you spell {x}?
    (Spell|Please spell) {x}.
    Can you spell {x}?
    (Spell|Please spell) the word. < {x}
    What are the letters of {x}?
    => It is {y}.
""")
def spelling(m: Maker) -> Words:
    x = m.pick(SHORT)
    return {"x": x, "y": ", ".join(x)}


@kind("""
    Which word is longer, {list}?
    (Find|Say|Give|Choose) the longer word: {list}.
    (Find|Say|Give|Choose) the longer word. < {commas}
    => It is {y}.
""")
def longer_word(m: Maker) -> Words:
    y = m.pick(LONG)
    words = m.some([y, m.pick(SHORT)], 2)
    return {"y": y, "list": listed(words, "or"), "commas": listed(words)}


@kind("""
    Which word comes first in the alphabet, {list}?
    (Find|Say|Give|Choose) the word that comes first in the alphabet: {list}.
    (Find|Say|Give|Choose) the word that comes first in the alphabet. < {commas}
    => It is {y}.
""")
def first_in_the_alphabet(m: Maker) -> Words:
    words = m.some(ALPHABET, 2)
    return {"y": min(words), "list": listed(words, "or"), "commas": listed(words)}


# ---- groups --------------------------------------------------------------------------------------------------------


@kind("""
    Is {a_x} an animal, food, a color, a day or a place?
    To which group does the word {x} belong?
    What kind of thing is {a_x}?
    (Say|Write|Name|Tell me) the group of the word. < {x}
    => It is {y}.
""")
def category(m: Maker) -> Words:
    x = m.pick(list(GROUP_OF))
    return {"x": x, "a_x": with_article(x), "y": GROUP_OF[x]}


@kind("""
    Is {a_x} {group}?
    Is it true that {a_x} is {group}?
    Say yes or no: is {a_x} {group}?
    Does the word name {group}? < {x}
    => {y}.
""")
def yes_or_no(m: Maker) -> Words:
    group = m.pick(list(GROUPS))
    right = m.random() < 0.5
    x = m.pick([word for word, its in GROUP_OF.items() if (its == group) == right])
    return {"x": x, "a_x": with_article(x), "group": group, "y": "Yes, it is" if right else "No, it is not"}


@kind("""
    Which of these is {group}: {list}?
    (Find|Choose|Name) the word that is {group}: {list}.
    (Find|Choose|Name) the word that is {group}. < {commas}
    What is {group} here: {list}?
    => It is {y}.
""")
def choose_by_group(m: Maker) -> Words:
    group, *others = m.some(list(GROUPS), 3)
    y = m.pick(GROUPS[group].split())
    words = m.some([y, *(m.pick(GROUPS[other].split()) for other in others)], 3)
    return {"group": group, "y": y, "list": listed(words, "or"), "commas": listed(words)}


# ---- numbers -------------------------------------------------------------------------------------------------------


@kind("""
    Which day comes {way} {x}?
    (Name|Say|Write|Tell me) the day {way} {x}.
    (Name|Say|Write|Tell me) the day {way} this one. < {x}
    Today is {x}. What day {was}?
    => It is {y}.
""")
def days(m: Maker) -> Words:
    at, step = m.number(0, 6), m.pick([-1, 1])
    way, was = ("after", "is tomorrow") if step == 1 else ("before", "was yesterday")
    return {"x": DAYS[at], "y": DAYS[(at + step) % 7], "way": way, "was": was}


@kind("""
    Which number comes {way} {x}?
    What comes {way} {x}?
    (Name|Say|Write) the number {way} {x}.
    (Name|Say|Write) the number {way} this one. < {x}
    => It is {y}.
""")
def next_number(m: Maker) -> Words:
    at, step = m.number(1, 8), m.pick([-1, 1])
    return {"x": NUMBERS[at], "y": NUMBERS[at + step], "way": "after" if step == 1 else "before"}


@kind("""
    (Write|Say|Give) {x} as a word.
    What is {x} in words?
    (Write|Say|Give) the number as a word. < {x}
    Which word is the number {x}?
    => It is {y}.
""")
def numbers_as_words(m: Maker) -> Words:
    n = m.number(1, 10)
    return {"x": str(n), "y": NUMBERS[n - 1]}


@kind("""
    How many things are here: {things}?
    Count the things: {things}.
    (Count the things.|How many things are here?) < {things}
    What is the number of things here: {things}?
    => There are {y}.
""")
def count_things(m: Maker) -> Words:
    n = m.number(2, 6)
    return {"things": listed([f"a {thing}" for thing in m.some(THINGS, n)]), "y": NUMBERS[n - 1]}


@kind("""
    How many times do you read {x} here: {commas}?
    Count the word {x}: {commas}.
    (Count the word {x}.|How many times do you read {x}?) < {commas}
    => You read it {y} times.
""")
def count_a_word(m: Maker) -> Words:
    x, other = m.some(COLORS, 2)
    n, others = m.number(2, 4), m.number(1, 2)
    words = m.some([x] * n + [other] * others, n + others)
    return {"x": x, "y": NUMBERS[n - 1], "commas": listed(words)}


@kind("""
    (Sort these numbers|Put these numbers in order): {commas}.
    (Sort these numbers|Put these numbers in order). < {commas}
    What is the order of the numbers {commas}?
    => The order is {y}.
""")
def sort_numbers(m: Maker) -> Words:
    numbers = m.some(["1", "2", "3", "4", "5", "6", "7", "8", "9"], 3)
    return {"y": listed(sorted(numbers)), "commas": listed(numbers)}


@kind("""
    Which is {more}, {list}?
    Which number is {more}, {list}?
    (Find|Say|Choose) the {more} number: {list}.
    (Find|Say|Choose) the {more} number. < {list}
    => It is {y}.
""")
def compare_numbers(m: Maker) -> Words:
    numbers = m.some(["1", "2", "3", "4", "5", "6", "7", "8", "9"], 2)
    more, y = m.pick([("bigger", max(numbers)), ("smaller", min(numbers))])
    return {"more": more, "y": y, "list": listed(numbers, "or")}


@kind("""
    (What is|How much is) {a} + {b}?
    Add {b} to {a}.
    (Add the numbers.|What is the sum?) < {a} + {b}
    => It is {y}.
""")
def addition(m: Maker) -> Words:
    a, b = m.number(1, 5), m.number(1, 5)
    return {"a": str(a), "b": str(b), "y": str(a + b)}


@kind("""
    (What is|How much is) {a} - {b}?
    Take {b} from {a}.
    (Take the second number from the first.|What is the rest?) < {a} - {b}
    => It is {y}.
""")
def subtraction(m: Maker) -> Words:
    a = m.number(3, 8)
    b = m.number(1, a - 1)
    return {"a": str(a), "b": str(b), "y": str(a - b)}


@kind("""
    {name} has {a} {things} and gets {b} more. How many {things} does {name} have now?
    How many {things} does {name} have now? < {name} had {a} {things} and got {b} more.
    {name} had {a} {things}. {other} gave {name} {b} more. How many are there now?
    => Now {name} has {y} {things}.
""")
def story_sum(m: Maker) -> Words:
    a, b = m.number(2, 5), m.number(1, 4)
    name, other = m.some(NAMES, 2)
    things = ["apples", "pears", "plums", "berries", "nuts", "stones"]
    numbers = {"a": NUMBERS[a - 1], "b": NUMBERS[b - 1], "y": NUMBERS[a + b - 1]}
    return {"name": name, "other": other, "things": m.pick(things), **numbers}


# ---- lists ---------------------------------------------------------------------------------------------------------


@kind("""
    What is the {place} word here: {commas}?
    (Say|Write|Give) the {place} word of this list: {commas}.
    (Say|Write|Give) the {place} word of the list. < {commas}
    => It is {y}.
""")
def place_in_a_list(m: Maker) -> Words:
    words = m.some(ANIMALS + FOOD + THINGS, 3)
    at = m.number(0, 2)
    return {"place": ("first", "second", "last")[at], "y": words[at], "commas": listed(words)}


# ---- sentences -----------------------------------------------------------------------------------------------------


def subject(m: Maker) -> str:
    return m.pick([m.pick(NAMES), "the " + m.pick(ANIMALS)])


@kind("""
    (Make a question from|Turn into a question): {sentence}
    (Make a question from the sentence|Write the sentence as a question|Turn the sentence into a question). < {sentence}
    => {y}
""")
def question(m: Maker) -> Words:
    who = subject(m)
    verb, rest = m.pick([(m.pick(["is", "was"]), m.pick(STATES)), (m.pick(["can", "will", "must"]), m.pick(ACTS))])
    return {"sentence": capital(f"{who} {verb} {rest}."), "y": f"{capital(verb)} {who} {rest}?"}


@kind("""
    (Say|Write) this with not: {sentence}
    (Put not into the sentence|Write the sentence with not|Say that this is not so). < {sentence}
    => {y}
""")
def negation(m: Maker) -> Words:
    who = subject(m)
    verb, rest = m.pick([(m.pick(["is", "was"]), m.pick(STATES)), (m.pick(["will", "must"]), m.pick(ACTS))])
    return {"sentence": capital(f"{who} {verb} {rest}."), "y": capital(f"{who} {verb} not {rest}.")}


@kind("""
    (Write|Say) he or she instead of the name: {sentence}
    (Write|Say) he or she instead of the name. < {sentence}
    Put he or she for the name: {sentence}
    => {y}
""")
def pronoun(m: Maker) -> Words:
    name = m.pick(NAMES)
    did = " ".join(m.pick(pairs(DID)))
    return {"sentence": f"{name} {did}.", "y": f"{'She' if name in GIRLS else 'He'} {did}."}


@kind("""
    {a} has a {x}. {b} has a {y}. Who has the {asked}?
    Who has the {asked}? < {a} has a {x}. {b} has a {y}.
    Read this and say who has the {asked}. < {a} has a {x} and {b} has a {y}.
    => {who} has the {asked}.
""")
def who_has_it(m: Maker) -> Words:
    (a, b), (x, y) = m.some(NAMES, 2), m.some(THINGS, 2)
    asked, who = m.pick([(x, a), (y, b)])
    return {"a": a, "b": b, "x": x, "y": y, "asked": asked, "who": who}


@kind("""
    {name} has a {p} {x} and a {q} {y}. What color is the {asked}?
    What color is the {asked}? < {name} has a {p} {x} and a {q} {y}.
    Read this and say the color of the {asked}. < There is a {p} {x} next to a {q} {y}.
    => The {asked} is {color}.
""")
def what_color(m: Maker) -> Words:
    (p, q), (x, y) = m.some(COLORS, 2), m.some(THINGS, 2)
    asked, color = m.pick([(x, p), (y, q)])
    return {"name": m.pick(NAMES), "p": p, "q": q, "x": x, "y": y, "asked": asked, "color": color}


@kind("""
    (Write|Say) {q} instead of {p}: {name} {verb} a {p} {x}.
    (Write|Say) {q} instead of {p}. < {name} {verb} a {p} {x}.
    Change {p} to {q}. < {name} {verb} a {p} {x}.
    => {name} {verb} a {q} {x}.
""")
def replace(m: Maker) -> Words:
    p, q = m.some(COLORS, 2)
    return {"p": p, "q": q, "name": m.pick(NAMES), "x": m.pick(THINGS), "verb": m.pick(["has", "saw", "lost"])}


@kind("""
    (Make one sentence of these two|Join the two sentences): {a} {did}. {b} {did}.
    (Make one sentence of these two|Join the two sentences). < {a} {did}. {b} {did}.
    => {a} and {b} {did}.
""")
def join(m: Maker) -> Words:
    a, b = m.some(NAMES, 2)
    return {"a": a, "b": b, "did": " ".join(m.pick(pairs(DID)))}


# ---- the file ------------------------------------------------------------------------------------------------------


def entry(m: Maker, name: str) -> dict[str, str]:
    its = KINDS[name]
    words = its.draw(m)
    instruction, _, given = m.line(m.pick(its.wordings), words).partition(" < ")
    made = {"kind": name, "instruction": instruction, "input": given, "output": m.line(its.answer, words)}
    return {key: value for key, value in made.items() if value}


def make_entries(seed: int = SEED, size: int = SIZE) -> list[dict[str, str]]:
    """Different entries; fewer than `size` if all kinds are exhausted."""
    maker, seen, entries = Maker(seed), set(), []
    names = list(KINDS)
    while names and len(entries) < size:
        for name in list(names):
            for _ in range(TRIES):
                made = entry(maker, name)
                asked = made["instruction"], made.get("input")
                if asked not in seen:
                    seen.add(asked)
                    entries.append(made)
                    break
            else:
                names.remove(name)
    return entries[:size]


def make(seed: int = SEED, size: int = SIZE) -> str:
    return "".join(json.dumps(made) + "\n" for made in make_entries(seed, size))


if __name__ == "__main__":
    sys.exit(run(make, SHIPPED, "Write the bundled instructions.", SEED))
