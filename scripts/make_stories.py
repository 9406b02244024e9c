"""Write data/stories.txt: short children's stories, from a grammar and a seed.

A story is made in four steps:

1. Draw a cast: a hero, a friend, an elder of the family, a helper, a place, a treasure. They are children or
   animals. Hero and friend never share a pronoun, and nobody else has one, so "he" and "she" are always clear.
2. Draw a plot from `PLOTS`; each plot is used equally often. Its first block draws words that only this plot needs,
   such as the thing that was broken. The following blocks, separated by empty lines, are its beats: a beginning, a
   problem, a turn, an end.
3. Choose one line for each beat; the lines are different ways to tell it. In a line,

       (big|small|)     is one of the alternatives, of which one may be empty; they nest,
       {hero}           is a word drawn for this story, or a phrase of `PHRASES`, drawn again at each use,
       {Hero}           is the same with a capital letter.

4. `polish` corrects "a" and "an", capitals and spaces. A story that is too long, too short or a repetition is
   dropped, and another one is made.

A line that starts with spaces continues the line before it.
"""

import argparse
import random
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

DATA = Path(__file__).resolve().parents[1] / "data"
SHIPPED = DATA / "stories.txt"
SEED = 2024
SIZE = 1_050_000  # bytes
END_OF_STORY = "<|endoftext|>"
FEWEST_WORDS, MOST_WORDS = 50, 125

SHE = {"he": "she", "him": "her", "his": "her", "himself": "herself", "child": "girl"}
HE = {"he": "he", "him": "him", "his": "his", "himself": "himself", "child": "boy"}
NAMES_SHE = ["Mia", "Lily", "Anna", "Rosa", "Ella", "Nora", "Zoe", "Ruby", "Maya", "Ivy"]
NAMES_HE = ["Tom", "Ben", "Max", "Sam", "Leo", "Finn", "Jack", "Omar", "Hugo", "Noah"]

# `a, b: x / y / z` draws a different one for each of a and b; `a + b: x + y / v + w` draws a pair.
CHILDREN = """
kind: {child}
pal_kind: {pal_child}
hand: hand
home: in a (small|white|tall|red|snug) house (near the sea|by the river|on a hill|at the edge of town|beside a
  mill) / in a (little|quiet|busy|pretty) (village|town) (by the sea|near the mountains|between two hills|on
  an island) / on a (small|busy|sunny) farm / above a (bakery|toy shop|book shop) / at the end of a
  (long|narrow|quiet) (road|lane)
around: in the village / in the town / on the street / on the island
place + at: park + in the park / beach + on the beach / playground + at the playground / market + at the
  market / lake + by the lake / farm + on the farm / meadow + in the meadow / river + by the river / hill + on
  the hill / orchard + in the orchard / old mill + at the old mill / pond + by the pond / school yard + in the
  school yard
elder + call: mother + Mama / father + Papa / grandmother + Grandma / grandfather + Grandpa / aunt + Auntie
helper_a + helper: an old fisherman + the fisherman / a friendly baker + the baker / a tall farmer + the
  farmer / an old gardener + the gardener / a kind neighbor + the neighbor / a young shepherd + the shepherd /
  a cheerful painter + the painter / an old sailor + the sailor / a busy miller + the miller
"""

ANIMALS = """
kind, pal_kind: rabbit / fox / mouse / squirrel / hedgehog / bear / badger / otter / mole / beaver / raccoon
hand: paw
home: in a (snug|warm|dry|neat) burrow (under an oak|beneath a hill|near the stream|by the old wall) / in a
  (hollow|tall|crooked) tree (near the pond|in the middle of the woods|at the edge of the forest) / in a
  (tiny|round|mossy) house (by a stream|under the roots of an oak|beside the pond) / deep in the (quiet|green)
  woods
around: in the forest / in the valley / around the pond
place + at: meadow + in the meadow / pond + by the pond / hill + on the hill / stream + by the stream /
  orchard + in the orchard / old bridge + near the old bridge / valley + in the valley / berry patch + in the
  berry patch
elder + call: mother + Mama / father + Papa / grandmother + Grandma / grandfather + Grandpa
helper_a + helper: an old owl + the owl / a slow turtle + the turtle / a white goose + the goose / a tiny ant
  + the ant / a green frog + the frog / a gentle deer + the deer / a black crow + the crow / a plump hen + the
  hen
"""

CAST = """
trait: kind / cheerful / curious / gentle / merry / clever / lively / bright / friendly / young / small /
  happy / (kind|cheerful|quiet|clever|lively|curious) little / (kind|cheerful|gentle|friendly) young
pal_trait: cheerful / quiet / funny / clever / lively / gentle / young / merry / kind
love: telling (funny|long|old) stories / looking at the (stars|clouds|moon) / (picking|eating)
  (berries|cherries) / collecting (shells|stones|feathers|leaves) / singing (silly|old|happy) songs / watching
  (bees|birds|ants|butterflies) / drawing (birds|flowers|pictures) / listening to the (rain|birds|wind)
color: red / blue / green / yellow / white / purple / orange / brown
fine + thing: {color} scarf + scarf / {color} hat + hat / {color} ball + ball / {color} blanket + blanket /
  (little|tiny) silver bell + bell / (wooden|painted|tin) whistle + whistle / {color} toy boat + boat /
  (old|thick) picture book + book / {color} umbrella + umbrella / (small|round) drum + drum / {color} ribbon +
  ribbon / tin cup + cup / (wooden|painted) top + top / {color} kite + kite / (straw|woven)
  basket + basket
"""

