"""Write data/messages.tsv: short messages, spam and ham, from a grammar and a seed.

A topic is a few blocks of lines in the notation of make_stories.py; a message tells one line of each, so topics of one
block are short messages. Many topics use the words of the other side: ham that speaks of prizes, parcels, links and
money, or quotes spam to warn of it; and spam that sounds like a friend. Habits of writing (no capitals or nothing else,
no full stop, "u" for "you") fall on both sides alike.

A line of the file is the label, a tab, and the message. No message begins with a quotation mark, so that `csv` reads
the lines as they are.
"""

import re
import sys

from make_stories import DATA, NAMES_HE, NAMES_SHE, Teller, blocks, capital, correct_articles, entries, run

SHIPPED = DATA / "messages.tsv"
SEED = 7
SIZES = {"ham": 1_500, "spam": 1_400}  # messages
LONGEST = 240  # characters

# Words that any topic may use. {name} and {pal} are who reads and who writes; {other} is somebody else.
COMMON = """
elder: Mama / Papa / Grandma / Grandpa / Auntie
day, day2: Monday / Tuesday / Wednesday / Thursday / Friday / Saturday / Sunday
clock: two / three / four / five / six / seven / eight / nine
place: park / market / lake / beach / mill / bakery / book shop / farm / station / school
thing, thing2: scarf / hat / ball / blanket / kite / book / umbrella / lamp / basket / drum / coat / cup
food: bread / apples / pears / honey / butter / plums / cheese / potatoes
site: go / my / club / post / town / photo / shop / home
sum: 20 / 50 / 100 / 200 / 300 / 500
few: 2 / 3 / 4 / 5 / 6 / 10
prize: a {thing} and {sum} dollars / {sum} dollars / a trip to the sea / a basket of {food} / a new phone / a bicycle /
  a year of {food} / a week on an island
it: parcel / package / letter / box
what: card / account / bank card
ill: cold / bad tooth / bad back / weak heart / tired eyes
lost: fell into the (lake|river|sink) / is broken / was taken (at the market|on the train) / is lost
"""
PHRASES = """
hi: Hi {name}, / Hello {name}, / Hey {name}, / {name}, / Hi, / Hello, / Dear {name}, / Good morning, / (|) / (|) / (|)
soon: today / tonight / by {day} / before {clock} / this week / this evening / now
when: on {day} / at {clock} / tomorrow / after lunch / this afternoon / on {day} at {clock} / tonight
past: yesterday / last night / this morning / on {day} / last week
bye: See you {when}. / Love, {pal} / Thanks, {pal} / Thank you! / Bye, {pal} / {pal} / (|) / (|) / (|) / (|) / (|) / (|)
sign: Thank you! / {pal} / Love, {pal} / Thanks, {pal} / Your friends from the {place} / See you {when}. /
  (|) / (|) / (|)
fast: Please hurry. / Only {soon}. / It ends {soon}. / Do not wait. / Be quick. / (|) / (|) / (|) / {sign}
do: call {phone} / write to {phone} / answer YES / go to {link} / open {link} / call us {soon} / look at {link} /
  come {soon} / write back
link: {site}.example/{code}
web: {site}.example / www.{site}.example / {link} / http://{site}.example/{code}
act: Call now / Call {phone} / Call free {phone} / Call us (now|today) / Text {five} (now|today) /
  Text (YES|WIN|GO|PLAY|STAR|CASH|STOP) to {five} / Reply (YES|WIN|OK|GO) / Answer (YES|OK|GO) / Click (here|{web}) /
  Tap (here|{web}) / Go to {web} / See {web} / Order at {web} / Sign up at {web} / Write to {phone} / Visit {web} /
  Join {web}
end: . / ! / !! / (|) / (|)
stress: (today|now|tonight|this week) only / (just|only) {few} left / last (day|chance|call|hours) / limited offer /
  ends (soon|{soon}) / do not miss it / do not wait / hurry / free for you / 100% free / act fast / no risk / guaranteed
goods: phone / phones / ringtone / watch / gold / pills / tea / coat / tickets / trip / holiday / bicycle / gift card /
  camera / game / games / songs / bonus / shoes / gift / loan / credit
money: cash / money / {sum} dollars / big money / easy cash / {sum} in cash / a fortune
"""

SPAM = {}

SPAM["a prize"] = """
{hi} you have won {prize}!
(Great|Wonderful|Good) news! Your number (won|was drawn) (on {day}|in our game): {prize}.
{hi} (we are glad to tell you that|) {prize} is (waiting for you|yours).
(You are one of {few} winners|You are our winner of the week). Your prize is {prize}.
{hi} last {day} we drew the winners, and your name was (first|among them). You get {prize}.

To (get|claim|take) it, {do}. {fast}
{Do} and tell us where (you live|to send it). {fast}
We only need a small fee of {few} dollars. {Do}.
{Do} with the number {code}. {fast}
"""

