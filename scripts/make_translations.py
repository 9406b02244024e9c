"""Write data/translations.tsv.gz: sentences about the world of the stories in English, German and French.

The grammar draws a meaning, and each language says it in its own way:

    English   The fox does not find the little red ball.
    German    Der Fuchs findet den kleinen roten Ball nicht.
    French    Le renard ne trouve pas le petit ballon rouge.

A meaning has a kind (`KINDS`), a tense, phrases of nouns with article, number and adjectives, a verb, and perhaps a
time and a place. What must agree agrees: German articles, adjectives and nouns in gender, number and case; verbs in
number; French articles and adjectives in gender and number. Each language has its order: in German the verb is second,
and last in a clause with "weil", and infinitives, participles and the second part of "hebt … auf" are last; in French
most adjectives follow the noun. No English sentence comes twice, and each has one translation.
"""

import argparse
import gzip
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from make_stories import DATA

SHIPPED = DATA / "translations.tsv.gz"
SEED = 17
SIZE = 10_000  # sentences
COLUMNS = ("english", "german", "french")
VOWELS = "aeiouyéèêâîôœ"
T = TypeVar("T")

# ---- words: each line has the same word in three languages -----------------------------------------------------------

# English: singular, plural. German: singular, gender, plural; + where it has -n or -en in all cases except the first.
# French: singular, gender, plural where it is not singular + s.
WHO = """
fox foxes         | Fuchs m Füchse            | renard m
rabbit rabbits    | Hase m Hasen +n           | lapin m
bear bears        | Bär m Bären +en           | ours m ours
mouse mice        | Maus f Mäuse              | souris f souris
owl owls          | Eule f Eulen              | chouette f
frog frogs        | Frosch m Frösche          | grenouille f
duck ducks        | Ente f Enten              | canard m
cat cats          | Katze f Katzen            | chat m
dog dogs          | Hund m Hunde              | chien m
horse horses      | Pferd n Pferde            | cheval m chevaux
bird birds        | Vogel m Vögel             | oiseau m oiseaux
goose geese       | Gans f Gänse              | oie f
hedgehog hedgehogs | Igel m Igel              | 'hérisson m
squirrel squirrels | Eichhörnchen n Eichhörnchen | écureuil m
girl girls        | Mädchen n Mädchen         | fille f
boy boys          | Junge m Jungen +n         | garçon m
child children    | Kind n Kinder             | enfant m
farmer farmers    | Bauer m Bauern +n         | fermier m
baker bakers      | Bäcker m Bäcker           | boulanger m
king kings        | König m Könige            | roi m
queen queens      | Königin f Königinnen      | reine f
friend friends    | Freund m Freunde          | ami m
"""

WHAT = """
ball balls        | Ball m Bälle              | ballon m
apple apples      | Apfel m Äpfel             | pomme f
pear pears        | Birne f Birnen            | poire f
book books        | Buch n Bücher             | livre m
hat hats          | Hut m Hüte                | chapeau m chapeaux
kite kites        | Drachen m Drachen         | cerf-volant m cerfs-volants
lamp lamps        | Lampe f Lampen            | lampe f
key keys          | Schlüssel m Schlüssel     | clé f
basket baskets    | Korb m Körbe              | panier m
bell bells        | Glocke f Glocken          | cloche f
flower flowers    | Blume f Blumen            | fleur f
boat boats        | Boot n Boote              | bateau m bateaux
drum drums        | Trommel f Trommeln        | tambour m
scarf scarves     | Schal m Schals            | écharpe f
cake cakes        | Kuchen m Kuchen           | gâteau m gâteaux
letter letters    | Brief m Briefe            | lettre f
stone stones      | Stein m Steine            | pierre f
umbrella umbrellas | Regenschirm m Regenschirme | parapluie m
egg eggs          | Ei n Eier                 | œuf m
star stars        | Stern m Sterne            | étoile f
cup cups          | Tasse f Tassen            | tasse f
ring rings        | Ring m Ringe              | bague f
mushroom mushrooms | Pilz m Pilze             | champignon m
picture pictures  | Bild n Bilder             | image f
"""