PHRASES = """
one_day: one( fine| bright| quiet| windy|) (day|morning|afternoon) / on a (warm|cool|fine|bright|lovely)
  (morning|afternoon|day)( in (spring|summer|autumn)|) / (early|late) one (morning|afternoon) / one
  (Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)( morning|)
soon: soon / after a while / before long / a little later / not long after
next_day: the next (day|morning) / (a day|two days) later / a few days later

intro: (Once upon a time|Long ago|Once), there (was a {trait} {kind} (named|called) {hero} who lived
  {home}|lived a {trait} {kind} (named|called) {hero}). / {hero} was a {trait} {kind} who lived {home}. / a
  {trait} {kind} (named|called) {hero} lived {home}. / {home}, there (lived|was) a {trait} {kind}
  (named|called) {hero}. / {hero} was a {trait} {kind} who (loved|liked|enjoyed) {love}. / there was once a
  {trait} {kind} (named|called) {hero}, and {he} (loved|enjoyed) {love}. / {hero}, a {trait} {kind}, lived
  {home}( and (loved|liked) {love}|). / (everyone|everybody) {around} knew {hero}, a {trait} {kind} who
  (loved|liked) {love}.
a_pal: a {pal_trait} {pal_kind} (named|called) {pal}
close: that (night|evening), {hero} fell asleep with a (big|little|happy|sleepy) smile( on {his} face|). /
  {hero} (never forgot|always remembered) (that day|what had happened|how it felt), even when {he} was
  (big|old|grown). / when the (moon|first star) (came out|rose), {hero} was still (smiling|humming|talking
  about it|wide awake with joy). / from (that day|then) on, {hero} (smiled|laughed|grinned) whenever {he}
  (thought of|remembered) it. / {hero} (told|wrote) it all to {his} cousin, who (laughed|could hardly believe
  it|asked for more|liked every word). / and if you ask {hero} about it (today|now), {he} will (smile|laugh)
  and tell you (more|the rest|every bit of it). / {hero} (hummed|sang) a (song|tune) (about it|of {his} own)
  (all the way to bed|while {he} brushed {his} teeth|until {he} slept).
home_close: {close} / {close} / {hero} (went|walked|skipped|ran) home (tired|hungry|muddy) but
  (happy|proud|glad). / {his} {elder} heard the whole story (at supper|at bedtime|that evening) and gave
  {hero} a (big|long|warm) hug. / "And what did you do today?" asked {his} {elder}. {hero} (told|began) the
  (long|whole) story, (word for word|from start to end). / at (supper|bedtime), {hero} had a (long|good) story
  to tell, and {his} {elder} (smiled|laughed|nodded) at (every word|the end).
"""

PLOTS = {}

PLOTS["a lost treasure"] = """
spot: under (an old|a wooden) bench / behind a (big|round|mossy) rock / beside the gate / in the (tall|long)
  grass / under a heap of leaves / between two (roots|stones) / on top of a wall / under a (thorny|small) bush
  / in a hollow log
wrong, wrong2: under the bed / behind the door / beside the stove / in the big chest / by the window / under
  the table / in the (kitchen|cellar) / behind the curtain / under every pillow
look: odd / small / strange / half hidden

{intro}

Of all {his} things, {he} loved {his} {fine} (best|most).
{his} {elder} had given {him} a {fine}, and {he} (carried|took) it (everywhere|wherever {he} went).
What {he} loved (best|most) was a {fine}( that had once belonged to {his} {elder}|).
(For {his} birthday|Last winter), {he} had been given a {fine}, and {he} (was very proud of it|took good care
  of it).

{one_day}, {he} (came home|walked back|returned) from the {place} and saw that the {thing} was (gone|missing).
{one_day}, {he} (wanted to show|reached for) the {thing}, but it was not in its place.
{one_day}, after a (long|merry) walk to the {place}, {he} could not find the {thing}.
{one_day}, {he} played {at} until (lunch|supper). When {he} got home, the {thing} was (gone|nowhere to be
  seen).

"Where is my {thing}?" {he} cried. {he} looked {wrong} and {wrong2}, but (it was not there|found only dust).
{he} searched {wrong}, then {wrong2}. There was no {thing} anywhere(, and {he} began to cry|).
"Oh no! I have lost my {thing}!" said {hero}, and {he} looked {wrong} and {wrong2}. It was no use.
First {he} looked {wrong}. Then {he} looked {wrong2}. "It is gone," {he} (said|whispered) (in a small
  voice|sadly).

"Where did you (see|hold|have) it last?" asked {his} {elder}. "{At}, when I stopped to (rest|drink|look at a
  bird)!" said {hero}, and {he} ran (back|there) at once.
{hero} went outside and met {helper_a}. "I saw something {look} {at} today," said {helper}. So {hero}
  (ran|hurried) to the {place}.
{his} friend {pal} (came by|stopped) and said, "Let's (go back the way you came|look where you were today|try
  the {place})." (So they|The two friends|They) (walked|went) to the {place}.
{his} {elder} took {him} by the {hand}. "(Lost things do not walk|It is waiting for you somewhere)," {call}
  said. (Together they|The two of them) (went|walked|hurried) to the {place}.

{hero} (ran here and there|looked all around|turned around slowly), and (there it was|now {he} saw it),
  {spot}! The {thing} was (wet|dusty|a little muddy), but it was (safe|still whole|all right).
{soon}, {hero} saw something {look} {spot}. It was the {fine}!
And there, {spot}, (lay|was) the {thing}. {hero} (picked it up|held it tight|lifted it high) and
  (danced|jumped|laughed) for joy.
{hero} (looked|looked again) {spot}, and {his} heart (jumped|leaped). "Here it is!" {he} (shouted|called).

From then on, {he} (put the {thing} away|looked after the {thing}) (with care|every evening).
"Next time I will (think first and cry later|take better care of it|look before I (cry|shout))," said {hero}.
{he} carried the {thing} home (with both {hand}s|very carefully|like a treasure), and (it was never lost
  again|never lost it again|it stayed close to {him} after that).
"I will (never|not) leave you behind again," {hero} (told|whispered to) the {thing}.
{close}
"""