SPAM["a parcel"] = """
{hi} your {it} (could not be|was not) brought {past}.
{hi} your {it} is (held|waiting) at the (station|post office).
Your {it} {code} (has no|came without a) house number.
We came with your {it} and nobody was home.

(Pay|There is) a fee of {few} dollars (first|to bring it again): {link}
{Do} and pay {few} dollars, or it goes back {soon}.
(Give|Tell) us your street and your card number at {link}.
To get it, {do} and pay the rest.
"""

SPAM["the bank"] = """
{hi} your {what} (is|was) (closed|locked|stopped) (this morning|last night|for your safety).
{hi} somebody (tried to use|used) your {what} {past}.
(This is your bank.|A word from your bank.) There is a (problem|mistake) with your {what}.
{hi} {sum} dollars left your account {past}. Was it you?

(Open|Go to) {link} and (write|give) your (name and number|secret word).
{Do} and tell us the code that we send you.
If not, {do} and (give|tell) us your number.
To open it again, {do}. {fast}
"""

SPAM["a loan"] = """
{hi} do you need (money|{sum} dollars) {soon}?
(Bad|No) luck with the bank? We (lend|give) you {sum} dollars.
{hi} we can lend you {sum} dollars {soon}, (no questions|without a paper).
The rent is late and the (pot|cupboard) is empty? We (help|lend).

You pay (nothing|not a coin) for (two|three) months. {Do}.
{Do} and have the money {soon}.
(Everybody|Everyone) gets a yes. {Do}.
Just {do}. {fast}
"""

SPAM["a sale"] = """
{hi} all (coats|hats|shoes|clocks|lamps) at half price {soon}.
Big sale! (Two|Three) {thing}s for the price of one.
We (closed|are closing) our shop. Everything must go {soon}.
{hi} only for you: a gold watch for {few} dollars.

{Do}. {fast}
Order (now|{soon}) at {link} and get a {thing} for free.
The first {few} who {do} pay nothing. {fast}
Show this message or {do}.
"""

SPAM["a cure"] = """
{hi} no more {ill}! One cup of our tea (a day|each morning) is enough.
A doctor from an island (found|tells) the secret: no {ill} (after|in) {few} days.
{hi} lose {few} pounds in {few} days and eat all you like.
Cannot sleep? Our drops (work|help) in one night.

The first box is free. {Do}.
Not in any shop! {Do}. {fast}
{Do} and pay only {few} dollars.
Ask no doctor, {do}.
"""

SPAM["easy work"] = """
{hi} (work|you can work) from home and make {sum} dollars a (day|week).
{hi} we saw your name and have (easy|good) work for you: {sum} dollars a day.
My neighbor made {sum} dollars last week (in bed|with her phone). You can too.
We need {few} people {soon}. No school, no boss, {sum} dollars a day.

{Do} and start {soon}.
You only pay {few} dollars for the papers. {Do}.
(To start|For more), {do}.
Your (first day|place) is kept for you. {Do}. {fast}
"""

SPAM["songs for the phone"] = """
{hi} a new (song|game|joke|riddle) for your phone (every|each) {day}!
Your phone can (sing|bark|laugh|ring) like a (goose|king|frog|bell).
{hi} who (thinks|dreams) of you at night? The stars (know|tell).
Somebody you know (likes|loves) you. Who can it be?

The first one is free, then {few} dollars a week. {Do}.
To (hear|know|get) it, {do}. Each call costs {few} dollars.
{Do}. To end it, write STOP.
We tell you for {few} dollars: {do}.
"""

SPAM["a friend in trouble"] = """
{hi} it is me. My phone {lost}, so write to this number (now|from now on).
{elder}, it is me! My phone {lost}. This is (a friend's|my new) number.
Hi {elder}, do you (see|know) who this is? My phone {lost}.
{hi} this is {pal}. I am at the station (far from home|in another town) and my (bag|coat) is gone.

I (must|have to) pay {sum} dollars {soon}. Can you send it (for me|to {link})? I give it back {when}.
Can you send me {sum} dollars {soon}? (Tell nobody, please|I cannot talk, only write).
Please buy (two|three) gift cards and send me the numbers. I (pay you|give it) back {when}.
I need {sum} dollars (and cannot get at my bank|for a new one). Please do not call, just send it {soon}.
"""

SPAM["a stranger who chats"] = """
{hi} is this {name}? We met at the {place} {past}.
{hi} I found your number in my old book. Are you (still|) at the {place}?
{hi} sorry, (wrong number|I wanted {other})! But you (seem|sound) kind.
Hello (dear|my friend), I saw your picture and (smiled|had to write).

I am {pal}, new in town and a bit lonely. Shall we write? I am at {link}
My uncle shows me how to make {sum} dollars from {few}. I can show you too.
I have a (good|sure) plan for money and want to share it with a friend. Write me {soon}.
Come and (talk to|see) me at {link}, I wait for you {soon}.
You are so nice! Have you {few} dollars? I (make|turn) them into {sum} for you.
"""

