"""Write data/stories.txt: short children's stories, told by a seeded grammar.

How a story is put together:

1. A cast is drawn: a hero, a friend, an elder of the family, a helper, a place, a treasure. They are children,
   or animals. Hero and friend never share a pronoun, and nobody else has one, so that "he" and "she" always
   say who is meant.
2. A plot is drawn from `PLOTS`; all have their turn. Its first block draws what only this plot needs, such as
   what was broken. The blocks below, divided by empty lines, are its beats: a beginning, a problem, a turn, an end.
3. For each beat one of its lines is chosen; they are the ways to tell that beat. "-" leaves it out. In a line

       (big|small|)     is one of the alternatives, here perhaps nothing; they nest,
       {hero}           is a word drawn for this story, or a phrase of `PHRASES`, drawn afresh at each use,
       {Hero}           is the same, with a capital letter.

4. `polish` sees to "a" or "an", capitals and spaces. A story too long, too short, or too much like those already
   told is thrown away, and another is told.

A line that begins with spaces continues the line before it.
"""

import argparse
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "stories.txt"
SEED = 2024
SIZE = 1_050_000  # bytes
END_OF_STORY = "<|endoftext|>"
NOTHING = "-"  # a line of a beat that may be left out
FEWEST_WORDS, MOST_WORDS = 60, 180
MOST_TOLD_BEFORE = 0.45  # of a story's sentences

SHE = {"he": "she", "him": "her", "his": "her", "himself": "herself", "child": "girl"}
HE = {"he": "he", "him": "him", "his": "his", "himself": "himself", "child": "boy"}
NAMES_SHE = [
    "Mia", "Lily", "Anna", "Rosa", "Ella", "Nora", "Zoe", "Ruby", "Maya", "Ivy", "Clara", "Tess", "Hana",
    "Lucy", "Nina", "Wendy", "Bella", "Emma",
]
NAMES_HE = [
    "Tom", "Ben", "Max", "Sam", "Leo", "Finn", "Jack", "Omar", "Hugo", "Oscar", "Noah", "Theo", "Felix",
    "Peter", "Ravi", "Milo", "Toby", "Henry",
]

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
  ribbon / (shiny|smooth) tin cup + cup / (wooden|painted) top + top / {color} kite + kite / (straw|woven)
  basket + basket
"""

PHRASES = """
one_day: one( fine| bright| quiet| windy|) (day|morning|afternoon) / on a (warm|cool|fine|bright|lovely)
  (morning|afternoon|day)( in (spring|summer|autumn)|) / (early|late) one (morning|afternoon) / one
  (Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)( morning|)
soon: soon / after a while / before long / a little later / not long after
next_day: the next (day|morning) / (a day|two days) later / a few days later
glad: happy / glad / very happy / full of joy
sad: sad / upset / very sad / unhappy
said: said / answered / replied

intro: (Once upon a time|Long ago|Once), there (was a {trait} {kind} (named|called) {hero} who lived
  {home}|lived a {trait} {kind} (named|called) {hero}). / {hero} was a {trait} {kind} who lived {home}. / a
  {trait} {kind} (named|called) {hero} lived {home}. / {home}, there (lived|was) a {trait} {kind}
  (named|called) {hero}. / {hero} was a {trait} {kind} who (loved|liked|enjoyed) {love}. / there was once a
  {trait} {kind} (named|called) {hero}, and {he} (loved|enjoyed) {love}. / {hero}, a {trait} {kind}, lived
  {home}( and (loved|liked) {love}|). / (everyone|everybody) {around} knew {hero}, a {trait} {kind} who
  (loved|liked) {love}.
a_pal: a {pal_trait} {pal_kind} (named|called) {pal}
pal_intro: {his} best friend was {a_pal}. / {he} had a (good|dear|close) friend, {a_pal}. / next door lived
  {a_pal}, and the two friends met (every day|almost every day|after lunch|each morning). / {he}
  (often|always) (played|laughed|went for walks) with {a_pal}. / {hero} had known {pal}, a {pal_trait}
  {pal_kind}, (for years|since they were very small).
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
air: the (air|wind) smelled of (rain|honey|pine|apples|flowers), and (bees|birds|crickets)
  (hummed|sang|called) all around. / (white|little|thin) clouds (sailed|drifted|raced) (over the trees|over
  the hills|across the sky) like (sheep|ships|feathers). / the (birds|crickets) were (noisy|busy), and the sky
  was (as blue as a bell|wide and blue|almost without a cloud). / (a soft wind|a light breeze|the wind)
  (blew|played) (in the leaves|over the grass)(, and the sun was warm|). / the sun (sat|stood) (high|low) (in
  the sky|above the trees), and {hero} (hummed|sang) (a tune|to {himself}). / far away, a (dog barked|bell
  rang|rooster crowed|door closed), and then it was (still|quiet) again.
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

Of all {his} things, {he} loved {his} {fine} (best|most).( It had been a gift from {his} {elder}.|)
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
"Oh no! I have lost my {thing}!" said {hero}, and {he} (ran|hurried) to look {wrong} and {wrong2}. It was no
  use.
First {he} looked {wrong}. Then {he} looked {wrong2}. "It is gone," {he} (said|whispered) (in a small
  voice|sadly).

"Stop and think, {hero}. Where did you (see|hold|have) it last?" asked {his} {elder}. {hero} closed {his} eyes
  and (thought|remembered). "{At}, when I stopped to (rest|drink|look at a bird)!" {He} ran (back|there) at
  once.
{hero} went outside and met {helper_a}. "I saw something {look} {at} today," said {helper}. "(Look there|Try
  there)." So {hero} (ran|hurried) to the {place}.
{his} friend {pal} (came by|stopped) and said, "(Crying|Waiting|A long face) will not find (it|a {thing}).
  Let's (go back the way you came|look where you were today|try the {place})." (So they|The two friends|They)
  (walked|went|strolled) (slowly|step by step|together) to the {place}.
{his} {elder} took {him} by the {hand} and said, "(Lost things do not walk|A {thing} has no legs|It is waiting
  for you somewhere). (Let's go|Come, we will go) back and look." (Together they|The two of them|Side by side
  they) (went|walked|hurried) to the {place}.

{hero} (ran here and there|looked all around|turned around slowly), and (there it was|now {he} saw it),
  {spot}! The {thing} was (wet|dusty|a little muddy), but it was (safe|still whole|all right).
{soon}, {hero} saw something {look} {spot}. It was the {fine}!
And there, {spot}, (lay|was) the {thing}. {hero} (picked it up|held it tight|lifted it high) and
  (danced|jumped|laughed) for joy.
{hero} (looked|looked again) {spot}, and {his} heart (jumped|leaped). "Here it is!" {he} (shouted|called).

From then on, {he} (put the {thing} away|looked after the {thing}) (with care|every evening).( {close}|)
"Next time I will (think first and cry later|take better care of it|look before I (cry|shout))," said {hero}.(
  {close}|)
{he} carried the {thing} home (with both {hand}s|very carefully|like a treasure), and (it was never lost
  again|never lost it again|it stayed close to {him} after that).( {close}|)
"I will (never|not) leave you behind again," {hero} (told|whispered to) the {thing}. {close}
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

{his} {elder} had a {dear}( that was very old|) and loved it (dearly|very much). ("Please be careful near it,"
  {call} often said.|It (stood|shone) on the (table|shelf) by the window.)
On the (shelf|table) stood a {dear}. It belonged to {his} {elder}, who had kept it for many years.
There was one thing in the house {he} must not touch: the {dear} that {his} {elder} loved.
At home, {his} {elder} (kept|had) a {dear}, and {hero} had promised to be careful with it.

{one_day}, {he} was {why}. (Crash!|Bump! Crash!|Crack!) The {short} fell (to|on) the floor and broke.
{one_day}, while {he} was {why}, {he} (bumped|knocked) against the {short}. It fell and (broke|cracked) in
  (two|three).
"I will be careful," thought {hero}, but {he} was {why} when {his} (elbow|foot|{hand}) hit the {short}. Crash!

{hero} was (scared|afraid). {he} hid the pieces {hide} and (sat very still|tried to look busy|ran outside).
"Oh no," {he} whispered. Nobody had seen it, so {he} (pushed|hid) the pieces {hide}.
{his} face turned (red|white). Quickly, {he} put the broken {short} {hide} and said nothing.

At supper, {his} {elder} asked, "Where is my {short}?" {hero} (looked at|stared at) {his} plate. "Maybe
  {blame} took it," {he} said, and {his} (tummy|heart) began to (ache|hurt).
All (day|afternoon), {his} (tummy|heart) felt (heavy|cold), as if {he} had swallowed a stone. Even {his}
  (supper|soup) did not taste good.
{he} tried to (play|draw|read), but {he} could think only of the {short}. The (secret|lie) (grew|felt) bigger
  and bigger.
That night, {he} could not sleep. The (moon|stars) looked in at the window and seemed to know everything.
{his} friend {pal} came to play, but {hero} did not laugh once. "Something is (wrong|the matter)," said {pal}.
  "You should tell (someone|your {elder})."
-

At last {he} took a deep breath. "I broke your {short}," {he} said. "(I am so sorry.|It was me.)"
(In the end|Finally), {he} (fetched|brought) the pieces and (held them out|put them on the table). "I did it,"
  {he} said, and (big|hot) tears ran down {his} cheeks. "I am sorry."
{hero} ran to {his} {elder} and told the (whole|full) truth, from (beginning|start) to end.

{his} {elder} was (quiet|silent) for a moment. "A {short} can be (mended|fixed)," {call} said. "I am glad that
  you told me."
"I am (sad|sorry) about the {short}," said {his} {elder}, "but (I am proud of you|the truth is worth more than
  a {short}|you were brave to (tell me|say it))."
{his} {elder} (sighed and then smiled|gave {him} a hug). "Thank you for being (honest|brave)," {call} said.
  "Get the glue."

Together they glued the pieces. The {short} had a (crack|line) (on|down) one side, and {hero} (always|often)
  said it looked like a (river|smile|little road).
They mended it together(, piece by piece|). It was not (perfect|like new), but {hero} put a (flower|daisy)
  (beside|next to) it and felt (light|free) again.
The next day, {hero} (worked in the garden|swept the floor|washed the dishes) (to help pay for a new one|to
  make up for it), and {his} heart was (as light as a feather|light again).
All evening they worked (with glue and (string|tape)|on it side by side). "It is even (prettier|better) now,"
  said {his} {elder}. {close}

