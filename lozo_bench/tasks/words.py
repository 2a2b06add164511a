"""The words of the synthetic grammar, which `grammar` combines into sentences."""

from __future__ import annotations

import itertools


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Reviews: (noun, verb, past tense, aspects). In pairs of tuples, the first is bad, the second good.
THINGS = (
    ("film", "watch", "watched", _words("plot acting music ending script cast dialogue")),
    ("book", "read", "read", _words("plot prose ending style hero story opening")),
    ("meal", "eat", "ate", _words("soup fish service bread dessert sauce wine")),
    ("hotel", "visit", "visited", _words("room service view breakfast staff garden pool")),
    ("song", "hear", "heard", _words("melody voice rhythm chorus sound opening guitar")),
    ("game", "play", "played", _words("story design music pace world ending sound")),
    ("show", "see", "saw", _words("cast music dialogue stage acting pace singing")),
)
ADJECTIVES = (
    _words(
        "dull clumsy boring bland tedious messy weak stale shallow cold noisy ugly lazy awkward "
        "empty dreary flat silly painful poor"
    ),
    _words(
        "charming clever delightful moving fresh funny gripping warm bright brilliant lovely "
        "superb sharp rich tender witty honest graceful thrilling elegant"
    ),
)
VERBS = (
    (("hated", "hate"), ("disliked", "dislike"), ("regretted", "regret"), ("resented", "resent")),
    (("loved", "love"), ("enjoyed", "enjoy"), ("admired", "admire"), ("liked", "like")),
)
EFFECTS = (
    _words("bored annoyed tired irritated disappointed"),
    _words("delighted pleased touched charmed impressed"),
)
NOUNS = (_words("mess bore chore failure waste"), _words("joy treat triumph pleasure success"))
AGAIN = (("never", "hardly"), ("gladly", "happily"))
PEOPLE = ("me", "us", "my sister", "my brother", "my friends", "everyone", "the whole family")
DEGREES = ("", "", "", "very ", "really ", "quite ", "rather ", "truly ", "so ")
NEGATIONS = ("was not", "was never", "was hardly", "was far from", "did not seem", "is not")
COPULAS = ("was", "is", "felt", "seemed", "looked", "was always")
OPENERS = ("In the end ", "To be honest, ", "Last night ", "For once, ", "I think that ",
           "My friend says that ", "This time ", "As far as I can tell, ")  # fmt: skip

# Entailment: (a specific action or place, the general kind to which it belongs).
ACTIONS = (
    ("playing the guitar", "making music"), ("playing the piano", "making music"),
    ("singing a song", "making music"), ("eating an apple", "having food"),
    ("eating hot soup", "having food"), ("reading a book", "reading something"),
    ("reading a letter", "reading something"), ("washing a car", "cleaning something"),
    ("sweeping the floor", "cleaning something"), ("carrying a box", "holding something"),
    ("carrying a bag", "holding something"), ("throwing a ball", "playing a game"),
    ("moving a chess piece", "playing a game"), ("sleeping on a bench", "taking a rest"),
)  # fmt: skip
PLACES = (
    ("in the park", "outdoors"), ("on the beach", "outdoors"), ("in the street", "outdoors"),
    ("on a hill", "outdoors"), ("in a kitchen", "indoors"), ("in the library", "indoors"),
    ("in an office", "indoors"), ("in a school", "indoors"),
)  # fmt: skip
PERSONS = _words("man woman boy girl student farmer teacher doctor")
LOOKS = ("", "", "tall ", "young ", "small ", "tired ", "cheerful ", "quiet ", "thin ")
CLOTHES = _words("hat coat shirt scarf jacket")
COLORS = _words("red blue green black white yellow brown")
PURPOSES = ("for a friend", "before lunch", "to win a prize", "after a long trip",
            "for the first time", "to please a child", "with much care")  # fmt: skip