SPAM["the boss"] = """
{hi} are you at (work|your desk)? I (sit in|am in) a long meeting and cannot talk.
{hi} {pal} here. I need your help {soon}, (quietly|just between us).
Good morning, this is your boss. (Have you a moment|Are you there)?

Please buy {few} gift cards (for a guest|for the others) and send me the numbers.
Send {sum} dollars to (a|our) new baker {soon}: {link}. The paper comes later.
(Go|Run) to the shop and get cards for {sum} dollars. I pay you back {when}. Write me the codes.
"""

SPAM["money comes back"] = """
{hi} you paid too much (for water|for wood|last year). {sum} dollars are yours.
{hi} the (town|king|office) owes you {sum} dollars (for last year|since {day}).
An old (man|aunt|sailor) left you {sum} dollars, and you have the same name.
There was a mistake in your bill. You get {sum} dollars back.

{Do} and give us your card number.
(Fill in|Write) your name and your bank at {link}. {fast}
{Do}, or the money is lost {soon}.
First you pay {few} dollars to us. {Do}.
"""

SPAM["pass it on"] = """
Send this to {few} friends {soon} and (luck|money|love) will come to you.
{hi} {other} broke this chain and (lost a coat|broke a leg|fell into the lake) {past}. Send it on to {few} friends!
Read this! Write it to {few} people and something wonderful happens {when}.
The storm took {few} houses by the sea. {sum} children are cold.

Do not stop the chain. (It works|It is true), ask {other}!
Give {few} dollars: {do}. Pass this on.
Then {do} and see your (luck|gift).
Send it {soon}. Who stops it has bad luck for {few} years.
"""

SPAM["a question or two"] = """
{hi} how did you like the {place}? Answer {few} questions for us.
{hi} you were at our {place} (on {day}|last week). Tell us how it was.
Do you like {food}? We ask only {few} questions.
{hi} {few} questions about your phone, and a {thing} is yours.

We give you {sum} dollars for it: {do}.
Then we send you {food} for free. {Do}.
{Do}. For your gift we need only your card.
{Do}. {fast} The fee is {few} dollars.
"""

SPAM["from a stolen account"] = """
{chat}
{chat}
{hi} look what I found {past}!
(Remember|Do you remember) the {place}, {name}?

(I have|There are) more pictures at {link} {sign}
You only need your card: {link} {sign}
{Do} and see for yourself. {sign}
I (wrote|put) it all at {link}, the code is {code}. {sign}
I send it to you, just give me your number and the code that comes {soon}. {sign}
"""

SPAM["long: a letter from far away"] = """
(Dear|My dear|Good) (friend|sir|madam|{name}), I am {pal}, (a widow|a doctor|the son of a king|a lawyer) from an island.
(Dear|My dear|Good) (friend|sir|madam), I write to you because {other} says that you are kind.

My (uncle|father|husband) (died|left us) {past} and left {sum} dollars in a box at the bank.
I have {sum} pounds of gold, and nobody here whom I can trust.
The doctors give me only {few} weeks, and I want to give my money away.

(Help me to|With your name I can) bring it to your (town|bank), and half of it is yours.
You only need to send {few} dollars for the papers, and then you are rich.
(Write|Send) me your name, your street and your (card|bank) number {soon}.

(Tell nobody.|God bless you.|I wait for your answer.|)
"""

SPAM["short: call, text, click"] = """
{act}{end}
{act}{end} {Stress}{end}
{Stress}: {act}{end}
(Call|Act|Order|Reply|Join|Buy|Text us|Call us) (now|today|fast){end}
{act} (and win {money}|to win {money}|and get {money}|for {goods}|for a free {goods}){end}
{Goods}! {act}{end}
"""

SPAM["short: cash"] = """
(Win|Get|Make|Earn|Need|Want) {money}{end} {act}{end}
(Win|Get|Make|Earn|Need|Want) {money} {soon}{end} {act}{end}
{Money} for (you|nothing|everyone|all){end} {act}{end}
Double your (money|cash) {soon}{end}
(Turn|Make) {few} dollars into {sum}{end} {act}{end}
(Get|Become|Be) rich (from home|in bed|in {few} days|fast){end} {act}{end}
"""

SPAM["short: you won"] = """
You (won|have won|win|are a winner|are chosen)(|, {name})! {act}{end}
You (won|have won|win) {prize}! {act}{end}
(Congratulations|Great news|Lucky you)(|, {name})! {act}{end}
(Congratulations|Great news|Lucky you)! Your (number|name) (won|was drawn){end} {act}{end}
Your (prize|gift|bonus|reward) is (waiting|ready|here){end} {act}{end}
(Claim|Take|Get) your (prize|gift|bonus|reward|free {goods}) (now|at {web}|before {clock}){end}
"""