-
(A hard truth is (better|worth more) than an easy lie.|Telling the truth can be hard, but it (makes the heart
  light|helps).)
"""

PLOTS["stuck up high"] = """
toy + thing: {color} kite + kite / {color} ball + ball / (straw|{color}) hat + hat / {color} scarf + scarf /
  paper plane + plane / {color} ring + ring / toy (bird|airplane) + toy
up + far: in the top of (a tall|an old) (oak|elm|pine) + on a high branch / on the roof of the
  (barn|shed|mill) + near the chimney / on top of a (high|stone) wall + among the ivy / in a (tall|big)
  (pear|cherry) tree + between two branches
tool + act: ladder + {pal} held the ladder while {hero} climbed up, (slowly|with care) / long ladder + {hero}
  held the ladder while {pal} climbed up, (step by step|very slowly) / long stick + {hero} stood on a
  (stump|box) and (reached up|poked at it) with the stick / rake + {hero} stood on the tips of {his} toes and
  pulled with the rake / broom + {pal} stood on a (box|rock) and pushed with the broom / long pole + they
  lifted the pole together and pushed (hard|once, twice, three times)
where: beside the (barn|shed|gate) / against the fence / (in|behind) the (shed|barn) / next to the (wood
  pile|haystack)
place + at: farm + on the farm / meadow + in the meadow / hill + on the hill / orchard + in the orchard / old
  mill + at the old mill

{intro} {pal_intro}

{one_day}, {hero} and {pal} (took|carried) a {toy} to the {place}. On the way they (passed|saw) a {tool}
  {where}.
{one_day}, the two (met|played) {at} with a {toy} while somebody's {tool} (stood|lay) {where}.
{one_day}, {he} (went|walked) (with {pal} to the {place}|to the {place} with {pal}). {he} had a new {toy}, and
  {pal} had (a bag of nuts|two pears|a bit of cake). They walked by a {tool} {where}.

{air}
-
-

(They were having great fun|They played and laughed) until a (strong|sudden) (gust of wind|wind)
  (caught|carried off) the {thing}. It (landed|came down) {up}.
{hero} threw the {thing} (high|up) into the air. "Watch this!" {he} called. Up it went, and it (stayed|got
  stuck) {up}.
Then {pal} gave the {thing} a (big|mighty|hard) (throw|toss), and it (flew|sailed) up and got stuck {up}.
"(Higher|Faster)!" shouted {pal}. But the {thing} (flew|went) too high and came to rest {up}.

{hero} jumped, but {he} was too (short|small). {pal} threw (a pine cone|an apple|a small stone) at it and
  missed.
They (shook|pushed) and (jumped|shouted), but the {thing} did not (move|fall|come down).
"(It is too high|We will never reach it)," said {pal}, and {phe} sat down (in the grass|on a stone). {hero}
  did not want to give up.
{pal} stood on the shoulders of {hero}, but even that was not (high|tall) enough. They (both fell|tumbled)
  into the (grass|leaves).
"Let me try," said {hero}. {he} (climbed onto a box|climbed onto a rock) and (jumped|reached), but {his}
  {hand} touched only air.
-

Then {hero} remembered something. "The {tool}!" {he} (cried|said). "We saw it {where}!"
{pal} (scratched {phis} head|looked around). "(Was|Wasn't) there a {tool} {where}?" {phe} asked. {hero}
  (ran|went) to fetch it.
{hero} sat down to think. What (was|could be) long enough? "I know," {he} said. "We need the {tool}!"
Just then {helper_a} (came by|came along). "A good {tool} would help you," said {helper}. "There is one
  {where}."

They (carried|brought) it over. {act}. At last the {thing} came (free|loose) and (fell|dropped) (down|to the
  ground).
(It was heavy, but they|Together they) (got|dragged) it to the right place. {act}. The {thing} (wobbled|slid),
  (tipped|turned) and (fell|dropped) right (into their {hand}s|in front of their feet).
{soon} they were back with the {tool}. {act}. "(Careful|A little to the left|More, more)!" (cried|screamed) a
  (bird|crow|gull), or so it (sounded|seemed), and (down came the {thing}|the {thing} came down).

"(You did it|Hurray)!" cried {pal}. "(We did it|Both of us did)," said {hero}. They (put|took) the {tool} back
  {where} and played until (dark|sunset|supper).
{hero} and {pal} (clapped|cheered) and (danced in a circle|shook {hand}s). Then they put the {tool} back
  {where}. {home_close}
They laughed and (shared a snack|rolled in the grass). "(Next time|Tomorrow) we will play (away from|far from)
  tall things," said {hero}.
"(Thinking|A good idea|A cool head) is better than (jumping|shouting|a high jump)," said {pal}, and {phe} was
  right. {home_close}
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

{intro} {pal_intro}

{one_day}, {his} {elder} gave {him} {bag} {food}. "(Enjoy them|They are fresh)," {call} said.
{one_day}, {he} had {bag} {food}, and {he} sat down {seat} to eat them.
{hero} loved {food}. {one_day}, {he} (carried|took) {bag} {food} to the {place} and sat down {seat}.
{one_day}, {hero} (helped|worked for) {helper_a} and was given {bag} {food}.

{air}
-
-

Then {pal} came by. {pal} was hungry because {phis} {lunch} had {gone}. "(May|Could) I have a {one}?" {phe}
  asked.
{pal} (walked up|came along) (slowly|with a sad face). "My {lunch} has {gone}," {phe} said. "I have
  (nothing|not a thing) to eat."
{soon}, {pal} sat down next to {him}. "Those (look|smell) (good|wonderful)," {phe} said. "My {lunch} has
  {gone}."

"No," said {hero}. "(They are all mine|I want them all)." {pal} (looked at the ground|said nothing) and
  (walked|went) away.
{hero} held the {food} close. "There are not enough for two," {he} said, though there were (plenty|more than
  enough).
{hero} turned {his} back. "Maybe (tomorrow|later)," {he} said with a full mouth, and {pal} left
  (quietly|without a word).

{he} ate one {one}, and then another. But it was (strange|odd): without a friend, they did not taste (so|very)
  (good|sweet).
{hero} ate and ate until {his} tummy hurt. It was very quiet. There was no one to (talk|laugh) with.
A (small|little) bird dropped a crumb for another bird. {hero} watched them and (thought of {pal}|put down the
  {one}).
"(Good food|A full basket) and no friend make a poor meal," said {helper_a}, who had seen it all. {hero}
  (blushed|felt ashamed).
Then {he} remembered how {pal} had once (given {him} half of an apple|lent {him} a warm coat|helped {him} look
  for a lost shoe). {hero} stopped eating.
-

{he} jumped up and ran after {pal}. "Wait!" {he} called. "I was (wrong|selfish). Please (take|have) some
  {food}."
{hero} found {pal} {at}. "I am sorry," {he} said, and {he} (held out|offered) the {food}. "Half of them are
  yours."
So {he} hurried (to the {place}|down the path), where {pal} sat alone. "Let's (eat together|share)," said
  {hero}. "You may choose first."

They sat {seat} and counted: one for you, one for me. Now every {one} tasted (twice as good|better than the
  last).
{pal} smiled (at once|from ear to ear). "Thank you, {hero}," {phe} said. "(Tomorrow|Next time) I will bring
  (bread and cheese|something) for both of us."
The two friends (ate|shared) the {food} and told (jokes|riddles) until the sun (went down|was low).
  {home_close}
{pal} laughed so hard that a {one} fell out of {phis} {hand}, and {hero} laughed too. {home_close}
-

-
-
(Food tastes best when it is shared.|Sharing makes a little into a lot.|Two can be full of what one cannot
  finish.)
A shared {one} is (sweeter|better) than a whole (basket|bowl) alone.
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
{intro} There was (only|just) one thing {he} (feared|did not like), and that was the dark.
{intro} By day {he} was (brave|bold), but (at night|in the dark) {he} (shook|trembled) like a leaf.

One (cold|windy|rainy) evening, {his} {elder} asked {him} to fetch {fetch} from the {dark}.
One (cold|windy|rainy) night, {hero} remembered that {he} had left {fetch} in the {dark}. {he} had to go and
  get it.
One evening, {his} {elder} said, "Please (go and get|bring me) {fetch} from the {dark}." {hero} (swallowed
  hard|turned pale).

At the door of the {dark} {he} stopped. (Something|Somebody) was in there! {he} could hear (a|a soft|an odd)
  {noise} sound, as if a {monster} were (waking|at home).
The {dark} was as black as (ink|coal). From (the far|a) corner came a {noise} sound. "Who is there?" {he}
  whispered. "A {monster}?"
{hero} went to the {dark} and listened. There was a {noise} sound! "It is a {monster}," thought {hero}, and
  {his} knees (shook|went soft).

{he} wanted to run away. But then {he} thought, "What if (somebody|someone) needs (me|help)?"
{he} ran (back|away) to {pal}, {his} friend. "Let's look together," said {pal}, and {phe} (took|held) {his}
  {hand}.
"A {monster} would (roar|growl)," {he} told {himself}. "This is only a small sound." {he} (counted to
  three|took a deep breath).
{his} {elder} (gave|handed) {him} a {light}. "The dark is (only|just) a room with the light (gone|out),"
  {call} said. "Go and see."
-

With a {light} in {his} {hand}, {he} (stepped|went) inside. One step, two steps, three. The {noise} grew
  (louder|stronger).
{he} (lifted|held up) a {light} and (opened the door|looked in). (Long|Strange) shadows (danced|jumped) on the
  wall, but {hero} did not (turn back|run).
Slowly, slowly, {hero} (pushed|opened) the door and (let the light of a {light} fall in|held a {light} into
  the room|lit up the corners with a {light}).

There was no {monster} at all. It was (only|just) {cause}!
And what did {hero} see? It was {cause}! "So it was you," said {hero}, and {he} (laughed|began to laugh).
"Oh!" {he} said. The (terrible|awful) {monster} was (nothing but|only) {cause}.

{hero} laughed until {his} tummy hurt. Then {he} took {fetch} under {his} arm and (walked|hurried) back to
  {his} {elder}.
"(Hello there|Good evening), little {it}," said {hero}. "You gave me a (real|big) (fright|scare)."
"(All that fear|I was so afraid)," said {hero}, "(and|but) it was only a {it}!" {His} heart (beat|was) slow
  and (calm|steady) again.
{he} ran to tell {his} {elder} about the {it}. "(Well done|Good for you)," {call} said and gave {him} a
  (hug|warm bun).