PLOTS["something breaks"] = """
dear + short: (blue|tall|white) vase + vase / (old|round|yellow) teapot + teapot / (painted|white) plate +
  plate / glass bowl + bowl / (big|red) clay pot + pot / (favorite|silver) cup + cup / (little|round) mirror +
  mirror / (tall|green) lamp + lamp / honey jar + jar
why: chasing a (ball|moth|fly) (around|across) the room / dancing (on a chair|around the table) / playing
  (pirates|tag|horses) indoors / reaching for a (cookie|pear|plum) on the (top|high) shelf / spinning around
  with {his} eyes closed / swinging a (broom|wooden spoon|stick) like a sword
hide: under the (rug|bed|sofa) / behind the (stove|curtain|flowers) / in a dark corner / under a heap of
  (leaves|cloth)
blame: the cat / the wind / a mouse

{intro}

{his} {elder} had a {dear}( that was very old|) and loved it (dearly|very much).
On the (shelf|table) stood a {dear}. It (belonged to {his} {elder}|was very old|must never be touched).
There was one thing in the house {he} must not touch: the {dear} that {his} {elder} loved.
{his} {elder} (kept|had) a {dear}, and {hero} had promised to be careful with it.

{one_day}, {he} was {why}. (Crash!|Bump! Crash!|Crack!) The {short} fell (to|on) the floor and broke.
{one_day}, while {he} was {why}, {he} (bumped|knocked) against the {short}. It fell and (broke|cracked) in
  (two|three).
But {one_day}, {he} was {why} when {his} (elbow|foot|{hand}) hit the {short}. Crash! It was broken.

{hero} was (scared|afraid), and {he} hid the pieces {hide}. But all day, {his} heart felt (heavy|cold).
"Oh no," {he} whispered. {he} (pushed|hid) the pieces {hide}, but {he} could think of nothing else.
Quickly, {he} put the broken {short} {hide}. But that night, {he} could not (sleep|close {his} eyes).
{he} hid the pieces {hide}. "Where is my {short}?" asked {his} {elder}. "Maybe {blame} took it," said {hero},
  and {his} (tummy|heart) began to (ache|hurt).
{he} put the pieces {hide}. {his} friend {pal} came to play, but {hero} did not laugh (once|at all). "You
  should tell (someone|your {elder})," said {pal}.

At last {he} took a deep breath. "I broke your {short}," {he} said. "(I am so sorry.|It was me.)"
(In the end|Finally), {he} (took|brought) the pieces to {his} {elder}. "I did it," {he} said, and (big|hot) tears
  ran down {his} cheeks.
{hero} ran to {his} {elder} and told the (whole|full) truth, from (beginning|start) to end.

{his} {elder} was (quiet|silent) for a moment. "A {short} can be (mended|fixed)," {call} said. "I am glad that
  you told me."
"I am (sad|sorry) about the {short}," said {his} {elder}, "but (I am proud of you|you were brave to (tell
  me|say it))."
{his} {elder} (sighed and then smiled|gave {him} a hug). "Thank you for being (honest|brave)," {call} said.

Together they glued the pieces. The {short} had a (long|small) crack now, and {hero} said it looked like a
  (river|smile|little road).
They mended it together(, piece by piece|). It was not (perfect|like new), but {hero} felt (light|free) again.
{next_day}, {hero} (worked in the garden|swept the floor|washed the dishes) (to help pay for a new one|to make
  up for it), and {his} heart was light again.
They mended the {short} with glue. "It is even (prettier|better) now," said {his} {elder}.
Telling the truth had been hard, but now {his} heart was (light|free) again.
"""

PLOTS["stuck up high"] = """
toy + thing: {color} kite + kite / {color} ball + ball / (straw|{color}) hat + hat / {color} scarf + scarf /
  paper plane + plane / {color} ring + ring / toy (bird|airplane) + toy
up: in the top of (a tall|an old) (oak|elm|pine) / on the roof of the (barn|shed|mill) / on top of a
  (high|stone) wall / in a (tall|big) (pear|cherry) tree
tool + act: ladder + {pal} held the ladder while {hero} climbed up, (slowly|with care) / long ladder + {hero}
  held the ladder while {pal} climbed up, (step by step|very slowly) / long stick + {hero} stood on a
  (stump|box) and (reached up|poked at it) with the stick / rake + {hero} stood on the tips of {his} toes and
  pulled with the rake / broom + {pal} stood on a (box|rock) and pushed with the broom / long pole + they
  lifted the pole together and pushed (hard|once, twice, three times)
where: beside the (path|road|gate) / against the fence / next to the (wood pile|haystack) / behind the hedge
place + at: farm + on the farm / meadow + in the meadow / hill + on the hill / orchard + in the orchard / old
  mill + at the old mill

{intro}

{one_day}, {he} and {his} friend {pal} took a {toy} to the {place}. They (passed|saw) a {tool} {where}.
{one_day}, {hero} played {at} with {a_pal}. They had a {toy}. A {tool} (stood|lay) {where}.
{one_day}, {he} took a {toy} to the {place}. {a_pal} came too. They walked by a {tool} {where}.

They had great fun until the wind (caught|carried off) the {thing}. It (landed|came down) {up}.
{hero} threw the {thing} (high|up) into the air, and it (stayed|got stuck) {up}.
Then {pal} gave the {thing} a (big|mighty|hard) (throw|toss), and it got stuck {up}.
"(Higher|Faster)!" shouted {pal}. But the {thing} (flew|went) too high and came to rest {up}.

{hero} jumped, but {he} was too (short|small).
{pal} threw (a pine cone|an apple|a small stone) at it and missed.
They (jumped|waved) and shouted, but the {thing} did not (move|fall|come down).
"(It is too high|We will never reach it)," said {pal}. {hero} did not want to give up.
{pal} stood on the shoulders of {hero}, but even that was not (high|tall) enough.

Then {hero} remembered something. "The {tool}!" {he} (cried|said). "We saw it {where}!"
{pal} (scratched {phis} head|looked around). "(Was|Wasn't) there a {tool} {where}?" {phe} asked.
{hero} sat down to think. "I know," {he} said (at last|after a while). "We need the {tool}!"
Just then {helper_a} (came by|came along). "There is a {tool} {where}," said {helper}. "(Try that|Take it)."

They (carried|brought) it over. {act}. At last the {thing} came (free|loose) and fell (down|to the ground).
Together they (got|dragged) it to the right place. {act}. The {thing} (wobbled|slid) and (fell|dropped) (into
  their {hand}s|in front of their feet).
{soon} they were back with it. {act}, and (down came the {thing}|the {thing} came down).

"(You did it|Hurray)!" cried {pal}. "(We did it|Both of us did)," said {hero}.
{hero} and {pal} (clapped|cheered) and (danced in a circle|shook {hand}s). Then they put the {tool} back.
"(Next time|Tomorrow) we will play (away from|far from) tall things," said {hero}, and they both laughed.
"(Thinking|A good idea|A cool head) is better than (jumping|shouting)," said {pal}, and {hero} (laughed|agreed).
{home_close}
"""