SPAM["short: an offer"] = """
(Free|Cheap|New) {goods}{end} {act}{end}
{Goods} at half price{end} {act}{end}
{Goods} from {few} dollars{end} {act}{end}
Hot (offer|offers|deals|prices): {goods}{end} {act}{end}
(Best|Lowest) prices for {goods}: {web}
{Goods} (today|this week) only {few} dollars{end} {Stress}{end}
Lose {few} pounds in {few} days{end} {act}{end}
(Cheap|Fast|Easy) (loans|money|credit), no questions(| asked){end} {act}{end}
"""

SPAM["short: your account"] = """
(Your {what}|{What}) is (locked|closed|stopped|blocked|on hold){end} {act}{end}
(Urgent|Warning|Last warning|Important): your {what} (ends|will close) {soon}{end} {act}{end}
Your {it} is (held|waiting|late){end} (Pay|Fee:) {few} dollars at {web}
(Confirm|Send|Give us|Check|Enter) your (card number|secret word|PIN|password|bank number|code)
  (now|at {web}|{soon}){end}
Unpaid (bill|fee|parcel): {few} dollars{end} {act}{end}
You (missed a call|have a new message|have {few} new messages) from {phone}{end} {act}{end}
"""

SPAM["short: somebody likes you"] = """
(Lonely|Alone|Bored){end} (Chat|Talk|Flirt) with (me|us|girls|boys|{other}): {act}{end}
Who (likes|loves|misses) you? {act}{end}
Somebody (likes|loves|dreams of) you{end} {act}{end}
(Meet|Find) (love|friends|a friend|somebody) {soon}{end} {act}{end}
Your stars for {day}: {act}{end}
"""

SPAM["short: an unknown friend"] = """
(Hi|Hello|Hey)(|, {name}|, dear), (do you remember me|is this you|is it you|can we meet|look at this|guess who I am)?
  {act}{end}
(Hi|Hello|Hey) {elder}, (this is|it is me,|here is) my new number{end} (Send|Lend) me {sum} dollars{end}
(Hi|Hello|Hey)(|, {name}|, dear), (send|lend|give) me {sum} dollars (now|{soon}){end}
(Thanks|Sorry)(|, {name}), (wrong number|it was not for you|I am new here){end} (Chat|Talk) with me: {act}{end}
I (saw|met|know) you at the {place}{end} {act}{end}
(See|Look at) my (pictures|photos)(|, {name}|, dear): {web}
"""

HAM = {}

HAM["meeting"] = """
{hi} (shall we|can we|do you want to) (meet|eat|go for a walk|play) {when}?
{hi} I am at the {place}. Where are you?
{hi} are you free {when}? (We go|I want to go) to the {place}.
(Let's meet|I will wait) at the {place} {when}.

Bring (your {thing}|{other} too, if you like). {bye}
I can (come|bring {food}) too. {bye}
If it rains, come to (me|us). {bye}
(Write|Call) me (if you are late|when you leave). {bye}
Say yes! {bye}
"""

HAM["running late"] = """
{hi} I am late, the (train|wagon|bus) (stopped|did not come).
Sorry! I (slept too long|lost my keys|forgot the time).
{hi} I need {few} more minutes. The (road|bridge) is closed.
{hi} we are still at the {place}, because {other} lost a {thing}.

(Start|Eat) without me. {bye}
Please wait for me. {bye}
I (run|hurry)! {bye}
Keep some {food} for me. {bye}
"""

HAM["errands"] = """
{hi} we have no {food}. (Can|Could) you (buy|bring) some {when}?
Urgent! There is no {food} and (we have guests|{other} comes) {when}.
{hi} please (get|buy) {food} and {few} pounds of flour {soon}.
The {thing} is broken. (Can|Could) you look for a new one {when}?

The money is in the (blue|tin|red) cup. {bye}
I pay you back {when}. {bye}
The shop at the {place} has it for {few} dollars. {bye}
If they have none, never mind. {bye}
Do not forget {few} eggs. {bye}
"""

HAM["thanks"] = """
{hi} thank you for the {thing}! It is (just right|so pretty|the best gift).
{hi} thank you for the gift card! I bought a {thing} with it.
Thank you for (yesterday|the {food}|your help), {name}.
{hi} the {food} tasted so good, we ate (it all|everything).

You are (too kind|a real friend). {bye}
Come and see it {when}. {bye}
{other} (wants|likes) one too. {bye}
I will (never|not) forget it. {bye}
"""