{next_day}, {he} (went|walked) into the {dark} (without help|all alone), (humming|singing) a (song|tune).
{his} {elder} was proud. "You were afraid, and you went (all the same|anyway)," {call} said. "That is what
  brave means."
That night {hero} (blew out|put out) the {light} (by {himself}|without a word). The dark was (soft|quiet) and
  (kind|friendly).
(Many|Most) fears grow small when we (look at them|bring a light).
-
-
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
  Keep your arms straight + stood there (for|and counted to) ten / dance + stepped on (every foot|the cat) +
  Count to four and listen to the drum + danced (the whole song|like a leaf in the wind)

{intro}

More than anything, {he} wanted to {skill}. {his} friend {pal} could do it (well|with ease).
{one_day}, {he} saw {pal} {skill}. "(I want to do that too|That looks easy)!" said {hero}.
All {his} friends could {skill}, but {hero} could not.( It made {him} {sad}.|)
"(Can|Will) you teach me to {skill}?" {he} asked {his} {elder} {one_day}.

"It looks easy," {he} thought. But the first time {he} tried, {he} {fail}.
(In the morning|Before lunch|After breakfast) {he} tried it and {fail}. (In the evening|After lunch|Later)
  {he} tried again, and it was (no better|even worse).
On (Monday|the first day) {he} {fail}. On (Tuesday|the second day) it was no better.

"I will never learn it!" {he} (cried|shouted), and {he} (kicked|threw) a stone.
Some of the others laughed, and {hero} (wanted to go home|felt {his} face grow hot).
{hero} sat down (on a log|in the grass|on the ground). "I give up," {he} (said|sighed).
{he} (hid behind a tree|pulled {his} hat over {his} eyes) so that nobody could see {him} cry.
-

{pal} sat down (next to|beside) {him}. "I could not do it at first," {phe} said. "I tried (a hundred|fifty)
  times. {tip}."
Then {helper_a} (stopped|came by) and (watched|nodded). "{tip}," said {helper}. "And try (once|one time) more
  than you fail."
{his} {elder} (smiled|came to {him}) and said, "(Nobody|No one) is born with it. {tip}. (Go slowly.|You will
  see.)"

So {hero} (got up|stood up) and tried again. (Every|Each) day {he} did (a little|a bit) better.
{hero} (dried|wiped) {his} eyes. {he} (practiced|worked) in the morning, and {he} (practiced|worked) (after
  supper|in the evening).
"(All right|Very well)," said {hero}, "(one|just one) more time." {he} remembered the (good advice|words), and
  it (helped|was not so hard).
For a (whole|long) week {he} practiced, even when it (rained|was cold). It (went wrong less often|was a little
  easier|felt almost easy) now.

And then, (on a (sunny|bright) morning|one fine afternoon|when {he} had almost stopped hoping|on a quiet
  Sunday), {he} {did}!
{next_day}, {pal} (came|stopped) to watch. {hero} took a deep breath, and {he} {did}!
At last the day came when {he} {did}. (Nobody laughed now.|Everybody clapped.|It felt wonderful.)

"(Look at me|I can do it)!" {hero} (shouted|called), and {pal} (cheered|clapped).( {close}|)
"I am so proud of you," said {his} {elder}. "(You did not give up|You kept trying)."( {close}|)
{soon}, a (small|little) {kind} came and asked, "Is it hard?" "(Yes|At first)," said {hero}. "{tip}. I will
  (help|show) you."
(Those who keep trying|Those who do not give up) will learn in the end.
"(How|And how) did you do it?" asked {pal}. "I failed (ten times," said {hero}, "and tried eleven|twenty
  times," said {hero}, "and tried twenty-one)."
"""

PLOTS["a small animal in need"] = """
creature + trouble + bed + food: baby bird + had fallen from its nest + nest of (moss|hay) + (crumbs|seeds) /
  (tiny|lost) duckling + could not find its pond + basket (full of|lined with) grass + (crumbs|bread) and
  water / young sparrow + had hurt its wing + box with a soft cloth + seeds and water / little bee + was too
  tired to fly + bed of petals + a drop of honey / butterfly + had (wet|stiff) wings + bed of (leaves|petals)
  + (sugar|honey) water / (small|little) snail + had (fallen|rolled) onto the hard road + jar (full of|with)
  leaves + a piece of (lettuce|cabbage) / (little|small) turtle + lay on its back + box of sand + a piece of
  (lettuce|melon) / (little|young) swallow + was too weak to fly + basket lined with (wool|feathers) +
  (seeds|crumbs) and water
sound: a (tiny|thin|soft) (sound|noise)
keep: keep it forever / give it a name and keep it / keep it as a pet

{intro}

{one_day}, {he} (walked|ran|strolled) (home from|to) the {place} when {he} heard {sound}.
{one_day}, {he} (was picking flowers|was looking for (leaves|nuts|feathers)) {at} when something moved.
After a (stormy|windy) night, {hero} (went|walked) to the {place} to see what the wind had (done|brought).

{air}
-
-

(There|On the ground) (was|sat) a {creature}. It {trouble}.
{he} looked down and saw a {creature} that {trouble}.
Under a (bush|leaf|fern) {he} found a {creature}. The poor thing {trouble}.

"Do not be afraid," {he} (whispered|said). "I will help you." {he} (lifted|picked) it up with both {hand}s.
{hero} (knelt|bent) down. "You are (so small|all alone)," {he} said, and {he} carried it home (in {his}
  hat|with great care).
What should {he} do? {he} (looked around|waited), but no one came. So {he} took it home (gently|in {his}
  {hand}s).
"Look, {pal}!" {he} called. {pal} came at once. "We must keep it (warm|safe)," {phe} said, and they took it
  home together.

{his} {elder} helped {him} prepare a {bed}. Then {hero} gave the {creature} {food}.
At home, {hero} prepared a {bed} and put it (near the window|in a quiet corner|near the stove). {he} brought
  {food}.
"It needs (rest|sleep) and {food}," said {his} {elder}. So {hero} prepared a {bed}.

(Every|Each) (hour|morning) {he} looked after it. On the (second|third|fourth) day, the {creature}
  (moved|looked up) and (seemed|was) (stronger|well).
All night {hero} (sat|stayed) beside it and (hummed|sang) (a song|softly). In the morning, the {creature} was
  better.
Day by day, the {creature} grew (stronger|better). {hero} loved it and wanted to {keep}.

"(It is time to|Now we must|Tomorrow we should) let it (go|go home)," said {his} {elder}. {hero} was {sad},
  for {he} wanted to {keep}.
But the {creature} (always|often) (looked|turned) toward the window. "It (misses|wants) its home," said {hero}
  at last.
"(Can I|May I) {keep}?" asked {hero}. "(Would you|Do you) like to live in a (box|basket)?" {call} asked
  (gently|back).

So {hero} (took|carried) it back to the {place} and (opened {his} {hand}s|set it down). It (waited|stayed) a
  moment, and then it was (gone|on its way).
{he} took it outside, where the sun was (warm|shining). "(Goodbye|Good luck), little friend," {he} said, and
  {he} let it go.
{next_day}, {he} (brought|took) it to the place where {he} had found it. "Be (happy|careful)," {he} whispered.

(A week|Some days) later, there was {sound} (at|outside) the window. The {creature} had come (back to say
  hello|for a visit)!
{hero} was a little sad, but {he} (smiled|waved). (To love|Loving) something can mean to let it go.
"You were (a good friend|very kind)," said {his} {elder}. {close}
Every (spring|summer), {hero} looked (for it|around) {at}, and (once or twice|sometimes) {he} was sure that it
  looked back.
-
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

{intro} {pal_intro}

For (days|a whole week), {hero} and {pal} had planned {plan}. They had packed {pack}.
"Tomorrow we will have {plan}," {hero} told {pal}. They (packed|got) {pack} and (went to bed early|could
  hardly wait).
{hero} and {pal} wanted to have {plan}. In a bag they put {pack}.

But in the morning, {bad}. The (path|garden) (turned to mud|became a river).
Just as they (opened|reached) the door, {bad}. "(Oh no|Not today)!" cried {pal}.
They had not gone (ten|twenty) steps when {bad}. Wet to the skin, they ran (back|home).

"(Our day is spoiled|Everything is spoiled)," said {hero}, and {he} (pressed {his} nose to the window|sat down
  on the floor).
{pal} (stared|looked) out of the window. "I (hate|do not like) rain," {phe} (said|grumbled).
For a (long time|while) they sat and listened to the drops. (Drip, drop, drip.|Nobody spoke.)
"(Go away, rain|Please stop)!" {hero} (shouted|called) at the sky. The sky (did not listen|only rained
  harder).
-

Then {hero} looked around the room and saw {with}. {his} eyes grew (bright|wide). "I have an idea," {he} said.
"We cannot (stop|change) the rain," said {his} {elder}, "but (we have|here are) {with}." The two friends
  looked at each other.
{pal} opened (a|the) big chest and found {with}. "{hero}," {phe} said slowly, "(are you thinking what I am
  thinking|do you see what I see|who needs the sun)?"

They took {with}, and together they {game}.
With {with}, they {game}. They (forgot|no longer heard) the rain.
So they {game}, and {his} {elder} (laughed|clapped) (and laughed|until it was time for supper).

Later they sat on the floor and (ate|shared) (soup|pancakes|warm bread), while the rain (sang on the
  roof|drummed on the glass).
"(May|Can) I play too?" asked {his} {elder}. "(Yes, come|Of course)!" said {hero}, and {pal} nearly fell over
  (laughing|with laughter).
{pal} laughed so much that {phe} (got the hiccups|had to lie down), and {hero} had to (bring|fetch) {phim} a
  cup of water.
-

When the sun came out (at last|again), {pal} said to {hero}, "(Already? I wish it would|What a pity! It could)
  rain a little longer."
In the evening, a rainbow (stood|hung|shone) over the {place}. "(Tomorrow|Next time) we can have {plan}," said
  {hero}, "but I liked (today|this) too."
"That was better than {plan}," said {pal}, and {hero} (agreed|nodded). {close}
A (rainy|gray) day (is only as gray as you let it be|can be a fine day with a friend). {close}
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