# French: masculine and feminine; with three, the second is masculine before a vowel. < stands before the noun. In
# English, those that do stand first: "the little red ball".
LOOKS = """
little | klein | < petit petite
big | groß | < grand grande
old | alt | < vieux vieil vieille
beautiful | schön | < beau bel belle
good | gut | < bon bonne
"""
OF_WHO = """
young | jung | < jeune jeune
tired | müde | fatigué fatiguée
happy | glücklich | heureux heureuse
hungry | hungrig | affamé affamée
clever | klug | intelligent intelligente
brave | mutig | courageux courageuse
sad | traurig | triste triste
black | schwarz | noir noire
white | weiß | blanc blanche
"""
OF_WHAT = """
new | neu | < nouveau nouvel nouvelle
red | rot | rouge rouge
blue | blau | bleu bleue
green | grün | vert verte
yellow | gelb | jaune jaune
round | rund | rond ronde
heavy | schwer | lourd lourde
strange | seltsam | étrange étrange
black | schwarz | noir noire
white | weiß | blanc blanche
"""

# English: infinitive, with "he", past. German: infinitive, with "er", participle; a part in front of / goes to the end.
# French: infinitive, with "il", with "ils", participle.
DO_IT = """
see sees saw                | sehen sieht gesehen           | voir voit voient vu
find finds found            | finden findet gefunden        | trouver trouve trouvent trouvé
take takes took             | nehmen nimmt genommen         | prendre prend prennent pris
carry carries carried       | tragen trägt getragen         | porter porte portent porté
paint paints painted        | malen malt gemalt             | peindre peint peignent peint
draw draws drew             | zeichnen zeichnet gezeichnet  | dessiner dessine dessinent dessiné
buy buys bought             | kaufen kauft gekauft          | acheter achète achètent acheté
love loves loved            | lieben liebt geliebt          | aimer aime aiment aimé
lose loses lost             | verlieren verliert verloren   | perdre perd perdent perdu
hide hides hid              | verstecken versteckt versteckt | cacher cache cachent caché
wash washes washed          | waschen wäscht gewaschen      | laver lave lavent lavé
steal steals stole          | stehlen stiehlt gestohlen     | voler vole volent volé
look_for looks_for looked_for | suchen sucht gesucht        | chercher cherche cherchent cherché
pick_up picks_up picked_up  | auf/heben hebt aufgehoben     | ramasser ramasse ramassent ramassé
bring_back brings_back brought_back | zurück/bringen bringt zurückgebracht | rapporter rapporte rapportent rapporté
look_at looks_at looked_at  | an/sehen sieht angesehen      | regarder regarde regardent regardé
"""
GIVE_IT = """
give gives gave             | geben gibt gegeben            | donner donne donnent donné
show shows showed           | zeigen zeigt gezeigt          | montrer montre montrent montré
send sends sent             | schicken schickt geschickt    | envoyer envoie envoient envoyé
"""
DO = """
sleep sleeps slept          | schlafen schläft geschlafen   | dormir dort dorment dormi
laugh laughs laughed        | lachen lacht gelacht          | rire rit rient ri
sing sings sang             | singen singt gesungen         | chanter chante chantent chanté
dance dances danced         | tanzen tanzt getanzt          | danser danse dansent dansé
play plays played           | spielen spielt gespielt       | jouer joue jouent joué
wait waits waited           | warten wartet gewartet        | attendre attend attendent attendu
"""
# Before an infinitive, in the present alone. English and German and French: singular, plural.
MODALS = """
wants_to want_to | will wollen | veut veulent
can can | kann können | peut peuvent
must must | muss müssen | doit doivent
"""