HAM["a prize at school"] = """
{hi} I won (first|second) prize in the (kite race|spelling test|boat race)! I got a {thing} and {few} dollars.
Guess what! {other} won the (game|race|big prize) on {day}, a basket of {food}.
{hi} your (cake|pie|drawing) won the prize at the {place}! They will give you a {thing} {when}.
Mama, we are the winners! {few} goals to one, and we get a (trip to the sea|free lunch).

I am so (happy|proud). {bye}
(Can|Will) you come when they (give|bring) it {when}? {bye}
We go and (get|claim) it {when}. {bye}
Call {elder} and tell (everyone|the news)! {bye}
"""

HAM["you have won (a joke)"] = """
{hi} you have won the right to wash the (dishes|pots|windows)!
Great news, you are the winner of {few} dirty socks!
{hi} a free (hug|kiss|song) is waiting for you.
Last chance! Half a (pie|cake) for the first who comes.

Claim it in the kitchen {soon}. {bye}
Your prize is at home. No fee! {bye}
Come (fast|quick), {other} wants it too. {bye}
Only {soon}, and only from your {elder}. {bye}
"""

HAM["a real new number"] = """
{hi} this is my new number, the old phone (fell into the lake|is broken|is lost).
{hi} it is {pal}. I have a new phone, so write to this number (now|from now on).
{elder}, it is me, {pal}. {other} lent me this phone, mine is (lost|at home).
{hi} {pal} here, from the (school|choir|farm). This is my number: {phone}

(Call me|Let's talk) {when} and you will hear that it is me. {bye}
I come by {when} and show you. {bye}
(Can you send me|Do you have) the number of {other}? {bye}
I am home {when}, keep me some {food}. {bye}
"""

HAM["money between friends"] = """
{hi} here are the {few} dollars I owe you. I put them under the {thing}.
{hi} you paid too much for the {food}, I give you {few} dollars back {when}.
Did you pay for the (trip|tickets|{thing})? I owe you {few} dollars.
{hi} can you lend me {few} dollars until {day}? (I forgot my bag|I want to buy {food}).

I bring it {when}. {bye}
I come by {when}, no hurry. {bye}
{other} has (paid|the rest). {bye}
Then we are even. {bye}
Give it to {other} if we do not meet. {bye}
"""

HAM["a real parcel"] = """
{hi} your {it} came {past}. I took it in for you.
{hi} the {it} from {elder} is (here|at the post office).
Your {it} (is|lies) with us next door, number {few}.
{hi} I sent you a {it} {past}. Look for it {soon}.

Come (and get it|by) when you like. {bye}
It is (heavy|big), bring the cart. {bye}
The post office is open until {clock}. {bye}
I paid the {few} dollars, you can give them to me {when}. {bye}
There is {food} in it, so open it {soon}. {bye}
"""

HAM["a real bank"] = """
{hi} I was at the bank. They (closed|stopped) my old card, the new one comes on {day}.
{hi} my card was locked, so I paid with (coins|{few} dollars from {other}).
The bank is closed {when}, we must go on {day}.
{hi} somebody took my bag, but the bank stopped the card at once.

{other} (came|went) with me. {bye}
Can you buy the {food}? {bye}
All is well, do not worry. {bye}
They were (kind|quick). {bye}
"""

HAM["a note from a shop"] = """
{hi} your {thing} is (ready|mended). Come to the {place} (by|on) {day}.
{hi} this is the (library|book shop). The book you wanted is here.
{hi} do not forget your (doctor|tooth doctor) {when}.
The {place} is closed on {day}. We open again on {day2} at {clock}.

(Call|Write to) {phone} if you cannot come. {bye}
You owe nothing. {bye}
It (costs|is) {few} dollars, you can pay when you come. {bye}
We are open until {clock}. {bye}
"""

HAM["half price at the market"] = """
{hi} they sell (coats|hats|shoes|lamps) at half price at the {place} {soon}.
{hi} the shop at the {place} closes, and everything is cheap.
Three {thing}s for the price of one at the {place}!
{hi} I saw a {thing} for {few} dollars at the {place}.

Shall I buy one for you? {bye}
Do you want to come {when}? {bye}
I got a {thing2} too. {bye}
You wanted one, so be quick! {bye}
"""

HAM["free"] = """
{hi} are you free {when}? {other} (has|got) free tickets for the (puppet play|boat trip).
{hi} the {place} is free for children on {day}.
Free kittens! Our cat has {few}, and one is (red|white|gray).
{hi} I am free {when} and have {food}.

Who wants to come? {bye}
(Call|Write) me if you want one. {bye}
It ends {soon}, so be quick. {bye}
Tell {other} too. {bye}
"""

HAM["health"] = """
{hi} I have a cold and stay in bed {soon}.
{hi} the tea (helped|was good), I slept {few} hours.
{other} fell from the ladder, but the doctor says it is not bad.
{hi} how is your (tooth|back|foot)? I think of you.

Drink (tea|milk) with honey. {bye}
Can you tell the (school|others)? {bye}
I will see the doctor {when}. {bye}
We come and see you {when}. {bye}
"""