{one_day}, {his} {elder} {reason}. "I will make a surprise," thought {hero}. "The best {dish} (ever|in the
  world)!"
{one_day}, {his} {elder} {reason}, and {hero} (decided|wanted) to make a {dish} all by {himself}.
{his} {elder} {reason}. "A (good|warm) {dish} would help," said {hero}, and {he} (tied|put) on an apron.

{he} took (a|the) (big|blue|deep) bowl and (looked on the shelf|went to the cupboard|began to hum). But {he}
  (could not find|did not have) any {need}.
{he} opened every (box|jar|drawer) in the kitchen. There was (flour|sugar|salt|pepper), but {he} (could not
  find|did not see) any {need}.
"First the {need}," {he} (said|hummed). But the (jar|box|basket) for the {need} was empty.

A {dish} without {need} is no {dish} at all. {hero} (took a basket|put on {his} hat) and went out.
"(No matter|Never mind)," said {hero}. "Somebody will have some {need}." {he} (ran|went) down the (road|path).
{hero} went to see {pal}, {his} friend. "I have no {need}," said {pal}, "but I know (someone|somebody) who
  does."
-

{soon}, {he} came to {helper_a}. "(May|Could) I have some {need}?" {he} asked politely.
{he} knocked at the door of {helper_a}. "(Good morning|Hello)," said {hero}. "Do you have any {need}?"
On the way to the {place}, {he} met {helper_a}, who had (plenty of|a whole sack of) {need}.

"(Gladly|I do have some)," said {helper}, "but I need help too. {favor}." So {hero} {done}.
"{favor}," said {helper}. "(I have no time to think of {need}|Oh, what a day)." {hero} did not wait. {he}
  {done}.
But {helper} looked (worried|tired). "{favor}," said {helper}. "(Let me help|I can help)," said {hero}, and
  {he} {done}.

"Now take all the {need} you (like|want|can carry)," said {helper}. {hero} (thanked {helper}|said thank you)
  and (ran|hurried) home.
{helper} was so (glad|happy) that {hero} got (a basket|a bag) full of {need} and a pat on the (back|head).
"You are a (good|great) worker," said {helper}. "Take some {need}, and more than some." {hero} (carried|took)
  the basket home as if it were (full of gold|made of glass).

{he} (mixed|measured) and (stirred|tasted), and soon the (whole|little) house smelled (wonderful|of warm
  {dish}).
There was (flour|butter|a spoon) on the floor and (flour|sugar|a bit of leaf) on {his} nose, but the {dish}
  was (ready|done).
{he} worked (all afternoon|until the sun was low). The first {dish} was burned. The (second|next) was (just
  right|perfect).

"For me?" asked {his} {elder}. {call} took a bite and (smiled|closed both eyes). "This is the best {dish} I
  (have ever had|ever tasted)."
{his} {elder} (ate|tasted|tried) the {dish} and (felt better|smiled) (at once|after one spoon). "What (is in
  it|did you put in it|makes it so good)?" {call} asked. "{Need}," said {hero}, "and (a little|some) work."
{hero} (brought|took) some of the {dish} to {helper} too, for (good things|a good meal) (should be|must be)
  (shared|passed on). {close}
They (ate|enjoyed) the {dish} together by the (fire|window). Who helps (others|a neighbor) is never (long
  without help|alone).
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

{he} dug a (small|little) hole (by the fence|near the door|behind the house), dropped in the {seed} and
  covered it with (soft|dark) earth.
{hero} planted it (by the fence|in a sunny corner|in a pot) and gave it a (cup|drink) of water. "(Sleep
  well|Good night)," {he} said.
In the garden, {he} made a hole with {his} (finger|thumb) and put the {seed} (inside|in). Then {he} (sat
  down|waited).

The next morning {he} ran outside. Nothing! The day after, there was still nothing (but earth|to see).
{he} waited one day, two days, three days. Nothing (happened|came up). "Maybe it is (asleep|broken)," {he}
  (said|sighed).
"(Grow|Come out)!" {he} (ordered|told) it. But the {seed} (did not listen|took its time).
-

{pal}, {his} friend, laughed. "You are watering (mud|dirt)," {phe} said.
{hero} wanted to dig it up and look. "(Do not|Don't)," said {his} {elder}. "(A seed works in the dark|Good
  things need time)."
A (fat|hungry) crow (came|hopped) near and looked at the spot. {hero} (chased it away|made a straw man to
  guard the {seed}).
Then it did not rain for (two|three) weeks. (Every|Each) evening {hero} carried water from the (well|stream),
  though {his} arms hurt.
-

But {hero} watered it (every|each) (day|morning) and pulled out the weeds. {he} even (sang|told stories) to
  it.
{hero} did not give up. {he} gave it water and (time|patience), and (sometimes|now and then) a (song|kind
  word).
So {he} learned to wait. {he} (counted|drew) the days on the (wall|door) and never forgot the water.

And one morning, something green (looked|peeked) out of the earth. "(It is alive|It is growing)!" {hero}
  (shouted|cried).
{soon}, a green (tip|leaf) pushed up. {hero} (danced|hopped) around it (three times|with joy).
After a (warm|long) rain, there it was: a (tiny|little) green leaf. {hero} (touched it with one finger|called
  everyone to come and see).

It grew into a (strong|tall) {plant}, and by the end of summer it had {fruit}.
Week by week the {plant} grew (taller|stronger). (In the end|At last) it had {fruit}.
The {plant} grew past {his} knees, then past {his} (nose|ears). In (autumn|late summer) it had {fruit}!

{hero} and {his} {elder} {use}. {he} kept one seed (in a little box|for next year).
{hero} called {pal}, {his} friend, and together they {use}. "I did not think that it would (grow|come up),"
  said {pal}.
{hero} and {pal} {use}. "(All this|So much) from one (little|tiny) seed," said {hero}.

(Good|Big) things often start small( and take their time|).
"(Waiting|To wait) is hard," said {hero}, "but it (tastes|feels) good (at the end|afterward)."
-
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

{one_day}, {he} (wanted to go|asked to go) to the {place}. "Do not go (too far|out of sight)," said {his}
  {elder}. "I will not," said {hero}.
"Be home (for|before) supper," said {his} {elder} {one_day}. {hero} (nodded|waved) and ran to the {place}.
{one_day}, while {his} {elder} was (resting|busy|talking with {helper_a}), {hero} played {at}.

{air}
-
-

Then {he} saw {lure}. "(Wait for me|How pretty you are)!" {he} called and ran after it.
There {he} (saw|met) {lure}. It was so (lovely|quick) that {he} (followed|ran after) it, (farther and
  farther|on and on).
{soon}, {lure} (came by|crossed the path), and {hero} forgot everything else. {he} ran over (stones|roots) and
  under (branches|fences).

When {he} (stopped|looked up), {he} was {lost}. (Every way looked the same.|Nothing looked as it should.)
Then it was gone, and {hero} was alone {lost}. "Which way is home?" {he} (asked|whispered). Nobody answered.
It got away at last. {hero} turned around and (saw no path|could not find the path). {he} was lost {lost}.

It grew dark and (cold|quiet). {his} (lip|chin) began to (shake|tremble), and {he} wished {he} had listened.
"{Call}!" {he} called. Only (the wind|an echo) called back. {he} sat down and cried (a little|for a while).
{he} went left, then right, and came back to the same (stone|spot). {his} legs were (tired|heavy) now.
{his} tummy (growled|was empty). {he} found (a nut|half a cookie) in {his} pocket and ate it slowly.
-

"Running makes me more lost," {he} thought. So {he} (stood still|sat down) (until|and waited until) {he}
  noticed {sign}.
Then {he} remembered what {his} {elder} had said: "When you are lost, (stop|stand still) and use your (eyes
  and ears|head)." {he} did, and {he} (noticed|found) {sign}.
{soon}, {helper_a} came by. "(Look there|Use your eyes and ears)," said {helper}. {hero} did, and {he}
  (noticed|found) {sign}.

{hero} {way}. (Step by step|Little by little), the (land|path) began to look (like home|as it should).
{he} {way}. {he} fell (once|twice), got up and went on. {he} did not stop for (anything|berries or birds) now.
{hero} (jumped up|dried {his} eyes) and {way}, until {he} (saw|could see) the (light|lamp) in the window at
  home.

{his} {elder} was standing at the door. "(There you are|Thank goodness)!" {call} cried, and (hugged|held)
  {him} (tight|close).
At the (gate|bridge) stood {his} {elder} and {pal} with a (lantern|lamp). They had (looked|called) for {him}
  everywhere.
{his} {elder} (ran|hurried) to meet {him} and wrapped {him} in a (warm|wool) blanket. (Nobody was angry|There
  was hot soup for everyone).

"I am sorry," said {hero}. "I (looked only at|thought only of) {lure} and not at the path."
From then on, {he} (kept {his} promises|stayed close to home), even when {lure} came by.
"(Next time|Tomorrow) we will go (there|to the {place}) together," said {his} {elder}. {close}
{he} slept (late|long) the next (day|morning), and {he} dreamed of {lure}.
"""

PLOTS["a newcomer"] = """
talent + need + save: climb like a (cat|squirrel) + the (ball|kite) got stuck in a tall tree + climbed up and
  brought it down / run as fast as the wind + a (small|little) cart rolled away down the hill + ran after it
  and stopped it / tie every kind of knot + the rope of the swing broke + tied it so well that it never broke
  again / whistle very loudly + the (sheep|geese) ran off + whistled, and they all came back / swim like a
  fish + the toy boat floated away + swam out and brought it back / mend nearly anything + the wheel of the
  wagon came off + put it back (on in no time|on with a bit of string) / see well in the dark + a
  (silver|gold) coin fell into a dark hole + saw it at once and pulled it out
did: sat alone on the wall / stood behind a tree and watched / spoke to no one / drew in the sand all alone /
  kept far away from the others

{intro}

{one_day}, somebody new came to live {around}: {a_pal}.
That (spring|summer|autumn), {a_pal} (came to live|found a new home) {around}.
{one_day}, {hero} saw {a_pal} {at}. Nobody {around} had ever seen {phim} before.

{pal} {did}. When the others (played|laughed), {phe} only looked (down|at {phis} feet).
Day after day, {pal} {did}. "{pal} is (proud|strange)," said the others. "{pal} does not like us."
At first {pal} {did}. {hero} (wondered|asked {himself}) why.