PRESENT = (
    "today | heute | aujourd'hui / now | jetzt | maintenant / often | oft | souvent / sometimes | manchmal | parfois"
)
PRESENT += " / every day | jeden Tag | chaque jour / in the evening | abends | le soir"
PAST = (
    "yesterday | gestern | hier / last night | letzte Nacht | la nuit dernière / this morning | heute Morgen | ce matin"
)
WHERE = """
in the garden | im Garten | dans le jardin / by the river | am Fluss | près de la rivière / in the forest | im Wald |
dans la forêt / on the hill | auf dem Hügel | sur la colline / under the tree | unter dem Baum | sous l'arbre /
in the village | im Dorf | dans le village / behind the house | hinter dem Haus | derrière la maison / at the market |
auf dem Markt | au marché / in the kitchen | in der Küche | dans la cuisine / near the mill | bei der Mühle |
près du moulin / on the island | auf der Insel | sur l'île
"""

# German articles: masculine, feminine, neuter, plural, in each case; endings of adjectives after them likewise.
NOMINATIVE, ACCUSATIVE, DATIVE = range(3)
DER = ["der die das die", "den die das die", "dem der dem den"]
EIN = ["ein eine ein -", "einen eine ein -", "einem einer einem -"]
DIESER = ["dieser diese dieses diese", "diesen diese dieses diese", "diesem dieser diesem diesen"]
MEIN = ["mein meine mein meine", "meinen meine mein meine", "meinem meiner meinem meinen"]
WEAK = ["e e e en", "en e e en", "en en en en"]
MIXED = ["er e es en", "en e es en", "en en en en"]
STRONG = [["e"] * 4, ["e"] * 4, ["en"] * 4]  # of the plural, without an article or after a number


def rows(table: str, between: str = "\n") -> list[list[str]]:
    return [[part.strip() for part in row.split("|")] for row in table.split(between) if row.strip()]


class Noun(NamedTuple):
    english: list[str]  # singular, plural
    german: list[str]
    gender: int  # 0 masculine, 1 feminine, 2 neuter
    weak: str  # ending of a weak noun
    french: list[str]
    feminine: bool
    elides: bool


class Adjective(NamedTuple):
    english: str
    german: str
    french: list[str]
    before: bool


class Verb(NamedTuple):
    english: list[str]
    german: list[str]
    prefix: str
    french: list[str]


def noun(row: Sequence[str]) -> Noun:
    english, german, french = (part.split() for part in row)
    aspirated, word = french[0].startswith("'"), french[0].lstrip("'")
    return Noun(
        english, [german[0], german[2]], "mfn".index(german[1]), german[3][1:] if len(german) > 3 else "",
        [word, french[2] if len(french) > 2 else word + "s"], french[1] == "f", word[0] in VOWELS and not aspirated,
    )  # fmt: skip


def adjective(row: Sequence[str]) -> Adjective:
    french = row[2].split()
    before = french[0] == "<"
    forms = french[before:]
    return Adjective(row[0], row[1], [forms[0], forms[-2], forms[-1]], before)


def verb(row: Sequence[str]) -> Verb:
    english, german, french = row
    prefix, _, rest = german.rpartition("/")
    return Verb([word.replace("_", " ") for word in english.split()], rest.split(), prefix, french.split())


NOUNS = {name: [noun(row) for row in rows(table)] for name, table in (("who", WHO), ("what", WHAT))}
ADJECTIVES = {
    name: [adjective(row) for row in rows(LOOKS + table)] for name, table in (("who", OF_WHO), ("what", OF_WHAT))
}
DO_IT_VERBS, GIVE_VERBS, DO_VERBS = ([verb(row) for row in rows(table)] for table in (DO_IT, GIVE_IT, DO))
TIMES = {tense: rows(table, " / ") for tense, table in (("present", PRESENT), ("past", PAST))}
MODAL_VERBS = rows(MODALS)
PLACES = rows(WHERE.replace("\n", " "), " / ")