PLOTS["sharing"] = """
food + one: (red|sweet) berries + berry / (ripe|purple) plums + plum / (hazel|walnut|roasted) nuts + nut /
  (honey|butter|ginger) cookies + cookie / (yellow|sweet) pears + pear / (dark|red) cherries + cherry /
  (apple|little) cakes + cake / (warm|sweet) buns + bun
bag: a (big|small) basket of / a (paper|cloth) bag of / a bowl full of / a (tin|box) of
seat: under a (shady|tall) tree / on a (flat|warm) stone / on the (steps|bench) / in the (soft|cool) grass
lunch + gone: lunch + fallen into a (puddle|ditch) / lunch + stayed at home (on the table|by mistake) / bread
  + been eaten by a (goose|goat) / bread + dropped into the (mud|water|sand) / sandwich + been taken by a
  (crow|dog|gull)

{intro}

{one_day}, {his} {elder} gave {him} {bag} {food}. "(Enjoy them|They are fresh)," {call} said.
{one_day}, {he} had {bag} {food} and sat down {seat} to eat.
{one_day}, {he} took {bag} {food} to the {place} and sat down {seat}.
{one_day}, {hero} (helped|worked for) {his} {elder} and was given {bag} {food}.

{his} friend {pal} came by. "My {lunch} has {gone}," {phe} said. "(May|Could) I have a {one}?"
{his} friend {pal} came along (slowly|with a sad face). "My {lunch} has {gone}," {phe} said.
{soon}, {his} friend {pal} sat down next to {him}. "My {lunch} has {gone}," {phe} said. "Those (look|smell)
  (good|wonderful)."

"No," said {hero}. "(They are all mine|I want them all)." {pal} (looked at the ground|said nothing) and
  (walked|went) away.
{hero} held the {food} close. "There are not enough for two," {he} said, though there were (plenty|more than
  enough). {pal} went away.
{hero} turned {his} back. "Maybe (tomorrow|later)," {he} said with a full mouth, and {pal} left
  (quietly|without a word).

{he} ate one {one}, and then another. But without a friend, they did not taste (so|very) (good|sweet).
{hero} ate and ate until {his} tummy hurt. There was no one to (talk|laugh) with.
A (small|little) bird dropped a crumb for another bird. {hero} watched them and thought of {pal}.
"(Good food|A full basket) and no friend make a poor meal," said {helper_a}.
Then {he} remembered how {pal} had once (given {him} half of an apple|lent {him} a warm coat).

{he} ran after {pal}. "I was (wrong|selfish)," {he} said. "Please (take|have) some {food}."
{hero} found {pal} {at}. "I am sorry," {he} said, and {he} (held out|offered) the {food}.
So {he} hurried (to the {place}|down the path), where {pal} sat alone. "Let's (eat together|share)," said
  {hero}.

They sat {seat} and counted: one for you, one for me. Now every {one} tasted (twice as good|better than the
  last).
{pal} smiled (at once|from ear to ear). "(Tomorrow|Next time) I will bring (bread and cheese|something) for
  both of us," {phe} said.
The two friends (ate|shared) the {food} and told (jokes|riddles) until the sun (went down|was low).
{pal} laughed so hard that a {one} fell out of {phis} {hand}, and {hero} laughed too.
They shared the {food}. (Food tastes best when it is shared.|Sharing makes a little into a lot.)
{pal} took a {one} and smiled. {home_close}
"""

PLOTS["a fear in the dark"] = """
trait: shy / quiet / careful / gentle / young / (shy|quiet|careful) little
dark: (dark|old) cellar / attic / (old|empty) barn / (empty|old) shed
noise: scratching / tapping / squeaking / knocking / rustling
cause + it: a (tiny|gray|lost) kitten (in a box|behind a barrel) + kitten / an old clock (on|under) a shelf +
  clock / a (thin|long) branch that moved in the wind + branch / a (young|small) owl with a (hurt|stiff) wing
  + owl / a loose board that moved in the wind + board / a (fat|brown) toad in a bucket + toad
light: lamp / candle / lantern
fetch: the (jam|honey) jar / the (big|red) basket / the (long|thick) rope / the (old|broken) broom / the wool
  blanket
monster: monster / ghost / dragon / giant / troll

{intro} {he} was (afraid|very much afraid) of the dark.
{intro} There was one thing {he} (feared|did not like), and that was the dark.
{intro} {he} was (brave|bold) by day, but not (at night|in the dark).

One (cold|windy|rainy) evening, {his} {elder} asked {him} to fetch {fetch} from the {dark}.
One (cold|windy|rainy) night, {hero} remembered that {he} had left {fetch} in the {dark}.
One evening, {his} {elder} said, "Please (go and get|bring me) {fetch} from the {dark}."

At the door of the {dark} {he} stopped. {he} could hear (a|a soft|an odd) {noise} sound, as if a {monster}
  were (waking|at home).
From the corner of the {dark} came a {noise} sound. "Who is there?" {he} whispered. "A {monster}?"
{hero} went to the {dark} and listened. There was a {noise} sound! "It is a {monster}," thought {hero}.

With a {light} in {his} {hand}, {he} (stepped|went) inside. The {noise} grew (louder|stronger).
{he} (lifted|held up) a {light} and looked in. (Long|Strange) shadows (danced|jumped) on the wall.
Slowly, {hero} (pushed|opened) the door and (held a {light} into the room|lit up the corners with a {light}).
{he} ran to {pal}, {his} friend. Together they (took|lit) a {light} and opened the door.
"A {monster} would (roar|growl)," {he} told {himself}. {he} took a {light} and (stepped|looked) inside.
"The dark is only a room with the light (gone|out)," {he} thought, and {he} held up a {light}.

There was no {monster} at all. It was (only|just) {cause}!
And what did {hero} see? It was {cause}!
"Oh!" {he} said. The (terrible|awful) {monster} was (nothing but|only) {cause}.

{hero} laughed until {his} tummy hurt. Then {he} took {fetch} and (walked|hurried) back to {his} {elder}.
"(Hello there|Good evening), little {it}," said {hero}. "You gave me a (real|big) (fright|scare)." {he} took
  {fetch} and went back.
"(All that fear|I was so afraid)," said {hero}, "(and|but) it was only a {it}!" Then {he} took {fetch} and
  went back.
{he} took {fetch} and told {his} {elder} about the {it}. "(Well done|Good for you)," {call} said and gave {him} a
  (hug|warm bun).

{next_day}, {he} (went|walked) into the {dark} (without help|all alone), (humming|singing) a (song|tune).
{his} {elder} was proud. "You were afraid, and you went (all the same|anyway)," {call} said.
That night {hero} (blew out|put out) the {light} (by {himself}|without a word). The dark was (soft|quiet) and
  (kind|friendly).
(Many|Most) fears grow small when we (look at them|bring a light).
{close}
"""