"Maybe {pal} is only shy," thought {hero}. {he} (remembered|knew) how it felt to be (new|alone).
"(Why do you not|Can you) ask {pal}?" said {his} {elder}. "A friend is often one question away."
"(Being new|To be new) is hard," said {his} {elder}. "You could be the first to (smile|say hello)." {hero}
  thought about that all night.
-

So {he} went over and held out {his} {fine}. "(Would you like to|Do you want to) play with it?" {he} asked.
The next (day|morning), {hero} sat down beside {pal} and said nothing. {soon}, {he} shared {his} (apple|bread)
  with {phim}.
{hero} (walked|went) up to {phim}. "Hello," {he} said. "I am {hero}. (What do you like to do?|Come and play
  with us.)"

{pal} (smiled|looked up) for the first time. "I (would like to|want to)," {phe} said (softly|in a low voice).
  "I was afraid you would (laugh|say no)."
"(Thank you,|Really?|I would love to,)" said {pal}, and {phis} face grew (red|warm). "Where I come from, I had
  (many friends|one good friend). Here I know nobody."
They talked (a little|for a while). {pal} said that {phe} could {talent}, but {phe} said it very
  (softly|quietly).

Just then {need}! "(What now?|Oh no!)" cried the others. But {pal} {save}.
A few days later, {need}. (Nobody knew what to do|Everyone shouted at once). Then {pal} {save}.
Then it happened: {need}. {hero} looked at {pal}. "You can do it," {he} said. And {pal} {save}.

"(How|Where) did you learn that?" asked the others. Now everyone wanted to (play|talk) with {pal}, and {hero}
  was {glad}.
Everybody (cheered|clapped). "{pal} can {talent}!" they (said|told each other). {pal} stood next to {hero} and
  (smiled|laughed).
"I did not know you could {talent}," said {hero}. "You never asked," said {pal}, and (they both|the two)
  laughed.

From that day on, {hero} and {pal} were (always together|the best of friends).
In the evening, {pal} walked home between {hero} and {helper_a}, talking (the whole way|all the time). {close}
When (another|the next) newcomer came to live {around}, {pal} and {hero} were the first to say hello.
A (quiet|shy) face can hide a (warm heart|good friend). {close}
-
"""

PLOTS["a gift"] = """
gift + from + steps: bird house + old boards + sawed and hammered / necklace + (shells|acorns) and string +
  made tiny holes and tied knots / warm scarf + (red|blue) wool + knitted row after row / picture + card and
  paint + painted and painted / little boat + a piece of wood + carved and polished / story book + paper and
  thread + wrote and drew / wooden spoon + a (birch|cherry) branch + carved and polished / paper lantern +
  paper and sticks + cut and glued
mishap + mend: {he} stepped on it in the dark + smoothed it out and tied a (ribbon|green string) around it /
  it fell into a puddle + dried it by the fire and put a (flower|leaf) on it / the (cat|goat) chewed on it +
  covered the marks with (small|tiny) stars / {he} spilled ink on it + turned the spot into a (cat|moon|whale)
shop: a (silver|gold) watch / a (fine|big) music box / a (silk|fine) hat / a (big|fancy) cake with
  (candles|roses)
dear + who: {his} {elder}, + {call} / {pal}, {his} (best|oldest) friend, + {pal}

{intro}

Soon it would be the birthday of {dear} and {hero} had (nothing|no present) to give.
{hero} wanted to buy {shop} for {dear} but {he} had only (one coin|two coins).
{one_day}, {he} saw {shop} in a shop. It would be (just right|perfect) for {dear} but it cost too much.

"Then I will make something," {he} (said|decided). {he} found {from} and began to make a {gift}.
"(The best gifts are not bought|You have two {hand}s|A gift can be made)," said {helper_a}. {hero} thought
  (about it|hard). With {from}, {he} could make a {gift}!
At home {he} found {from}. "(I can make|This will be) a {gift}," {he} said to {himself}.

In secret, {he} {steps}. When somebody (knocked|came in), {he} hid everything (under the bed|behind {his}
  back).
(Every|Each) evening {he} {steps}. {his} {hand}s (hurt|were sore), but the {gift} looked better each day.
{he} {steps}, and {he} (hummed|sang) while {he} worked. At last the {gift} was (ready|done).
-

But on the last (evening|day), {mishap}. "(It is ruined|All my work)!" {hero} cried.
Then, (one day|the night) before the birthday, {mishap}. {hero} stared at the {gift} and (felt sick|could not
  speak).
Everything went well until {mishap}. {hero} sat down next to the poor {gift} and wept.

There was no time to (start again|make another). So {he} (took a deep breath|wiped {his} nose) and {mend}.
"It can be mended," {he} told {himself} (at last|after a while), and {he} {mend}.
{hero} looked at it (for a long time|from all sides). Then {he} had an idea. {he} {mend}.

On the birthday, {he} (held out|brought) the {gift} with red cheeks. "It is not (perfect|as good as {shop}),"
  {he} (said|whispered).
The big day came. {hero} put the {gift} on the table and (looked at the floor|held {his} breath).
"(Happy birthday|This is for you)," said {hero}, and {he} (gave|handed over) the {gift}, wrapped in
  (leaves|old paper).

"You made this for me?" asked {who}. "It is (better|finer) than {shop}."
{who} looked at the {gift} and (was silent|said nothing) (for a moment|at first|for a while). "I will keep it
  (forever|always)," said {who}.
"And (this part|look at this)!" cried {who}, who (loved|liked) the mended (spot|place) best of all.

{who} gave {hero} a (big|long) hug. (Time and care|Love and work) are worth more than (gold|money).
All evening {who} (showed|proudly showed) the {gift} to (every guest|everyone). {close}
{hero} (never wished for|forgot all about) {shop} after that. {close}
"""

PLOTS["a quarrel"] = """
object + play: wagon + pull it / {color} scooter + ride on it / little drum + play it / {color} kite + fly it
  / (new|shiny) spade + dig with it / toy boat + sail it / rubber ball + throw it
alone: built a (tower|road) of stones / threw (sticks|leaves) into the water / played checkers against
  {himself} / sat on a fence and counted (clouds|birds) / told a joke to a (tree|snail)
turns: I (begin|start) today, and you (begin|start) tomorrow / We (count|sing) to twenty, and then we change /
  You go first, and then I go / We take turns, and the one who waits tells a story

{intro} {pal_intro}

{one_day}, they (found|saw) a {object} {at}. Both wanted to {play}.
{one_day}, {hero} and {pal} were {at} with a {object}. Each of them wanted to {play} first.
They shared one {object}, and {one_day} they both wanted to {play} at the same time.

{air}
-
-

"(It is mine|I saw it first)!" said {hero}. "No, (me first|it is my turn)!" said {pal}. They (pulled|shouted)
  and would not stop.
{hero} pulled on one side, and {pal} pulled on the other. "(Let go|Give it to me)!" they both (shouted|cried).
"You always go first," said {pal}. "(I do not|That is a lie)!" said {hero}, and {his} face was (red|hot) with
  anger.

"(Then|If that is so,) I do not want to play with you (anymore|again)!" cried {pal}, and {phe} (stamped|ran)
  off.
{pal} let go, and {hero} fell on {his} back. {pal} did not (laugh|say sorry). {phe} (turned away|went home)
  without a word.
"(Take it|Keep it), then!" shouted {pal}. "I will find a (better|new) friend." And off {phe} went.

Now {hero} had the {object} all to {himself}. But (it was no fun|a game for one is a dull game).
{hero} (tried to play|played) alone for a while. Then {he} {alone}. It was (very dull|not the same).
The {object} (was|lay) there, but {hero} did not (touch|want) it now. {he} {alone} and felt {sad}.
-

"Where is {pal}?" asked {helper_a}. {hero} told everything. "(Hm|I see)," said {helper}. "And is the {object}
  a good (listener|friend)?"
At supper, {hero} did not eat. "You can be right and (alone|lonely)," said {his} {elder}, "or you can (make
  peace|say sorry)."
That night {hero} thought of all the (jokes|walks|games) {he} had shared with {pal}. A {object} could not
  (laugh|talk).

{next_day}, {he} went to {pal}. "I am sorry," {he} said. "(You matter|You are) more to me than a {object}."
{he} ran all the way to {pal} and met {phim} on the road. {pal} had been on {phis} way to say sorry too!
{hero} (put|left) the {object} in front of the door of {pal} and knocked. "(You may|You can) have it," {he}
  said. "I want my friend back."

"I am sorry too," said {pal}. "(Listen|I have an idea). {turns}." (That|It) was fair, {hero} (thought|agreed).
They sat down and made a rule. "{turns}," said {hero}. They shook {hand}s on it.
{pal} (wiped {phis} nose|smiled). "{turns}," {phe} said. "(Agreed|All right)!" said {hero}.

-
And so they did. (Often|Sometimes) they even forgot whose turn it was. {home_close}
They played until (dark|supper), and nobody (pulled|shouted) anymore. (A friend is worth more than a toy.|It
  is better to share than to win.)
Two (can|friends can) have more fun with one {object} than one with two. {home_close}
"""

PLOTS["a stream to cross"] = """
bring + load: a letter + the letter / a pot of soup + the soup / a bottle of medicine + the medicine / a
  (warm|fresh) loaf of bread + the bread / a basket of eggs + the basket / a birthday cake + the cake / a jar
  of honey + the honey
flood: heavy rain had (carried|washed) away the bridge / the (old|little) bridge had broken in the storm / the
  stream was too (deep|wild) after the rain
tool + plan: a (long|fallen) log + pushed it across the water / (two|three) (long|strong) boards + laid them
  from stone to stone / a heap of flat stones + dropped them into the water, one after another / an old
  (boat|raft) without oars + pushed it along with (sticks|poles)
strain: pulled and pushed / worked until they were wet / huffed and puffed / counted to three and pushed

{intro}

{one_day}, {his} {elder} said, "Please take {bring} to {helper_a} on the other side of the stream."
{one_day}, {hero} had to take {bring} to {helper_a}, who (was ill|had hurt a foot|lived alone) on the other
  side of the stream.
"{hero}," said {his} {elder} {one_day}, "(can|could) you carry {bring} to {helper_a} across the stream?"
  "(Yes, {call}|I can)," said {hero}.

{air}
-
-

But when {he} came to the stream, {flood}. {he} (stopped|stood still). How could {he} get across?
{he} walked quickly, but at the stream {he} had to stop, for {flood}.
(Halfway|On the way) {he} heard the water roar. Then {he} saw why: {flood}.