# ---- phrases ---------------------------------------------------------------------------------------------------------


class Phrase(NamedTuple):
    """A noun with its article, number and adjectives: "these little red balls"."""

    article: str  # the, a, this, my, two, three
    plural: bool
    adjectives: list[Adjective]
    noun: Noun

    def english(self) -> str:
        article = {"a": "" if self.plural else "a", "this": "these" if self.plural else "this"}
        words = [article.get(self.article, self.article), *(a.english for a in self.adjectives)]
        text = " ".join([*filter(None, words), self.noun.english[self.plural]])
        return "an" + text[1:] if text.startswith("a ") and text[2] in "aeiou" else text

    def german(self, case: int) -> str:
        column = 3 if self.plural else self.noun.gender
        table = {"the": DER, "a": EIN, "this": DIESER, "my": MEIN}.get(self.article)
        article = {"two": "zwei", "three": "drei"}.get(self.article) or (table or DER)[case].split()[column]
        if self.plural and self.article in ("a", "two", "three"):
            endings = STRONG[case]
        else:
            endings = (WEAK if self.article in ("the", "this") else MIXED)[case].split()
        words = [] if article == "-" else [article]
        words += [a.german.rstrip("e") + endings[column] for a in self.adjectives]
        word = self.noun.german[self.plural]
        if self.plural and case == DATIVE and word[-1] not in "ns":
            word += "n"
        if not self.plural and case != NOMINATIVE:
            word += self.noun.weak
        return " ".join([*words, word])

    def french(self, to: bool = False) -> str:
        """With `to`, after the preposition à, which joins some articles."""
        before = [self._agreed(a) for a in self.adjectives if a.before]
        after = [self._agreed(a) for a in self.adjectives if not a.before]
        vowel = self.noun.elides and not before  # whether the word after the article begins with a sounded vowel
        f = self.noun.feminine
        if self.plural:
            article = {"the": "les", "a": "de" if before else "des", "this": "ces", "my": "mes", "two": "deux"}
            word = article.get(self.article, "trois")
        else:
            articles = {
                "the": "l'" if vowel else "la" if f else "le",
                "a": "une" if f else "un",
                "this": "cette" if f else "cet" if vowel else "ce",
                "my": "ma" if f and not vowel else "mon",
            }
            word = articles[self.article]
        if to:
            word = {"le": "au", "les": "aux"}.get(word, f"à {word}")
        text = " ".join([word, *before, self.noun.french[self.plural], *after])
        return text.replace("l' ", "l'")

    def _agreed(self, a: Adjective) -> str:
        masculine, vowel, feminine = a.french
        if self.noun.feminine:
            return feminine + "s" * self.plural
        if self.plural:
            return masculine if masculine[-1] in "sx" else masculine + ("x" if masculine.endswith("eau") else "s")
        return vowel if self.noun.elides and a.before else masculine