PLOTS["learning something"] = """
skill + fail + tip + did: ride a bicycle + (fell|tipped) over (into the grass|into a hedge) + Look ahead, not
  at your feet + rode all the way (down the lane|around the pond) / skate + (sat down hard|slid on {his} back)
  + Bend your knees a little + skated in a (big|wide) circle / swim + swallowed (some|a lot of) water + Lie
  still first, and let the water hold you + swam (to the other side|like a fish) / whistle + blew (nothing
  but|only) air + Make your lips small and round + whistled (a whole song|like a bird) / juggle + dropped (all
  the balls|a ball on {his} nose) + Start with one ball, then take two + juggled three (balls|apples) / jump
  rope + (tripped|got caught) in the rope + Listen for the rope, then jump + jumped (twenty|thirty|a hundred)
  times / walk on stilts + fell (on {his} back|into a bush) + Take small steps and never stand still + walked
  (across the yard|up the hill) / play the flute + made a sound like a (sick goose|rusty gate) + Blow as if
  you cooled your soup + played a (sweet|soft) song / row a boat + went around in circles + Pull with both
  arms at once + rowed (across the lake|to the little island) / stand on {his} {hand}s + (fell|rolled) over +
  Keep your arms straight + stood there (and counted to ten|for a whole minute) / dance + stepped on (every foot|the
  cat) + Count to four and listen to the drum + danced (the whole song|like a leaf in the wind)

{intro}

More than anything, {he} wanted to {skill}. {his} friend {pal} could do it (well|with ease).
{one_day}, {he} saw {his} friend {pal} {skill}. "I want to do that too!" said {hero}.
All {his} friends could {skill}, but {hero} could not.( It made {him} (sad|upset|very sad).|)
"(Can|Will) you teach me to {skill}?" {he} asked {his} {elder} {one_day}.

"It looks easy," {he} thought. But the first time {he} tried, {he} {fail}.
(In the morning|Before lunch|After breakfast) {he} tried it and {fail}. (In the evening|After lunch|Later)
  {he} tried again, and it was (no better|even worse).
(On Monday {he} {fail}. On Tuesday|On the first day {he} {fail}. On the second day) it was no better.

"I will never learn it!" {he} (cried|shouted), and {he} (kicked|threw) a stone.
Some of the others laughed, and {hero} (wanted to go home|felt {his} face grow hot).
{hero} sat down (on a log|in the grass|on the ground). "I give up," {he} (said|sighed).
{he} (hid behind a tree|pulled {his} hat over {his} eyes) so that nobody could see {him} cry.

{pal}, {his} friend, sat down (next to|beside) {him}. "I tried (a hundred|fifty) times," {phe} said. "{tip}."
Then {helper_a} (stopped|came by) and (watched|nodded). "{tip}," said {helper}. "And try (once|one time) more
  than you fail."
{his} {elder} (smiled|came to {him}) and said, "(Nobody|No one) is born with it. {tip}."

So {hero} (got up|stood up) and tried again. (Every|Each) day {he} did (a little|a bit) better.
{hero} (dried|wiped) {his} eyes. {he} practiced in the morning, and {he} practiced (after supper|in the
  evening).
"(All right|Very well)," said {hero}, "(one|just one) more time." {he} remembered the (good advice|words), and
  it (helped|was not so hard).
For a (whole|long) week {he} practiced, even when it (rained|was cold).

And then, (on a (sunny|bright) morning|one fine afternoon|when {he} had almost stopped hoping|on a quiet
  Sunday), {he} {did}!
{next_day}, {his} {elder} (came|stopped) to watch. {hero} took a deep breath, and {he} {did}!
At last the day came when {he} {did}. (Nobody laughed now.|Everybody clapped.|It felt wonderful.)

"(Look at me|I can do it)!" {hero} (shouted|called), and everyone (cheered|clapped).
"I am so proud of you," said {his} {elder}. "(You did not give up|You kept trying)."
{soon}, a (small|little) {kind} came and asked, "Is it hard?" "(Yes|At first)," said {hero}. "I will (help|show) you."
(Those who keep trying|Those who do not give up) will learn in the end.
{close}
"""

PLOTS["a small animal in need"] = """
creature + trouble + bed + food: baby bird + had fallen from its nest + nest of (moss|hay) + (crumbs|seeds) /
  (tiny|lost) duckling + had lost its way + basket (full of|lined with) grass + (crumbs|bread) and
  water / young sparrow + had hurt its wing + box with a soft cloth + seeds and water / little bee + was too
  tired to fly + bed of petals + a drop of honey / butterfly + had (wet|stiff) wings + bed of (leaves|petals)
  + (sugar|honey) water / (small|little) snail + had (fallen|rolled) onto a hard stone + jar (full of|with)
  leaves + a piece of (lettuce|cabbage) / (little|small) turtle + had hurt its foot + box of sand + a piece of
  (lettuce|melon) / (little|young) swallow + was too weak to fly + basket lined with (wool|feathers) +
  (seeds|crumbs) and water
keep: keep it forever / give it a name and keep it / keep it as a pet

{intro}

{one_day}, {he} (walked|ran|strolled) to the {place}. There (was|sat) a {creature}. It {trouble}.
{one_day}, {he} was picking flowers {at} when {he} (saw|found) a {creature} that {trouble}.
After a (stormy|windy) night, {hero} went to the {place} and (saw|found) a {creature}. It {trouble}.
{one_day}, something moved {at}. {hero} (went|came) (near|close). It was a {creature} that {trouble}.

"Do not be afraid," {he} (whispered|said), and {he} (lifted|picked) it up with both {hand}s.
"You are (so small|all alone)," said {hero}, and {he} carried it home (in {his} hat|with great care).
What should {he} do? No one came to help it. So {he} took it home (gently|in {his} {hand}s).
"Look, {pal}!" {he} called. {his} friend came at once, and they took it home together.

{his} {elder} helped {him} prepare a {bed}. Then {hero} gave the {creature} {food}.
At home, {hero} prepared a {bed} (near the window|in a quiet corner|near the stove) and brought {food}.
"It needs (rest|sleep) and {food}," said {his} {elder}. So {hero} prepared a {bed}.

(Every|Each) (hour|morning) {he} looked after it. {soon}, it was (stronger|well).
All night {hero} (sat|stayed) beside it. In the morning, it was better.
Day by day, the {creature} grew (stronger|better).

"(It is time to|Now we must|Tomorrow we should) let it (go|go home)," said {his} {elder}. But {hero} wanted to
  {keep}.
{hero} wanted to {keep}. But the {creature} (always|often) (looked|turned) toward the window.
"(Can I|May I) {keep}?" asked {hero}. "Would you like to live in a (box|basket)?" {his} {elder} asked
  (gently|back).

So {hero} took it back to the {place} and (opened {his} {hand}s|set it down). {soon} it was (gone|on its way).
So {he} took it outside. "(Goodbye|Good luck), little friend," {he} said, and {he} let it go.
So {he} (brought|took) it to the place where {he} had found it. "Be (happy|careful)," {he} whispered and let
  it go.

(A week|Some days) later, the {creature} came (back to say hello|for a visit)!
{hero} was a little sad, but {he} (smiled|waved).
(To love|Loving) something can mean to let it go.
"You were (a good friend|very kind)," said {his} {elder}.
{close}
"""