There {he} met {a_pal}. "I want to get across too," said {pal}, "(but|only) I do not know how."
On the bank sat {a_pal}. "I have been (sitting|waiting) here since (dawn|noon)," {phe} said. "It is
  (hopeless|no use)."
"Do not try to (swim|jump)," said a voice. It was {a_pal}. "I tried, and (look at me|I almost sank)," {phe}
  said, wet from head to toe.

{hero} (threw in a stick|put one foot in the water), and the water (pulled at it|was strong). No, that was not
  the way.
They waited for the water to (fall|go down). It did not. "(Waiting will not help|We must do something)," said
  {hero}.
{pal} wanted to turn back. "(Somebody|Someone) is waiting for me," said {hero}. "I (have to|must) try."
-

{hero} looked around and saw {tool}. {he} tried it alone, but the work was too (heavy|hard) for one.
{pal} pointed to {tool}. "If I had (four|more) arms, I could use that," {phe} said. "(Together|But) we have
  four!" said {hero}.
Not far away {he} found {tool}. "One of us is too weak," said {hero}, "but two (might be enough|may do it)."

They {strain}. They {plan}, and at last they stood on the other side.
So {hero} and {pal} {plan}. They {strain}, and {load} stayed (dry|safe) the whole time.
"(Ready|Now)!" called {hero}. They {strain}. (Slowly|Bit by bit) they {plan}, and then they were across.

{helper} was so (glad|happy) about {load} that they all had to stay for (supper|tea). "You came in spite of
  the water, {hero}!" said {helper}.
"(How did you|How could you) cross?" asked {helper}. "With {tool}," said {hero}, "and with {pal}."
{soon}, {hero} knocked at the door and handed over {load}. "(Thank you|How kind), brave {kind}," said
  {helper}.

-
{hero} and {pal} walked home together and (were friends|met often) from then on. {home_close}
What one cannot (lift|do), two (can|often can). {home_close}
"Alone I was (stuck|afraid)," said {pal}. "With you it was (almost easy|an adventure)." {home_close}
"""

PLOTS["a race"] = """
prize + won: a (gold|silver) cup + the cup / a (blue|red) ribbon + the ribbon / a (big|sweet) cake + the cake
  / a new kite + the kite / a (brass|gold) medal + the medal
course: (around|twice around) the {place} / from the {place} to the (old|big) oak / from the (gate|bridge) to
  the {place} and back / up to the {place} and down again
trouble + help: had dropped a basket full of (nuts|apples|pears) + picked up every one / was stuck in deep mud
  + found a stick and pulled / had fallen into a (ditch|hole) + reached down and pulled / was caught in a
  thorny bush + pulled away the thorns, one by one / had a foot caught under a (root|rock) + dug and pushed
  until the foot was free

{intro}

{one_day}, there was a race {course}. The (winner|first one home) would get {prize}.
(Every|Each) (spring|summer) there was a race {course}. This time, the prize was {prize}.
"Who is the fastest {around}?" everyone asked. A race {course} would show it. The winner would get {prize}.

{hero} had practiced for (weeks|a month) and could already see {won} in {his} dreams.
{hero} wanted to win more than anything. "(Nobody|No one) runs as I do," {he} (said|thought).
"I will win {won}," {hero} told {his} {elder}. "Run (well|hard)," said {his} {elder}, "and keep your eyes
  open."
-

{hero} stood at the start next to {a_pal} and many others. "(Ready, set, go|One, two, three)!" (called|cried)
  a voice, and off they went.
The fastest of the others was {a_pal}. They shook {hand}s, (the drum sounded|the flag fell), and off they ran.
A (bell|drum) gave the sign. {hero} ran like the wind. Only {pal}, a {pal_trait} {pal_kind}, (was|stayed)
  close behind {him}.

{soon}, {hero} was in front. {he} could hear the (crowd|people) far away. Then {he} heard a cry for help.
Halfway, {hero} was first. But (beside the path|behind a hedge) somebody (called|cried), "Help! (Please,
  help!|Is anyone there?)"
{hero} ran faster and faster, until a (sad|weak) voice (came from|called from) the side of the path.

It was {helper_a}, who {trouble}. {hero} looked at the path, and {he} looked at {helper}.
There {he} saw {helper_a}, who {trouble}. "(But the race|And the prize)?" thought {hero}, and {his} feet
  wanted to run on.
"(Who is there?|What is it?)" {he} called. It was {helper_a}, who {trouble}.

Then {he} stopped. (A race|The prize) could wait. {he} {help}.
{hero} did not think (long|twice). {he} {help}, while one runner after another (went|raced) past.
"(Wait|Hold on), I am coming," said {hero}. {he} {help}. {pal} ran by and was gone.

When {hero} came to the end, the race was over. {pal} had won {won}.
{hero} was the last to come in, (muddy|dusty) and out of breath. {pal} was (already|just) holding {won}.
{he} came in last. "(Where were you|What happened)?" asked {pal}, who had won {won}.

But {helper} told everyone what had happened. They cheered for {hero} (louder|even more) than for the winner.
"{hero} is the (real|true) winner," said {pal} when {phe} heard the story, and {phe} gave {him} {won}.
{pal} thought for a moment. "I saw it too, and I ran on," {phe} told {hero}. "(Next time|From now on) I will
  stop, like you."

-
"You ran well," said {his} {elder}, "and you stopped even better." {close}
(Being kind|Helping) is better than being first. {close}
(Some prizes|The best prizes) cannot be (held in the {hand}|put on a shelf). {close}
"""

PLOTS["something found"] = """
found + it: a purse full of coins + purse / a silver ring + ring / a gold watch + watch / a little gold chain
  + chain / a little gold key + key / a pin with a (red|green) stone + pin / a silver spoon + spoon
wish: a new (kite|sled|drum) / a bag of (candy|sweets) / a (big|red) wagon / a pair of skates / a (toy|model)
  ship
spot: under a (bench|bush) / in the (grass|snow|sand) / between two stones / at the side of the (road|path) /
  near the (well|gate)
need: It was a gift from my mother / I have had it since I was young / It has been in my family for a hundred
  years

{intro}

{one_day}, {he} (walked|went) (home from|to) the {place} and saw something shine {spot}. It was {found}!
{one_day}, {hero} found {found} {spot}. {he} looked left and right. Nobody was there.
{hero} was playing {at} {one_day} when {he} found {found} {spot}.

{air}
-
-

"(Now|With this) I can (buy|get) {wish}!" {he} thought, and {he} put the {it} into {his} (pocket|bag|hat).
{he} thought of {wish}, which {he} had wanted for (so long|a whole year). {his} {hand} closed around the {it}.
"Finders keepers," {he} (whispered|said to {himself}). {he} could trade it for {wish}.

At home {he} (showed|told) nobody. But the {it} (felt|seemed) (heavier|colder) every hour.
{he} showed it to {pal}, {his} friend. "Somebody is looking for that," said {pal}. "(Think|Just think) how you
  would feel."
"Is that yours?" asked {his} {elder}. "(It is now|I found it)," said {hero}, but {he} did not feel {glad}.
That night {he} put the {it} under {his} pillow and slept (badly|very little). (Who had lost it?|Was somebody
  crying for it?)
-

{next_day}, {he} saw {helper_a} (walking|going) (up and down|back and forth), (looking at|searching) the
  (ground|grass|path).
{next_day}, {helper_a} was sitting {at} with a (sad|gray) face. "I have lost {found}," said {helper}.
Then {he} heard that {helper_a} had lost {found} and had been looking (all night|everywhere).

{helper} asked everyone who (passed|came by), "Have you seen it? {need}." {hero} swallowed (hard|twice).
"What did you lose?" asked {hero}, though {he} knew. "(My|A) {it}," said {helper}. "{need}."
{hero} thought of {wish}. Then {he} looked (again|once more) at the sad eyes of {helper}.

"I found it," said {hero}, and {he} held out the {it}. "I wanted to keep it. I am sorry."
{hero} (ran|went) home, (fetched|got) the {it} and gave it back. {his} heart (beat fast|felt light at once).
Slowly {he} opened {his} {hand}. "Here it is," {he} said. "I found it {spot}."

{helper} (laughed and cried at the same time|danced for joy|could hardly speak for joy). "You have (an
  honest|a good) heart, {hero}!"
"(Many|Some) would have kept it," said {helper}. "You did not. How can I thank you?"
{helper} shook {his} {hand} again and again. {hero} (blushed|did not know what to say).

A week later, a (big|heavy) box stood at the door of {hero}. In it was {wish}, and a note that said: "From a
  friend."
"(You do not have to thank me|It was nothing|I almost kept it)," said {hero}. But {helper} taught {him} a
  (song|game|riddle) that nobody else knew. {close}
{his} {elder} (kissed|hugged) {him}. "I am (prouder|more proud) of this than of any prize," {call} said.
  {close}
{hero} never got {wish}, but {he} had a new friend, and {he} slept (well|like a stone|better than ever).
"""

PLOTS["building"] = """
build + at + ruin + why + better: a sand castle + on the beach + a (big|mighty) wave rolled over it + It was
  too near the water + built it (farther away|higher up) / a tower of (stones|blocks) + in the yard + it
  leaned to one side and fell down + The bottom was too (small|thin) + made the bottom twice as wide / a dam
  of (mud|sticks) + by the stream + the water broke through + There was nothing to hold the middle + put big
  stones in the middle / a hut of (sticks|branches) + at the edge of the woods + the wind blew it over + The
  sticks were not tied + tied every stick with (strong|good) (rope|string) / a raft of old (boards|branches) +
  by the pond + it came apart in the water + The knots were too loose + (tied|made) every knot twice / a
  bridge of (twigs|boards) + over the ditch + it broke in the middle + There was nothing under the middle +
  put a strong pole under it
guest: a beetle / a family of ants / a (fat|green) frog / a (sleepy|little) (lizard|cat) / a ladybug

{intro} {pal_intro}

{one_day}, they wanted to build {build} {at}. "It will be the (biggest|best) one ever," said {pal}.
{one_day}, {hero} and {pal} were {at}. "Let's build {build}," said {hero}, and they (began|set to work) at
  once.
{one_day}, {hero} had a (plan|dream): {build}, as big as {his} own bed. {pal} wanted to help.

{air}
-
-

They (carried|dug) and (pushed|pulled) until their {hand}s were (sore|dirty). At noon it was (almost
  done|nearly finished).
{hero} gave the orders, and {pal} (did the work|brought what they needed). Then they changed places.
"A bit more here," said {hero}. "A bit less there," said {pal}. (It grew and grew.|By noon it was done.)
-