class Writer:
    """Draws meanings, and says them in three languages."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random  # the one function whose numbers no Python changes

    def pick(self, things: Sequence[T]) -> T:
        return things[int(self.random() * len(things))]

    def phrase(self, of: str, articles: str = "the the the a a a this my two three", plain: float = 0.3) -> Phrase:
        article = self.pick(articles.split())
        plural = article in ("two", "three") or self.random() < 0.3
        looks = [a for a in ADJECTIVES[of] if a.before]
        kinds = [a for a in ADJECTIVES[of] if not a.before]
        draw, adjectives = self.random(), []
        if plain <= draw < 0.75 or draw >= 0.9:
            adjectives.append(self.pick(looks))
        if draw >= 0.75 or (plain <= draw and self.random() < 0.15):
            adjectives.append(self.pick(kinds))
        return Phrase(article, plural, adjectives, self.pick(NOUNS[of]))

    def clause(self, tense: str) -> list[list[str]]:
        """For each language: subject, verb, what follows it, and German's end: [subject, verb, rest, end]."""
        who, kind = self.phrase("who"), self.random()
        place = self.pick(PLACES) if self.random() < 0.25 else ["", "", ""]
        if kind < 0.2:
            return self._said(who, self.pick(DO_VERBS), tense, ["", "", ""], place)
        if kind < 0.75:
            what = self.phrase("what")
            objects = [what.english(), what.german(ACCUSATIVE), what.french()]
            return self._said(who, self.pick(DO_IT_VERBS), tense, objects, place)
        to, what = self.phrase("who", "the the a this my", 0.5), self.phrase("what", plain=0.5)
        objects = [
            f"{to.english()} {what.english()}", f"{to.german(DATIVE)} {what.german(ACCUSATIVE)}",
            f"{what.french()} {to.french(to=True)}",
        ]  # fmt: skip
        return self._said(who, self.pick(GIVE_VERBS), tense, objects, ["", "", ""])

    def _said(self, who: Phrase, v: Verb, tense: str, objects: list[str], place: list[str]) -> list[list[str]]:
        many = who.plural
        rest = [join(o, p) for o, p in zip(objects, place, strict=True)]
        subjects = [who.english(), who.german(NOMINATIVE), who.french()]
        infinitive = v.prefix + v.german[0]
        if tense == "past":
            verbs = [v.english[2], "haben" if many else "hat", f"{'ont' if many else 'a'} {v.french[3]}"]
            ends = ["", v.german[2], ""]
        elif tense == "modal":
            english, german, french = (row.split()[many].replace("_", " ") for row in self.pick(MODAL_VERBS))
            verbs = [f"{english} {v.english[0]}", german, f"{french} {v.french[0]}"]
            ends = ["", infinitive, ""]
        else:
            verbs = [v.english[not many], v.german[0] if many else v.german[1], v.french[1 + many]]
            ends = ["", v.prefix, ""]
        return [list(parts) for parts in zip(subjects, verbs, rest, ends, strict=True)]

    def statement(self) -> list[str]:
        """The subject first."""
        clause = self.clause(self.pick(["present", "present", "past", "modal"]))
        return [join(*parts) for parts in clause]

    def timed(self) -> list[str]:
        """A time first: in German, the verb is second then too."""
        tense = self.pick(["present", "past"])
        times = self.pick(TIMES[tense])
        english, (subject, verb, *rest), french = self.clause(tense)
        return [join(times[0], *english), join(times[1], verb, subject, *rest), join(f"{times[2]},", *french)]

    def because(self) -> list[str]:
        """A reason: in German, the verb is last in it."""
        tense = self.pick(["present", "present", "past"])
        who, v = self.phrase("who"), self.pick(DO_VERBS)
        main = self._said(who, v, tense, ["", "", ""], ["", "", ""])
        english, (subject, verb, rest, end), french = self.clause(tense)
        # "weil er den Ball aufhebt", "weil er den Ball aufgehoben hat"
        last = end + verb if tense == "present" else f"{end} {verb}"
        reason = join(*french)
        said = [join(*parts) for parts in main]
        return [
            f"{said[0]} because {join(*english)}",
            f"{said[1]}, weil {join(subject, rest, last)}",
            f"{said[2]} parce qu'{reason}" if reason[0] in VOWELS else f"{said[2]} parce que {reason}",
        ]

    def feeling(self) -> list[str]:
        """A subject and what it is like: a German adjective has no ending there."""
        past, of = self.random() < 0.4, self.pick(["who", "what"])
        who = self.phrase(of, plain=0.6)
        a = self.pick([x for x in ADJECTIVES[of] if x not in who.adjectives])
        many = who.plural
        masculine = who.noun._replace(elides=False)  # nothing follows the adjective
        agreed = Phrase(who.article, many, [], masculine)._agreed(a)
        is_ = ("were" if many else "was") if past else ("are" if many else "is")
        ist = ("waren" if many else "war") if past else ("sind" if many else "ist")
        est = ("étaient" if many else "était") if past else ("sont" if many else "est")
        return [
            join(who.english(), is_, a.english), join(who.german(NOMINATIVE), ist, a.german),
            join(who.french(), est, agreed),
        ]  # fmt: skip

    def denial(self) -> list[str]:
        """With "not": German's is after the object, French has two words around the verb."""
        who, what, v = self.phrase("who"), self.phrase("what", "the the this my"), self.pick(DO_IT_VERBS)
        past, many = self.random() < 0.4, who.plural
        do = "did" if past else "do" if many else "does"
        verb, end = (("haben" if many else "hat"), v.german[2]) if past else (v.german[0 if many else 1], v.prefix)
        french = ("ont" if many else "a") if past else v.french[1 + many]
        ne = "n'" if french[0] in VOWELS else "ne "
        return [
            join(who.english(), f"{do} not", v.english[0], what.english()),
            join(who.german(NOMINATIVE), verb, what.german(ACCUSATIVE), "nicht", end),
            join(who.french(), f"{ne}{french} pas", v.french[3] if past else "", what.french()),
        ]

    def question(self) -> list[str]:
        """In German, the verb is first."""
        who, what, v = self.phrase("who"), self.phrase("what"), self.pick(DO_IT_VERBS)
        past, many = self.random() < 0.4, who.plural
        do = "did" if past else "do" if many else "does"
        verb, end = (("haben" if many else "hat"), v.german[2]) if past else (v.german[0 if many else 1], v.prefix)
        french = f"{'ont' if many else 'a'} {v.french[3]}" if past else v.french[1 + many]
        asked = who.french()
        return [
            join(do, who.english(), v.english[0], what.english()),
            join(verb, who.german(NOMINATIVE), what.german(ACCUSATIVE), end),
            join("est-ce qu'" + asked if asked[0] in VOWELS else f"est-ce que {asked}", french, what.french()),
        ]

    def sentence(self) -> tuple[str, ...]:
        """One meaning in three languages."""
        kind = self.pick([kind for kind, share in KINDS.items() for _ in range(share)])
        parts, mark = getattr(self, kind)(), "?" if kind == "question" else "."
        english, german, french = (part[0].upper() + part[1:] for part in parts)
        return english + mark, german + mark, french + (" ?" if mark == "?" else mark)