PLOTS["rain spoils the plan"] = """
plan + pack: a picnic + (bread and jam|a cake and some cups|sandwiches) / a boat trip + a (map|rope) and some
  (apples|bread) / a kite day + two kites and a ball of string / a treasure hunt + a map and a small spade / a
  ball game + a (big|new) ball and some (apples|water)
bad: the rain (began to pour|came down hard|fell in sheets) / a storm (came|rolled in) / thunder (shook the
  windows|roared) and the rain came
with + game: (blankets|two sheets) and (chairs|a broom) + built a (tent|castle) (in the kitchen|under the
  table) / a (candle|lamp) and a sheet + made shadows of (birds|dogs|wolves) on the sheet / old
  (paper|letters) + folded (a fleet of|ten) little boats for the puddles / (old socks|mittens) and buttons +
  made (puppets|a puppet king) and put on a play / (pots|pans) and wooden spoons + played in a (very
  loud|grand) band / (old hats|coats) and a (curtain|sheet) + dressed up as (kings|pirates|sailors)

{intro}

For (days|a whole week), {hero} and {his} friend {pal} had planned {plan}. They had packed {pack}.
"Tomorrow we will have {plan}," {hero} told {a_pal}. They packed {pack}.
{hero} and {his} friend {pal} wanted to have {plan}. In a bag they put {pack}.

But in the morning, {bad}. The (path|garden) (turned to mud|became a river).
Just as they (opened|reached) the door, {bad}. "(Oh no|Not today)!" cried {pal}.
They had not gone (ten|twenty) steps when {bad}. Wet to the skin, they ran (back|home).

"(Our day is spoiled|Everything is spoiled)," said {hero}, and {he} (pressed {his} nose to the window|sat down
  on the floor).
{pal} (stared|looked) out of the window. "I (hate|do not like) rain," {phe} (said|grumbled).
For a (long time|while) they sat and listened to the drops. (Drip, drop, drip.|Nobody spoke.)
"(Go away, rain|Please stop)!" {hero} (shouted|called) at the sky. The sky (did not listen|only rained
  harder).

{hero} looked around and saw {with}. "I have an idea," {he} said.
"But we have {with}," said {his} {elder}. The two friends looked at each other.
{his} {elder} (brought|pointed to) {with}. "(Here is what|This is all) you need," {call} said.
{pal} opened (a|the) big chest and found {with}. "(Do you see what I see|Who needs the sun)?" {phe} asked.

They took {with}, and together they {game}.
With {with}, they {game}. They (forgot|no longer heard) the rain.
So they {game}, and {his} {elder} (laughed|clapped) (and laughed|until it was time for supper).

Later they (ate|shared) (soup|pancakes|warm bread), while the rain (sang on the roof|drummed on the glass).
"(May|Can) I play too?" asked {his} {elder}. "(Yes, come|Of course)!" said {hero}.
{pal} laughed so much that {phe} (got the hiccups|had to lie down).

When the sun came out (at last|again), {pal} told {hero}, "I wish it would rain (a little longer|some more)."
In the evening, the rain stopped. "(Tomorrow|Next time) we can have {plan}," said {hero}.
"That was better than {plan}," said {pal}, and {hero} (agreed|nodded).
"A (rainy|gray) day can be a fine day with a friend," said {hero}.
{close}
"""

PLOTS["a missing ingredient"] = """
dish + need: honey cake + honey / nut cake + nuts / apple pie + apples / carrot soup + carrots / plum cake +
  plums / mushroom soup + mushrooms / pumpkin pie + pumpkin / berry pie + berries / cherry pie + cherries /
  butter cake + butter / onion soup + onions / potato soup + potatoes
reason: had a cold / was (tired from work|tired from a long trip) / had a birthday / felt (sad|lonely)
favor + done: My wood must be carried in + carried every stick inside / My (windows|pots) are so dirty +
  cleaned them until they shone / My keys are lost + found them (under a cushion|in a boot) / My garden is so
  dry + watered every (plant|flower) / My fence is broken + held the boards until it was mended / My
  (yard|path) is full of leaves + swept the leaves into a (big|neat) heap

{intro}

{one_day}, {his} {elder} {reason}. "I will make some {dish}," (thought|said) {hero}.
{one_day}, {his} {elder} {reason}, and {hero} (decided|wanted) to make some {dish}.
{one_day}, {his} {elder} {reason}. "(Some|Some good) {dish} would help," said {hero}.

{he} took (a|the) (big|blue|deep) bowl and (looked on the shelf|went to the cupboard). But {he} (could not
  find|did not have) any {need}.
There was (salt|pepper|water) in the kitchen, but {he} (could not find|did not see) any {need}.
"First the {need}," {he} (said|hummed). But the (jar|box|basket) for the {need} was empty.

So {he} went to {helper_a} and asked, "(May|Could) I have some {need}?"
{hero} knocked at the door of {helper_a}. "Do you have any {need}?" {he} asked.
{he} went (outside|down the path) and met {helper_a}, who had (plenty of|a whole sack of) {need}.
"I have no {need}," said {pal}, {his} friend. So {hero} went to see {helper_a}.

"(Gladly|You can have some)," said {helper}, "but I need help too. {favor}." So {hero} {done}.
"{favor}," said {helper}. "(I have no time to think of {need}|Oh, what a day)." So {hero} {done}.
But {helper} looked (worried|tired). "{favor}," said {helper}. So {hero} {done}.

"Now take all the {need} you (like|want|can carry)," said {helper}. {hero} said thank you and (ran|hurried)
  home.
{helper} was so (glad|happy) that {hero} got (a basket|a bag) full of {need}.
"You are a (good|great) worker," said {helper}. "Take some {need}."

{he} (mixed|measured) and (stirred|tasted), and soon the (whole|little) house smelled (wonderful|of warm
  {dish}).
There was a (spoon|bowl) on the floor, but the {dish} was (ready|done).
{he} worked (all afternoon|until the sun was low), and the {dish} was (just right|perfect).

"For me?" asked {his} {elder}. {call} took a bite and (smiled|closed both eyes).
{his} {elder} (ate|tasted|tried) the {dish} and (felt better|smiled) at once.
"What makes it so good?" asked {his} {elder}. "{Need}," said {hero}, "and (a little|some) work."
{his} {elder} (smiled|was happy), and {helper} got some of the {dish} too.
{hero} and {his} {elder} (ate|enjoyed) the {dish} together by the (fire|window).
"This is the best {dish} I (have ever had|ever tasted)," said {his} {elder}.
"""