HAM["work"] = """
{hi} I got the (job|work) at the {place}! I start on {day}.
{hi} I (can work|work) from home {when}, so we can eat together.
The baker needs {few} people {when}. It pays {few} dollars an hour.
{hi} I made {sum} dollars last week (with my pies|at the market).

You should ask there too. {bye}
Now I can pay the rent. {bye}
The boss is (kind|funny). {bye}
Ask for {other} at the {place}. {bye}
"""

HAM["a real boss"] = """
{hi} I am in a meeting until {clock}. Please open the shop without me.
{hi} {pal} here. Can you come at {clock} {when}? {other} is ill.
Good morning, the guests come at {clock}. Please (buy|bring) {food}.
{hi} please send the {few} bills to {other} {soon}.

The keys are with {other}. {bye}
I pay you (back|for it) on {day}. {bye}
Call me if (anything|something) is not clear. {bye}
Take the money from the (tin|box) and keep the paper. {bye}
"""

HAM["a link to look at"] = """
{hi} the pictures from the (picnic|trip|party) are at {link}
{hi} I wrote a (story|song) about {other}: {link}
{hi} the map for {day} is at {link}
Look at this (kitten|frog|goat): {link}

The (last|third) one is you! {bye}
You need the word {thing} to open it. {bye}
It is (so funny|very long), sorry. {bye}
Show it to {elder}. {bye}
"""

HAM["numbers and codes"] = """
{hi} the code for the gate is {code}.
{hi} the number of (the doctor|{other}|the school) is {phone}.
{hi} I need the number of the (key|house|room). Is it {code}?
{hi} our house is number {few}, behind the {place}.

Close it behind you. {bye}
Tell nobody but {other}. {bye}
Call (him|her|there) before {clock}. {bye}
(Write|Keep) it down, I always forget it. {bye}
"""

HAM["a warning"] = """
{hi} did you get a message about a (prize|parcel|gift card) too? It is not true.
{hi} {other} paid {few} dollars at {link} and got nothing.
Somebody writes in my name and asks for money. It is not me!
{hi} {elder} got a call from the bank, but it was not the bank.

Do not (answer|open it|pay). {bye}
I told {elder} too. {bye}
My number is still {phone}. {bye}
Call me before you send (money|anything). {bye}
"""

HAM["giving"] = """
{hi} the school collects coats for the people who lost a house in the storm.
{hi} we bake cakes for {other}, whose barn broke in the storm.
The children need {few} more {thing}s for the play.
{hi} we give {other} a {thing} for the birthday. It is {few} dollars for each of us.

Can you (bring|give) something {when}? {bye}
Bring it to the {place} {when}. {bye}
{other} keeps the money. {bye}
Pass it on to the others, please. {bye}
"""

HAM["sorry"] = """
{hi} I am sorry that I (shouted|laughed|forgot your birthday).
{hi} sorry about the {thing}. I will (mend it|buy a new one).
I am sorry, I cannot come {when}.
{hi} I took your {thing} by mistake.

Are we still friends? {bye}
I (bring|give) it back {when}. {bye}
I will make it good. {bye}
It was not {other}, it was me. {bye}
"""

HAM["news from home"] = """
{hi} the (hen|cat|goat) has {few} little ones!
{hi} it (rained|snowed) all night and the {place} is white.
{hi} {other} can (swim|read|ride a bicycle) now!
We are back from the sea. It was (wonderful|cold|too short).
{hi} Happy birthday! {few} years, what a number!
I dreamed of you last night. We flew over the {place}.

Come and see {when}. {bye}
{elder} sends you a (kiss|hug). {bye}
I will tell you more {when}. {bye}
How are you? {bye}
I miss you. {bye}
"""

HAM["did you get this"] = """
{hi} did you get this too? "{scam}"
{hi} (look what came|I got this one) {past}: "{scam}"
This is what {other} (got|read) {past}: "{scam}"
{hi} {other} asks what this is: "{scam}"

(It is not true|Do not answer|Do not pay). {bye}
{elder} (nearly|almost) paid! {bye}
I (laughed|did not answer). {bye}
What shall I do? {bye}
"""

HAM["short: yes and no"] = """
(OK|Okay|Yes|Sure|Fine|No|Not yet|Maybe|Great|Good idea|Of course|Got it|Done|Never mind){end}
(OK|Okay|Yes|Sure|Fine|No|Not yet|Maybe|Great|Good idea|Of course), {name}{end}
(OK|Okay|Yes|Sure|Fine|No|Maybe|Great), (see you {when}|I will|I cannot|tell {other}|thank you|thanks|later){end}
(Haha|Oh no|Oh|Wow|Hm|Aha)(|, {name}){end}
(I think so|I hope so|I do not know|I see|I know|Me too|So am I|Same here)(|, {name}){end}
"""