"(Look|It is wonderful)!" said {hero}. At that moment {ruin}.
Then, (just like that|without warning), {ruin}. {pal} (screamed|put {phis} {hand}s over {phis} eyes).
They were just (about to|going to) call everyone to look when {ruin}.

"All that work for nothing!" cried {pal}, and {phe} (kicked|threw down) {phis} (bucket|hat).
"It is your fault," said {pal}. "(No, it is yours|It is not)," said {hero}. They turned (their backs|away) and
  were silent.
{hero} could have cried. {pal} did cry, (but only|just) a little.
(A crow laughed|Some others laughed) at them. {hero} felt like (crying|going home).
-

{helper_a} had seen it. "(Everyone|Everybody) builds it wrong the first time," said {helper}. "(Find out|Ask
  yourselves) why it fell."
{hero} walked around (the heap|what was left) and looked (closely|hard). "I know why," {he} said. "{why}."
"(Wait|Listen)," said {pal} after a while. "{why}. We can (do better|try again)." {hero} (nodded|looked up).

(They started over|They tried again), (and this time|but now) they {better}.
So they began (again|once more). This time they {better}. It took (all afternoon|two days).
The second time was (slower|harder). They {better}, and they (helped|listened to) each other.

When it was done, they (held|both held) their breath. It stood! (The sun went down, and still it
  stood.|Nothing could harm it.)
They waited. (One minute|An hour) went by. It did not (move|break). "(Hurray|It holds)!" they (shouted|cried).
"(Now|Well), let's see," said {pal}. {phe} pushed at it with one finger, then with {phis} whole {hand}. It
  held.

{next_day}, {guest} had moved in. "(Our first guest|It likes our work)!" said {hero}. {close}
{his} {elder} came to (see|admire) it. "How did you (do|build) it?" {call} asked. "We did it wrong first,"
  said {hero}.
They gave it a flag made from {his} (old|torn) {color} shirt. {close}
A (mistake|fall) can be a good teacher. {close}
"""

PLOTS["a sleepless night"] = """
worry + morning: the first day of school + school was (more fun|far better) than {he} had feared / the
  (big|long) trip to the sea + the trip was (wonderful|full of songs) / {his} birthday + there was a cake with
  (six|seven) candles / {his} part in the play + {he} remembered every (word|line) / the swimming test + the
  water was warm, and {he} passed / the visit of {his} cousins + the cousins were (funny|friendly) / the
  spring dance + {he} danced without one wrong step
noise + truth: a tap, tap, tap at the window + a (twig|branch) that touched the glass / a creak on the stairs
  + the (old dog|cat), who could not sleep either / a long hoo, hoo + an owl on the roof / a soft scratching
  by the door + the cat, who wanted to come in / a drip, drip, drip + a drop of rain on the window sill
trick: (count|think of) your (happy|good) things, one by one / listen to your breath, in and out / think of a
  boat that rocks on a (quiet|calm) sea / give your worry a name and tell it to wait outside / walk to the
  {place} in your mind, step by step

{intro}

One (warm|cold|clear|windy) night, {he} could not sleep. {he} was thinking (about|of) {worry}, which was only
  one day away.
The (moon|big moon) was high, but {hero} was wide awake. {he} thought and thought about {worry}.
(It was late|The clock struck ten|The fire had burned down), and everybody was asleep but {hero}. Tomorrow was
  the day of {worry}.
"(Sleep|Rest) well," said {his} {elder} one (evening|night). But {hero} had {worry} on {his} mind and lay
  awake.

{he} turned to the (left|wall). {he} turned to the (right|door). The (pillow|bed) was too (hot|hard), and then
  it was too (cold|soft).
{he} counted (sheep|clouds|stars) up to (fifty|a hundred|two hundred). They (jumped|danced|ran around) and
  {he} was (still|only more) awake.
{he} drank some (water|milk). {he} (shook|turned) the pillow. {he} looked at the {fine} on the (shelf|chair).
  Nothing helped.
The (blanket|pillow) was on the floor, {his} (feet|ears) were cold, and the {fine} on the (shelf|chair) looked
  like a (bear|giant).
-

Then there was {noise}. {hero} pulled the (blanket|pillow|sheet) over {his} (head|ears|nose). But it was only
  {truth}.
What was that? {he} heard {noise}. {his} heart (beat fast|jumped|stood still). (Then {he} looked, and it|{he}
  got up to see, and it) was only {truth}.
(And to make it worse|And then|Suddenly), there was {noise}. "(Who is it|Is somebody there|Who goes there)?"
  {he} whispered. It was (only|just) {truth}.
-

{his} {elder} came in with (warm milk|a candle|a blanket) and sat down on the bed. "(What is the matter|Can
  you not sleep|Still awake)?" {call} asked.
{hero} (went|walked|crept) on bare feet to find {his} {elder}. "I (cannot sleep|am wide awake)," {he}
  (said|whispered).
"Still awake?" asked {his} {elder} at the door. {hero} (nodded|sighed). "My head is (too|so) full," {he} said.
{his} {elder} saw (the light|the candle) under {his} door. "(So late|What is it|Bad dreams), {hero}?" {call}
  asked (softly|from the door).

"What if it all goes wrong?" {he} asked. "Then I will be (there|here|with you)," said {his} {elder}. "Now
  {trick}."
"(When|Whenever) I cannot sleep, I (know|use) a trick," said {his} {elder}. "Close your eyes and {trick}."
{his} {elder} (stroked {his} head|held {his} {hand}|sat beside {him}). "A worry is always (bigger|louder) at
  night," {call} said. "(Lie down|Lie still|Breathe) and {trick}."
"It is only a worry," said {his} {elder}. "(Worries|They) (fear|hate) a quiet (mind|head). {Trick}, and it
  will (go|fly) away."

{hero} tried it. (Slowly|Little by little) {his} (arms|legs|eyes) grew heavy, and the night grew
  (soft|quiet|friendly).
{hero} began. {he} thought of {pal}, {his} friend, of the {fine} and of the {place}. Before {he} came to the
  (end|next thing), {he} was asleep.
"It does not work," said {hero} and yawned. "It (really|just) does not." And then {he} was (asleep|fast
  asleep).
"I will try it (once|for a minute)," {he} (said|whispered). {he} did not (hear|see) {his} {elder} (blow out
  the candle|leave the room|close the door).

When {he} woke up, the sun was shining(| on the {fine}| into the room). And {morning}.
In the morning, {he} felt (fresh|rested|strong). And {morning}.
The next thing {he} knew, it was morning. And what do you think? {Morning}.
{hero} (woke|rose) (early|with the birds). {he} was (a little|only a little) afraid. But {morning}.

That night, {hero} slept like a (stone|log|baby), with the {fine} beside {him}.
"(Your trick|The trick) is good," {he} told {his} {elder}. "I will teach it to my (cousin|friends|cat)."
Most (worries|fears) look smaller in the (morning|light of day).
{hero} told {pal}, {his} friend, (all|everything) about it. "I (do|did) that too," said {pal}. "It
  (helps|works)."
-
"""

PLOTS["an open gate"] = """
beasts + ate: goats + cabbages / sheep + lettuce / geese + peas / ponies + carrots / hens + seeds / pigs +
  turnips
lazy + later: {his} game was so much fun + when the game is over / {he} wanted to finish {his} book + after
  this page / there was music in the street + when I come back / {pal} called {him} to play + after we play /
  {he} was in a hurry to see the {place} + when I come home
bait: a (bucket|bowl) of (oats|corn) / a bag of apples / some salt and (bread|oats)

{intro}

It was {his} (job|task) to close the gate every (evening|time {he} went out), so that the {beasts} could not
  get out.
Every evening {he} had to feed the {beasts} and shut the gate. "(Never|Do not) forget the gate," said {his}
  {elder}.
{his} {elder} kept {beasts}, and {hero} had to look after the gate.

{one_day}, {lazy}. "I will close it {later}," {he} said and ran off.
But {one_day}, {lazy}, and {he} left the gate open. "(Only for a moment|It will be all right)," {he} thought.
{one_day}, {lazy}. {he} (saw|knew) that the gate was open. "{Later}," {he} told {himself}.

When {he} (came back|came home|returned), the gate (stood|was) (wide open|open wide), and the {beasts} were in
  the garden of {helper_a}!
{soon}, {he} heard a (shout|noise). The {beasts} were out! They ran down the (road|lane) and into the garden
  of {helper_a}.
{soon}, {helper_a} came running. "(Quick|Come), {hero}! The {beasts} are in my garden!"

They had (eaten|found) the {ate} and (stepped on|broken) the flowers. {hero} felt {his} face grow hot.
{hero} ran after them and shouted. The {beasts} only ran faster, through the {ate} and over the flowers.
What a (mess|sight)! There was hardly anything left of the {ate}.
-

"Running only scares them," said {pal}, {his} friend. "(Fetch|Get) {bait}."
Then {hero} stopped and thought. "They are always hungry," {he} said, and {he} (fetched|got) {bait}.
"(Shouting|Chasing) will not help," said {his} {elder}. "(Take|Try) {bait}, and go slowly."

{he} (shook it|held it up) and walked (slowly|backward) toward the gate. One by one, the {beasts}
  (followed|came after) {him}.
First one came, then another, and (soon|at last) all the {beasts} were walking (home|behind {him}). Click! The
  gate was shut.
It took (an hour|all evening), but at last (every one|the last) of the {beasts} was (home|inside) and the gate
  was (closed|shut).

{hero} (went|walked) to {helper} and said, "It was my fault. (I left the gate open.|I will plant new {ate}.)"
"I am sorry," said {hero}. "I said 'later', and (later was too late|then I forgot)."
"Who left the gate open?" asked {his} {elder}. {hero} could have (said nothing|blamed the wind). "(It was me|I
  did)," {he} said.

All the next (day|week), {he} (dug|worked) in the garden with {pal} and planted new {ate}. {close}
After that, {he} always closed the gate first and played (second|later).
{his} {elder} gave {him} a small bell for the gate. (Now everyone could hear it|It rang) whenever it was open.
  {close}