PLOTS["a seed"] = """
seed + plant + fruit + use: pumpkin seed + vine + a (huge|giant|round) pumpkin + made soup for the whole
  (street|family) / sunflower seed + stalk + a flower as big as a plate + shared the seeds with the birds /
  bean + vine + (fifty|a hundred) long beans + cooked a big pot of beans / melon seed + vine + a (sweet|heavy)
  melon + ate it on the steps / pea + vine + many fat pods + sat on the steps and ate sweet peas / strawberry
  seed + plant + (nine|twelve) red berries + put them on a cake
got: found a {seed} (on the path|in an old drawer|in {his} pocket) / got a {seed} from {helper_a} / traded a
  (button|marble) for a {seed}

{intro}

{one_day}, {he} {got}. "What (will|can) (come out of|grow from) this?" {he} asked.
{one_day}, {he} {got}. It was (small|tiny), (hard|plain) and not (pretty|much to look at).
{one_day}, {he} {got}. "(Plant it|Put it in the ground)," said {his} {elder}, "and you will see a wonder."

{he} dug a (small|little) hole (by the fence|near the door|behind the house) and dropped in the {seed}.
{hero} planted it (by the fence|in a sunny corner|in a pot) and gave it a (cup|drink) of water.
In the garden, {he} made a hole with {his} (finger|thumb) and put the {seed} (inside|in).
{he} covered it with (soft|dark) earth. "(Sleep well|Good night)," {he} said.

{he} waited one day, two days, three days. Nothing (happened|came up).
"(Grow|Come out)!" {he} (ordered|told) it. But the {seed} (did not listen|took its time).
Nothing came up. {pal}, {his} friend, laughed. "You are watering (mud|dirt)," {phe} said.
Nothing came up. "(A seed works in the dark|Good things need time)," said {his} {elder}.
A (fat|hungry) crow (came|hopped) near, but {hero} (chased it away|made a straw man to guard the {seed}).
Then it did not rain for (two|three) weeks, and nothing came up.

Still {hero} watered it (every|each) (day|morning) and pulled out the weeds.
{hero} did not give up. {he} gave it water and (time|patience).
{he} learned to wait and never forgot the water.
(Every|Each) evening {hero} carried water from the (well|stream).

And one (bright|quiet|fine|) morning, something green (looked|peeked) out of the earth. "It is (alive|growing)!" {hero}
  (shouted|cried).
{soon}, a green (tip|leaf) pushed up. {hero} (danced|hopped) around it (three times|with joy).
After a (warm|long) rain, there it was: a (tiny|little) green leaf.

It grew into a (strong|tall) {plant}, and by the end of summer it had {fruit}.
Week by week the {plant} grew (taller|stronger). (In the end|At last) it had {fruit}.
The {plant} grew past {his} knees, then past {his} (nose|ears). In (autumn|late summer) it had {fruit}!

{hero} and {his} {elder} {use}.
{hero} and {his} {elder} {use}. (Good|Big) things often start small( and take their time|).
{hero} and {his} {elder} {use}. "(All this|So much) from one (little|tiny) seed," said {hero}.
{hero} and {pal}, {his} friend, {use}.
"""

PLOTS["gone too far"] = """
lure: a (blue|yellow) butterfly / a (white|striped) cat / a (silver|bright) dragonfly / a balloon in the wind
  / a little (red|gold) bird / a tiny (green|brown) frog / a (gray|young) hare with one white ear
lost: in the (deep|dark) woods / in the (tall|yellow) corn / between high (rocks|hedges) / in a (wide|empty)
  field
sign + way: a bell (ringing|that rang) far away + walked toward the sound / smoke from a chimney + walked
  toward the smoke / a (little|clear) stream + followed the water down the hill / the evening star above {his}
  home + walked toward the star / a (tall|white) tower far away + kept {his} eyes on the tower / {his} own
  footprints in the mud + followed them back

{intro}

{one_day}, {he} went to the {place}. "Do not go (too far|out of sight)," said {his} {elder}.
"Be home (for|before) supper," said {his} {elder} {one_day}. {hero} (nodded|waved) and ran to the {place}.
{one_day}, while {his} {elder} was (resting|busy|talking with a friend), {hero} played {at}.

Then {he} saw {lure}. "(Wait for me|How pretty you are)!" {he} called and ran after it.
There {he} (saw|met) {lure}. {he} (followed|ran after) it, (farther and farther|on and on).
{soon}, {lure} (came by|crossed the path). {he} ran after it, over (stones|roots) and under (branches|fences).

When {he} (stopped|looked up), {he} was {lost}. (Every way looked the same.|Nothing looked as it should.)
Then it was gone, and {hero} was alone {lost}. "Which way is home?" {he} (asked|whispered).
{hero} turned around and (saw no path|could not find the path). {he} was lost {lost}.
Then it was gone, and {hero} was alone {lost}. {he} sat down and cried (a little|for a while).
Now {hero} was lost {lost}. "{Call}!" {he} called. Only (the wind|an echo) called back.
Now {hero} was lost {lost}. It grew dark and (cold|quiet).

"Running makes me more lost," {he} thought. So {he} (stood still|waited) until {he} noticed {sign}.
"(Stop|Stand still) and use your (eyes and ears|head)," {he} told {himself}. {he} did, and {he} noticed
  {sign}.
{soon}, {helper_a} came by. "(Look there|Use your eyes and ears)," said {helper}. {hero} noticed {sign}.

{he} {way}. (Step by step|Little by little), the (land|path) began to look (like home|as it should).
{he} {way}. {he} did not stop for (anything|berries or birds) now.
{hero} (jumped up|dried {his} eyes) and {way}, until {he} (saw|could see) a light in the window.

{his} {elder} was standing at the door. "(There you are|Thank goodness)!" {call} cried.
At the (gate|bridge) stood {his} {elder} and {pal}, {his} friend, with a (lantern|lamp).
{his} {elder} (ran|hurried) to meet {him} and wrapped {him} in a (warm|wool) blanket.

"I am sorry," said {hero}. "I did not look (at the path|where I was going)."
From then on, {he} (kept {his} promises|stayed close to home), even when {lure} came by.
"(Next time|Tomorrow) we will go (there|to the {place}) together," said {his} {elder}.
{he} slept (late|long) the next (day|morning), and {he} dreamed of {lure}.
{close}
"""