KINDS = {"statement": 4, "timed": 3, "because": 2, "feeling": 2, "denial": 2, "question": 2}  # and their shares


def join(*parts: str) -> str:
    return " ".join(filter(None, parts))


def make_rows(seed: int, size: int) -> list[tuple[str, ...]]:
    """Different sentences, each in the order of `COLUMNS`."""
    writer, made = Writer(seed), dict[str, tuple[str, ...]]()
    while len(made) < size:
        row = writer.sentence()
        made.setdefault(row[0], row)
    return list(made.values())


def make(seed: int = SEED, size: int = SIZE) -> str:
    return "".join("\t".join(row) + "\n" for row in [COLUMNS, *make_rows(seed, size)])


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundled translations.")
    parser.add_argument(
        "--out", type=Path, default=SHIPPED, help="where to write; .gz compresses (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--size", type=int, default=SIZE, help="number of sentences (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file differs")
    args = parser.parse_args()
    text, compressed = make(args.seed, args.size).encode(), args.out.suffix == ".gz"
    try:
        if not args.check:
            args.out.write_bytes(gzip.compress(text, 9, mtime=0) if compressed else text)
        elif (gzip.decompress(args.out.read_bytes()) if compressed else args.out.read_bytes()) != text:
            print(f"{args.out} is not what this script makes: run it without --check", file=sys.stderr)
            return 1
    except OSError as error:
        parser.exit(2, f"{args.out}: {error.strerror or error}: give another --out\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