HAM["short: questions"] = """
Where are you(| now|, {name})?
(What|How) (about|is) (lunch|tea|{day}|the {place})?
Are you (home|there|awake|ill|ready|free|late|at the {place})(|, {name})?
(Free|Time|Ready) for (lunch|a walk|tea|a game|{food}) {when}?
(What|Who) is (it|that|this|{other})?
(When|How) (is|was) the (train|test|game|party|{place})?
Can you (buy|bring|get) (milk|{food}|my {thing}|{few} eggs)?
(Who|Did {other}) (won|win) (the game|the race|yesterday|today)?
Can I (call|text|write) you {when}?
Did you (get|see|read) my (text|message|note|{thing})?
"""

HAM["short: call and text"] = """
Call (me|me back|me later|{other}|{elder}|home|us){end}
Call (me|{other}|{elder}) (now|when you can|when you are home|{when}){end}
(Please call|Can you call) (me|{other}|{elder}|home)(|, it is urgent|, please|, {name}){end}
(Text|Write) (me|{other}|us) (when|if) you (are home|are there|can|leave|are late){end}
(Reply|Answer) when you can{end}
I (call|will call|text|write to) you (later|back|{when}){end}
(Sorry|Just) saw your (text|call|message){end}
(Missed|Saw) your call{end} I am (at work|at the {place}|in bed)
"""

HAM["short: on the way"] = """
(On|I am on) my way{end}
See you (soon|there|at {clock}|at {hour}|{when}|tomorrow)(|, {name}){end}
(I am|We are) (home|here|late|at the {place}|on the train|in the kitchen|at the door){end}
(Back|There|Home) (in {few} minutes|at {hour}|by {clock}|soon){end}
Start without me{end}
(Wait|Come|Go|Look) (for me|home|in|down|up)(|, {name}){end}
(Bus|Train) is late{end} {few} minutes
"""

HAM["short: kind words"] = """
(Thanks|Thank you|Many thanks)(|, {name}|, {elder}| for the {food}| for the {thing}| for yesterday| for the call){end}
(Happy birthday|Good luck|Good night|Good morning|Sleep well|Get well soon|Have fun)(|, {name}|, {elder}){end}
(Miss|Love) you(|, {name}|, {elder}| so much){end}
(Sorry|So sorry)(|, {name}|, my mistake|, I forgot|, I am late){end}
(Well done|Congratulations|Bravo)(|, {name}| on the new job| on the race){end}
"""

HAM["short: loud news"] = """
(I|WE|MAMA|PAPA|BEN|MIA) (WON|LOST|DID IT|PASSED|MADE IT)(|, TOM|, ANNA|, LEO)!!
(WE|I) (WON|WIN) THE (GAME|RACE|CUP|PRIZE|MATCH)!!
(IT IS|IT'S) (SNOWING|RAINING|OVER|A BOY|A GIRL|MY BIRTHDAY|HERE)!!
(WHERE ARE YOU|WHERE IS EVERYONE|WHERE IS MY COAT|WHO TOOK MY HAT|WHO IS THERE)?!
(STOP|WAIT|HURRY|COME HOME|WAKE UP|LOOK UP|CALL ME)(|, ROSA|, SAM|, ZOE)!!
(HAPPY BIRTHDAY|GOOD LUCK|WELL DONE|THANK YOU)(|, NORA|, MAX|, IVY)!!
FREE (AT LAST|TODAY|ALL DAY)! NO (SCHOOL|WORK)!
"""

HAM["short: numbers"] = """
(Train|Bus|Boat) (leaves|comes|goes) at {hour}(| from platform {few}|, not at {clock}){end}
(Room|House|Seat|Bus|Page) {code}(|, second floor|, by the {place}|, please){end}
(My|The new|{other}'s|The doctor's) number is {phone}{end}
(It|Lunch|The {thing}) (is|was|costs) {few} dollars{end}
(Code|Gate code|Key box): {code}{end}
{few} eggs, {few} pounds of flour, (milk|butter|honey) and {food}
(Meet|Lunch|Tea|Test|Game) at {hour}, (room {code}|{place}){end}
(We|They) (won|lost) {few} to 1{end}
I (have|need|owe you) {few} dollars (in cash|in coins|more){end}
"""

HAM["short: links"] = """
(Pictures|Photos|Map|List|Song|Notes) (from|of|for) (the {place}|{day}|{other}|yesterday|the trip): {web}
(Here|Look): {web}
(This|Here) is the (map|list|song|story|book|recipe) (I meant|you wanted|for {day}): {web}
(Have you seen|Did you read) this? {web}
{other} is on {web}, page {few}{end}
(Tickets|Times) are at {web}, {few} dollars each{end}
"""