(Now|A minute now) is (often|sometimes) better than (later|an hour later). {close}
"""

PLOTS["a boast"] = """
deed + proof + slip + truth: jump over the (brook|ditch) with one leg + Jump, then + landed in the middle of
  the water + I have never jumped that far / climb the tallest (oak|pine) in a minute + Climb, then + got
  stuck on the third branch and could not go up or down + I have never been up there / talk to (wild
  bees|geese) + Say something to them, then + had to run from a whole cloud of them + I do not speak a word of
  it / carry a (big|full) (barrel|sack) with one {hand} + Lift it, then + fell over with the thing on top of
  {him} + I have never carried one / stand on the back of a (goat|pony) + Get up there, then + slid down into
  the mud + I have never tried it / catch a (fish|trout) with my bare {hand}s + Catch one, then + fell into
  the water with a splash + I have never caught one

{intro} {pal_intro}

{one_day}, {pal} told everyone that {phe} had (found a gold coin|seen a whale|learned a new dance). Nobody
  (looked at|listened to) {hero}. "I can {deed}!" {he} (said|cried).
{hero} liked to (make {himself} big|boast). {one_day}, {he} said to {pal}, "I can {deed}. (It is easy|I do it
  every day)."
"(My cousin|My brother) can swim to the island," said {pal} {one_day}. "(That is nothing|I can do more)," said
  {hero}. "I can {deed}."
The others were (talking|sitting) {at} {one_day}. "I can {deed}," said {hero}, and {he} knew (very well|at
  once) that it was not true.

"(Really|Is that so)?" asked {pal}, and {phis} eyes grew (big|round). The (news|story) went around
  (quickly|before noon). "{Proof}!" everyone (cried|said).
"I do not believe it," said {pal}. "{Proof}." {hero} (laughed too loudly|felt {his} ears grow hot).
{soon}, a (crowd|whole row) of friends had come to (see|watch). "{Proof}!" they (called|shouted). There was no
  way (back|out).

{hero} wanted to say no. But (the word would not come|everybody was looking), and so {he} (nodded|took off
  {his} coat).
"(Today|Now) my foot hurts," said {hero}. "(And tomorrow|And yesterday)?" asked {pal} (kindly|with a smile).
{he} thought of a (headache|sore knee), but it was too late for that.
-

{he} closed {his} eyes and tried. {he} {slip}. (For a moment|At first) nobody (spoke|said a word).
{he} took (one|a) deep breath and (began|tried). A moment later {he} {slip}.
It was over (very|quite) soon. {hero} {slip}, and a (duck|crow) (laughed|called) from somewhere.

{pal} (came|was there) (at once|in a moment) and gave {him} a dry (coat|shirt|scarf). "Are you hurt?" {phe}
  asked.
{pal} did not laugh. {phe} (ran|hurried) to (help|free) {him} and (wiped|brushed) the mud from {his}
  (face|knees).
The others laughed, but {pal} (held out|gave {him}) {phis} {hand}. "(Up you come|Come)," {phe} said.

"{truth}," said {hero}. "I (only|just) wanted you to (like|look at) me."
"I made it up," said {hero}. "{truth}. (I am sorry.|Please do not be angry.)"
{hero} (swallowed|looked at {his} feet). "{truth}," {he} said, "(and now everyone knows|and I will not say it
  again)."

"We like you (without it|as you are)," said {pal}. "(You know the best games|You are a good friend)." {hero}
  (smiled|was {glad}).
"(It was a good splash|It was a fine show)," said {pal}, and (now|then) they both (laughed|had to laugh) until
  they cried.
"I (tell|make up) such things too, (sometimes|now and then)," {pal} whispered, and {phe} (grinned|turned red).
{pal} (shook|scratched) {phis} head. "(Tell me something true|Say what you can do)," {phe} said. "I can (make
  a good soup|count to a thousand)," said {hero}.

After that, {hero} (told|said) only what was true. It was (enough|much easier to remember). {home_close}
It is better to do a little than to (say|promise) a lot.
A (big|loud) word is (quickly|soon) said, but (it can be|it is often) hard to live up to.
{home_close}
"""

PLOTS["a mix-up"] = """
bag + mine + own + theirs + other: {color} bag + (three|four) fresh fish + the fish + (dancing shoes|silk
  shoes) + the shoes / {color} basket + (bread|cheese) for supper + the food + a sleeping kitten + the kitten
  / {color} sack + (corn|seed) for the hens + the sack + (ten|twelve) wooden spoons + the spoons / {color} box
  + (eggs|nuts) for a cake + the box + a (clock|bird) made of (tin|wood) + the (clock|bird) / small {color}
  case + a warm shirt + the shirt + a (flute|trumpet) + the thing / {color} bag + (apples|pears) for a pie +
  the fruit + a heap of old letters + the letters
where: on the ferry / {at} / by the roadside / under the clock in the square / at the well

{intro}

{one_day}, {he} was on the way home with a {bag}. In it {he} had {mine}. {he} (sat down|stopped) {where} to
  rest.
{his} {elder} sent {him} to fetch {mine} {one_day}. {hero} put everything into a {bag} and (rested|waited)
  {where}.
{one_day}, {hero} carried a {bag} with {mine} inside. It was heavy, so {he} put it down {where} (for a
  moment|and watched the birds).

Next to {him}, {helper_a} was resting too. They (talked|chatted) about the weather, (said goodbye|shook
  {hand}s) and went on.
Beside {him} sat {helper_a} and yawned. {soon}, both of them (got up|stood up) and went on, each with a {bag}.
{helper_a} was there as well, with a {bag} just like it. "(We are twins|What a nice bag you have)," said
  {helper}, and both of them laughed.

At home, {hero} opened the {bag}. There was no sign of {own}. (Inside|In it) {he} found {theirs}!
"(Here it is|I am back)!" called {hero} and opened the {bag}. {his} {elder} looked inside. "(How strange|Very
  funny)," {call} said, for it held {theirs}.
But when {he} looked inside, {he} (rubbed|could not believe) {his} eyes. It held {theirs}, and nothing else.

"Somebody (took|has) my {bag}," {he} cried, "and I (took|have) the wrong one!"
"What (shall|should) I do with {theirs}?" asked {hero}. "Think of the one who is (looking for|missing)
  {other}," said {his} {elder}.
{hero} liked {other} (very much|better than {own}). But {he} knew that somebody was looking for {other} now.

{he} (closed|shut) the {bag} with care and ran back. {he} asked at every (door|corner), "Who has lost a
  {bag}?"
{his} friend {pal} helped {him} to look. "(You take the left side of the road," {phe} said, "and I take the
  right one|You look by the river," {phe} said, "and I look on the hill|You go up the road," {phe} said, "and
  I go down)."
{hero} put up a note. "(Found|Lost and found): a {bag}," it said. "(Ask for|Come to) {hero}."
So {he} walked back (the whole way|every step), holding the {bag} (tight|as if it were full of eggs).

{soon}, {helper} came (around the corner|up the road), (out of breath|red in the face), with a {bag} in one
  {hand}. They looked at each other and laughed.
And who sat {where}, looking {sad}? It was {helper}, with {mine}.
It did not take (long|very long). {helper} was (standing|waiting) {where}, asking everyone about {theirs}.

"I thought it was gone forever," said {helper}, and (hugged|kissed) the {bag}.
"I opened it (at home|without a thought)," said {helper}, "and there was {mine}! I was never so
  (surprised|puzzled)."
They traded (right away|at once). "Now (all|the world) is right again," said {helper}.

{hero} tied a {color} ribbon to the {bag} at home, so that it (could|would) never happen again. {home_close}
{his} {elder} invited {helper} to supper, and (everyone|they all) had a good laugh. {close}
"(Look|Check) first, then (carry|go)," said {hero} from then on. {home_close}
Even a mistake can (bring|make) a new friend. {home_close}
"""


def blocks(text: str) -> list[list[str]]:
    """The lines of each block, continued lines joined."""
    text = re.sub(r"\n +", " ", text.strip())
    return [block.splitlines() for block in text.split("\n\n")]


def entries(lines: list[str]) -> list[tuple[str, list[str]]]:
    """`key: a / b` as (key, [a, b])."""
    pairs = [line.split(": ", 1) for line in lines]
    return [(key, options.split(" / ")) for key, options in pairs]


PHRASE = dict(entry for block in blocks(PHRASES) for entry in entries(block))


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class Teller:
    """Tells one story after another. Only `random()` is drawn from: its stream never changes with Python."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.random() * len(options))]

    def fill(self, line: str, words: dict[str, str]) -> str:
        """The line with every (a|b) chosen and every {word} put in."""
        while choice := re.search(r"\(([^()]*)\)", line):
            line = line[: choice.start()] + self.pick(choice[1].split("|")) + line[choice.end() :]
        while slot := re.search(r"\{(\w+)\}", line):
            key = slot[1].lower()
            word = words[key] if key in words else self.fill(self.pick(PHRASE[key]), words)
            line = line[: slot.start()] + (word if key == slot[1] else capital(word)) + line[slot.end() :]
        return line

    def draw(self, lines: list[str], words: dict[str, str]) -> None:
        """Add the words that these lines name to `words`."""
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
        told = [capital(self.fill(self.pick(beat), words)) for beat in beats]
        return polish(" ".join(part for part in told if part != NOTHING))


def polish(story: str) -> str:
    story = re.sub(r" +", " ", story).strip()
    story = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", story)
    return re.sub(r"(^|[.!?] |\.\" )([a-z])", lambda m: m[1] + m[2].upper(), story)


def sentences(story: str) -> list[str]:
    return re.findall(r"\S.*?[.!?]+\"?(?= |$)", story)


def make(seed: int = SEED, size: int = SIZE) -> str:
    """Stories until `size` bytes are reached: every plot once, in a new order, then all of them again."""
    teller, told, stories, length = Teller(seed), set[str](), list[str](), 0
    to_tell: list[str] = []
    while length < size:
        to_tell = to_tell or list(PLOTS)
        title = teller.pick(to_tell)
        story = teller.story(PLOTS[title])
        parts = sentences(story)
        again = sum(part in told for part in parts)
        if FEWEST_WORDS <= len(story.split()) <= MOST_WORDS and again <= MOST_TOLD_BEFORE * len(parts):
            to_tell.remove(title)
            told.update(parts)
            stories.append(f"{story}\n{END_OF_STORY}\n")
            length += len(stories[-1])
    return "".join(stories)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the bundled corpus of short stories.")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where to write (default: data/stories.txt)")
    parser.add_argument("--seed", type=int, default=SEED)
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


if __name__ == "__main__":
    sys.exit(main())