# Topics. A name in braces stands for a random entry of SLOTS with that name.
QUESTIONS = (
    (
        "What is the cause of {matter} in {country}",
        "Why do people in {country} fear {matter}",
        "How does the {machine} work in {matter}",
        "What happens to the {machine} during {matter}",
        "How do you repair the {machine} that {name} sold",
    ),
    (
        "What {kind} do people in {country} like best",
        "What is the {most} {kind} in {country}",
        "Which {kind} did {name} bring from {city}",
        "What {kind} is named after the {job} of {country}",
    ),
    (
        "What does {letters} stand for in {country}",
        "What is the short form of {body} of {city}",
        "How do you shorten the name of {body} in {country}",
        "What do the letters {letters} mean to the {job}",
    ),
    (
        "Who {did} the {most} {machine}",
        "What {job} {did} the {machine}",
        "Which {job} lived in {city} with {name}",
        "Who is the {most} {job} in {country}",
        "What is the name of the {job} of {country}",
    ),
    (
        "Where is the {most} {machine} in {country}",
        "What {site} did {name} see in {country}",
        "In which {site} was the {machine} {did}",
        "What is the {most} {site} in {country}",
        "Where did the {job} of {country} live",
    ),
    (
        "How many {counted} are there in {city}",
        "When did {name} see the {machine} in {city}",
        "What is the {amount} of the {most} {site}",
        "How far is the {site} from {city}",
        "What year was the {machine} {did} in {city}",
    ),
)
ASIDES = (
    "", "", "", "", "Tell me: ", "Do you know: ", "Quick question: ", "For a quiz: ", "So, ",
    "For {name}: ", "{name} asks: ", "From {name}: ", "{name} would like to know: ",
)  # fmt: skip

# Plain sentences without an opinion or an answer. They contain the words that fine-tuning uses as
# labels, in random places.
PLAIN = (
    "{name} {errand} {number} {goods} in {city} on {day}.",
    "The {weather} reached {city} on {day}. It was {remark}.",
    "On {day} {name} walked to the {remark} {sight} of {city}.",
    "{name} met {name} by the {sight} in {city}. It was {remark}.",
    "Question: {name} was in {city} on {day}. Answer: {reply}.",
    "{name} lives in {city}? {reply}, {name} lives in {city}.",
    "{reply}, said {name}, the train from {city} leaves at {number}.",
    "{field}: {name} sent {number} {goods} to {city}.",
    "{name} left {city} on {day}. Topic: {field}.",
    "Page {number} of the {goods} list has the {field} and the {field}.",
)

SLOTS = {
    "amount": _words("population price height length weight age depth speed"),
    "body": (
        "the national health board", "the city water office", "the old music school",
        "the world bird club", "the free time league", "the north river bank",
        "the open garden fund", "the blue lakes union", "the young artists guild",
        "the human rights court",
    ),
    "city": _words(
        "Paris Rome London Tokyo Cairo Lima Oslo Delhi Boston Madrid Berlin Vienna Dublin Athens"
    ),
    "counted": _words("people rivers islands schools bridges birds players languages days lakes"),
    "country": _words("France Spain Italy Japan China India Brazil Egypt Canada Peru Kenya Norway"),
    "day": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "did": ("invented", "built", "designed", "painted", "first used", "discovered", "sold"),
    "errand": _words("bought sold found lost painted repaired carried counted"),
    "field": _words("Description Entity Expression Human Location Number"),
    "goods": _words("boxes letters lamps chairs apples coins maps bottles stamps"),
    "job": _words("king queen writer actor painter singer president explorer poet inventor"),
    "kind": _words(
        "animal color fruit language sport instrument dish flower metal tree bird tool"
    ),
    "letters": tuple(map("".join, itertools.permutations("ABCDEFGHKLMNPRSTUW", 3))),
    "machine": _words(
        "telephone camera engine clock compass piano bicycle printer radio telescope"
    ),
    "matter": _words("rain thunder rust fever sleep wind frost rainbows hunger earthquakes"),
    "most": ("largest", "smallest", "oldest", "highest", "longest", "most famous", "best known"),
    "name": _words(
        "Anna Peter Maria John Clara Henry Emma Paul Laura David Alice Simon Helen Mark Julia Tom"
    ),
    "number": tuple(map(str, range(2, 100))),
    "remark": _words("terrible great"),
    "reply": _words("No Yes Maybe"),
    "sight": _words("hall clock lake wall oak square bridge station"),
    "site": _words("city country river mountain island lake desert village state region"),
    "weather": _words("storm flood frost wind fog heat rain snow"),
}  # fmt: skip