HAM["long: a day"] = """
{hi} what a day! First the (train|bus) was late, then I lost my {thing}.
{hi} we came home {past}. The road was long and it (rained|snowed) all the way.
{hi} I sat in the {place} and thought of you.
{hi} you asked how it goes. {other} has a new job, and I have {few} new (hens|books|friends).

At the {place} I met {other}, who (sends you a hug|asked about you|talked for an hour).
Then {other} won a {thing} in a game and gave it to me for free.
We ate {food}, and {elder} told us (of the old days|how they met).
The shop had everything at half price, so I bought a {thing2}. It was only {few} dollars.
My phone is nearly empty, so I write this in a hurry.

(Tomorrow|On {day}) we want to go to the {place}, if it is dry.
I call you {when} and tell you the rest.
Write soon and tell me (how you are|what you need|all the news).
If you can, bring {food} and your {thing2} {when}.

{bye}
"""

HAM["long: a plan"] = """
{hi} this is the plan for {day}:
{hi} please read this before {day}.
{hi} {other} asked me to write to everyone.

we meet at {hour} at the {place} and take the {clock} (train|bus).
the party begins at {hour}. Come to the back door, number {few}.
{other} brings {food}, you bring {food}, and I pay for the tickets.
the tickets are {few} dollars, children are free, and the map is at {link}.

If you cannot come, call {other} at {phone}, or text me.
(Take|Bring) a coat and good shoes, the {place} is cold at night.
We are back before {clock}. Do not be late!
The code for the gate is {code}, but tell nobody.

{bye}
"""

TOPICS = {"spam": SPAM, "ham": HAM}
BEATS = {label: [blocks(topic) for topic in topics.values()] for label, topics in TOPICS.items()}
PHRASE = dict(entry for block in blocks(PHRASES) for entry in entries(block))
# A whole spam message, and how a friend begins: each side has a topic that quotes the other.
PHRASE["scam"] = [
    re.sub(r"\{hi\} | \{fast\}| \{sign\}", "", f"{offer} {pitch}")
    for offers, *more in BEATS["spam"]
    if len(more) == 1
    for offer in offers
    for pitch in more[0]
    if "{chat}" not in offer
]
PHRASE["chat"] = [line for lines, *more in BEATS["ham"] if len(more) == 1 for line in lines if "{scam}" not in line]


class Writer(Teller):
    """Writes messages, as `Teller` tells stories."""

    def message(self, beats: list[list[str]]) -> str:
        names = list(NAMES_SHE + NAMES_HE)
        words = {}
        for key in ("name", "pal", "other"):
            words[key] = self.pick(names)
            names.remove(words[key])
        words |= {"phone": self.phone(), "code": str(self.number(100, 999)), "five": str(self.number(60_000, 89_999))}
        words["hour"] = str(self.number(1, 12)) + self.pick(["", " o'clock", ".15", ".30", ":45", " pm", "am"])
        self.draw(blocks(COMMON)[0], words)
        text = " ".join(capital(self.fill(self.pick(beat), words)) for beat in beats)
        return self.habits(tidy(text))

    def phone(self) -> str:
        """A number that nobody has."""
        end = f"01{self.number(10, 99)}"
        return self.pick([f"555-{end}", f"555-{end}", f"555{end}", f"555 {end}", f"0800 555 {end}", f"0800555{end}"])

    def habits(self, text: str) -> str:
        if self.random() < 0.15:
            text = text.lower()
        elif self.random() < 0.03:
            text = text.upper()
        if self.random() < 0.15:
            text = text.rstrip(".")
        if self.random() < 0.1:
            text = text.replace(" you ", " u ").replace(" are ", " r ")
        if self.random() < 0.1:
            text = text.replace("!", "!!")
        return text


def tidy(text: str) -> str:
    text = correct_articles(re.sub(r" +", " ", text).strip())
    return re.sub(r"(^|[.!?] |[:?] \")([a-z])", lambda m: m[1] + m[2].upper(), text)


def letters(text: str) -> str:
    """What two messages have in common that differ only in numbers and signs: they count as the same."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def make_rows(seed: int, sizes: dict[str, int]) -> list[tuple[str, str]]:
    """(label, message) of each."""
    writer = Writer(seed, PHRASE)
    made: dict[str, str] = {}  # message → label
    seen = set()
    for label, size in sizes.items():
        topics: list[list[list[str]]] = []
        left = size
        while left:
            topics = topics or list(BEATS[label])
            topic = writer.pick(topics)
            text = writer.message(topic)
            if len(text) <= LONGEST and letters(text) not in seen:
                seen.add(letters(text))
                topics.remove(topic)
                made[text] = label
                left -= 1
    order = sorted(made, key=lambda text: writer.random())
    return [(made[text], text) for text in order]


def make(seed: int = SEED, sizes: dict[str, int] = SIZES) -> str:
    return "".join(f"{label}\t{text}\n" for label, text in make_rows(seed, sizes))


if __name__ == "__main__":
    sys.exit(run(make, SHIPPED, "Write the bundled messages.", SEED))