PLOTS["a newcomer"] = """
talent + need + save: climb like a (cat|squirrel) + the (ball|kite) got stuck in a tall tree + climbed up and
  brought it down / run as fast as the wind + a (small|little) cart rolled away down the hill + ran after it
  and stopped it / tie every kind of knot + the rope of the swing broke + tied it so well that it never broke
  again / whistle very loudly + the (sheep|geese) ran off + whistled, and they all came back / swim like a
  fish + the toy boat floated away + swam out and brought it back / mend nearly anything + the wheel of the
  wagon came off + put it back (on in no time|on with a bit of string) / see well in the dark + a
  (silver|gold) coin fell into a dark hole + found it and pulled it out
did: sat alone on the wall / stood behind a tree and watched / spoke to no one / drew in the sand all alone /
  kept far away from the others

{intro}

{one_day}, somebody new came to live {around}: {a_pal}.
That (spring|summer|autumn), {a_pal} (came to live|found a new home) {around}.
{one_day}, {hero} saw {a_pal} {at}. Nobody knew {phim} yet.

{pal} {did}. When the others (played|laughed), {phe} only looked (down|at {phis} feet).
Day after day, {pal} {did}. "{pal} is (proud|strange)," said the others.
At first {pal} {did}. "(Being new|To be new) is hard," said {his} {elder}.
{pal} {did}. "Maybe {pal} is only shy," (thought|said) {hero}.

{hero} went over and held out {his} {fine}. "(Would you like to|Do you want to) hold it?" {he} asked.
{next_day}, {hero} sat down beside {pal}. {soon}, {he} shared {his} (apple|bread) with {phim}.
{hero} (walked|went) up to {phim}. "Hello," {he} said. "I am {hero}. (What do you like to do?|Come and play
  with us.)"

{pal} (smiled|looked up) for the first time. "I was afraid you would (laugh|say no)," {phe} said.
"(Thank you,|Really?|I would love to,)" said {pal}, and {phis} face grew (red|warm).
They talked (a little|for a while). {pal} said that {phe} could {talent}.

Just then {need}! "(What now?|Oh no!)" cried the others. But {pal} {save}.
That (week|afternoon), {need}. (Nobody knew what to do|Everyone shouted at once). Then {pal} {save}.
Then it happened: {need}. {hero} looked at {pal}. "You can do it," {he} said. And {pal} {save}.

"How did you learn that?" asked {hero}. Now everyone wanted to (play|talk) with {pal}.
{hero} and the others (cheered|clapped). "{pal} can {talent}!" they (said|told each other).
"I did not know you could {talent}," said {hero}. "You never asked," said {pal}, and they both laughed.
From that day on, {hero} and {pal} were (always together|the best of friends).
{hero} and {pal} (laughed|smiled). When (another|the next) newcomer came, they were the first to say hello.
A (quiet|shy) face can hide a (warm heart|good friend). {hero} never forgot that.
{pal} and {hero} (laughed|smiled) at each other. {close}
"""


def blocks(text: str) -> list[list[str]]:
    """The lines of each block, with continued lines joined."""
    text = re.sub(r"\n +", " ", text.strip())
    return [block.splitlines() for block in text.split("\n\n")]


def entries(lines: list[str]) -> list[tuple[str, list[str]]]:
    """`key: a / b` as (key, [a, b])."""
    pairs = [line.split(": ", 1) for line in lines]
    return [(key, options.split(" / ")) for key, options in pairs]


PHRASE = dict(entry for block in blocks(PHRASES) for entry in entries(block))


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


Option = TypeVar("Option")


class Teller:
    """Makes stories. It draws from `random()` only, whose stream is the same in every version of Python."""

    def __init__(self, seed: int, phrases: dict[str, list[str]] = PHRASE) -> None:
        self.random = random.Random(seed).random
        self.phrases = phrases

    def number(self, low: int, high: int) -> int:
        """An integer from low to high; both are possible."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[Option]) -> Option:
        return options[int(self.random() * len(options))]

    def fill(self, line: str, words: dict[str, str]) -> str:
        """The line, with an alternative chosen for each (a|b) and a word inserted for each {word}."""
        while choice := re.search(r"\(([^()]*)\)", line):
            line = line[: choice.start()] + self.pick(choice[1].split("|")) + line[choice.end() :]
        while slot := re.search(r"\{(\w+)\}", line):
            key = slot[1].lower()
            word = words[key] if key in words else self.fill(self.pick(self.phrases[key]), words)
            line = line[: slot.start()] + (word if key == slot[1] else capital(word)) + line[slot.end() :]
        return line

    def draw(self, lines: list[str], words: dict[str, str]) -> None:
        """Draw a word for each key of these lines, and add it to `words`."""
        for key, options in entries(lines):
            left = list(options)
            for keys in key.split(", "):
                option = self.pick(left)
                left.remove(option)
                for name, word in zip(keys.split(" + "), option.split(" + "), strict=True):
                    words[name] = self.fill(word, words)

    def cast(self) -> dict[str, str]:
        (mine, names), (theirs, pal_names) = (SHE, NAMES_SHE), (HE, NAMES_HE)
        if self.random() < 0.5:
            (mine, names), (theirs, pal_names) = (theirs, pal_names), (mine, names)
        words = {**mine, **{"p" + key: word for key, word in theirs.items()}, "pal_child": theirs["child"]}
        words |= {"hero": self.pick(names), "pal": self.pick(pal_names)}
        world = CHILDREN if self.random() < 0.6 else ANIMALS
        self.draw(blocks(world)[0] + blocks(CAST)[0], words)
        return words

    def story(self, plot: str) -> str:
        words = self.cast()
        drawn, *beats = blocks(plot)
        self.draw(drawn, words)
        return polish(" ".join(capital(self.fill(self.pick(beat), words)) for beat in beats))


def correct_articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def polish(story: str) -> str:
    story = correct_articles(re.sub(r" +", " ", story).strip())
    return re.sub(r"(^|[.!?] |\.\" )([a-z])", lambda m: m[1] + m[2].upper(), story)


def make(seed: int = SEED, size: int = SIZE) -> str:
    """Stories until `size` bytes are reached. All plots are used once, in a random order, before any is used again."""
    teller, stories, length = Teller(seed), list[str](), 0
    to_tell: list[str] = []
    while length < size:
        to_tell = to_tell or list(PLOTS)
        title = teller.pick(to_tell)
        text = teller.story(PLOTS[title])
        story = f"{text}\n{END_OF_STORY}\n"
        if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS and story not in stories:
            to_tell.remove(title)
            stories.append(story)
            length += len(story)
    return "".join(stories)


def run(make: Callable[[int], str], shipped: Path, description: str, seed: int) -> int:
    """The command of a script whose `make(seed)` is the text of the file `shipped`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=shipped, help=f"where to write (default: data/{shipped.name})")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file differs")
    args = parser.parse_args()
    text = make(args.seed).encode("ascii")
    if not args.check:
        try:
            args.out.write_bytes(text)
        except OSError as error:
            parser.exit(2, f"{args.out}: {error.strerror}: give another --out\n")
    elif not args.out.is_file() or args.out.read_bytes() != text:
        print(f"{args.out} is not what this script makes: run it without --check", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    return run(make, SHIPPED, "Write the bundled corpus of short stories.", SEED)


if __name__ == "__main__":
    sys.exit(main())
