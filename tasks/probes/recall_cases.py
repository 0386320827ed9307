"""The parts of recall prompts: filler sentences, statements to hide in them, and questions."""

import random
import string
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

_SLOTS: dict[str, tuple[str, ...]] = {
    "person": (
        "the baker", "an old fisherman", "my neighbour", "the librarian", "a young painter",
        "the gardener", "her brother", "the station master", "a retired teacher", "the postman",
        "his aunt", "the carpenter", "a tired nurse", "the innkeeper", "our guide",
    ),
    "place": (
        "in the village", "by the river", "behind the church", "on the hill", "near the harbour",
        "at the market", "across the valley", "beside the mill", "in the old town",
        "at the edge of the forest", "along the coast", "under the bridge",
    ),
    "time": (
        "in the early morning", "after lunch", "on Sundays", "at the end of summer",
        "before the rain came", "late in the evening", "when the bells rang", "every winter",
        "for most of the year", "as soon as the snow melted", "once a week",
    ),
    "thing": (
        "a wooden boat", "the blue curtains", "a basket of apples", "the kitchen table",
        "an old map", "a pair of boots", "the broken clock", "a letter from abroad",
        "the garden wall", "a jar of honey", "the brass lamp", "a bundle of firewood",
    ),
    "deed": (
        "repaired", "sold", "painted", "carried home", "forgot about", "talked about", "looked for",
        "cleaned", "put away", "admired", "borrowed", "wrapped up",
    ),
    "weather": (
        "the fog lay over the fields", "the wind turned to the north", "the sky was clear",
        "a light rain was falling", "the sun stood low", "the first leaves were turning",
        "the roads were dry again", "the river ran high", "it was unusually warm",
    ),
    "feeling": (
        "nobody seemed to mind", "the children laughed about it", "it took longer than expected",
        "there was plenty of time", "the dog slept by the door", "everyone agreed in the end",
        "tea was served as usual", "the talk soon turned to other things",
        "not much else happened that day",
    ),
}  # fmt: skip

_TEMPLATES = (
    "{Time}, {person} {deed} {thing}, and {feeling}.",
    "{Person} {deed} {thing} {place} {time}.",
    "While {weather}, {person} {deed} {thing}.",
    "{Weather}, so {person} stayed {place} and {deed} {thing}.",
    "{Place}, {weather}, and {feeling}.",
    "{Person} and {other} {deed} {thing} together, although {weather}.",
    "It was said that {person} once {deed} {thing} {place}.",
    "{Time}, {weather}; {feeling}.",
    "Nothing was quite as pleasant as a walk {place} {time}.",
    "{Person} asked whether anyone {place} still {deed} such things, but {feeling}.",
    "Because {weather}, {feeling} and {person} went home early.",
    "{Person}, who lived {place}, {deed} {thing} {time}.",
)


def sentence(numbers: random.Random) -> str:
    """One random sentence, drawn with ``numbers``; thousands of different ones are possible."""
    template = numbers.choice(_TEMPLATES)
    drawn = {slot: numbers.choice(words) for slot, words in _SLOTS.items()}
    drawn["other"] = numbers.choice([who for who in _SLOTS["person"] if who != drawn["person"]])
    drawn |= {slot.capitalize(): words[0].upper() + words[1:] for slot, words in drawn.items()}
    return template.format(**drawn)


NAMES = ("Anna", "Peter", "Maria", "Thomas", "Laura", "David", "Helen", "Robert", "Julia", "Simon")
THINGS = (
    *("violin", "bicycle", "telescope", "garden", "boat", "camera", "piano", "horse", "kitchen"),
    *("ladder", "mirror", "carpet", "lantern", "basket", "drum", "kite", "hammer", "candle"),
)
STATEMENTS = 4  # per prompt, in probes that hide several statements
COPIED_WORDS, SHOWN_WORDS = 10, 3
VARIABLES = 5  # in a chain: four hops from the value


class Case(NamedTuple):
    """One question.

    Attributes:
        introduction: start of the prompt.
        needles: statements to hide in the filler.
        asked: index of the needle with the answer.
        question: end of the prompt, before the answer.
        answer: starts with a space if its first token does.
        ordered: the needles keep their order, with the first one at the given depth.
    """

    introduction: str
    needles: tuple[str, ...]
    asked: int
    question: str
    answer: str
    ordered: bool = False


def _passkey(numbers: random.Random) -> Case:
    """One five-digit key (arXiv 2305.16300, section 4.2)."""
    key = f"{numbers.randrange(10_000, 100_000)}"
    return Case(
        "There is an important pass key hidden inside a lot of irrelevant text. "
        "Find it and memorize it. I will ask you about it at the end.\n\n",
        (f" The pass key is {key}. Remember it.",),
        0,
        "\n\nWhat is the pass key? The pass key is",
        f" {key}",
    )


def _multi_key(numbers: random.Random) -> Case:
    """Keys of several people, one of which is asked for (multi-key needles, arXiv 2404.06654)."""
    names = numbers.sample(NAMES, STATEMENTS)
    keys = [f"{key}" for key in numbers.sample(range(10_000, 100_000), STATEMENTS)]
    asked = numbers.randrange(STATEMENTS)
    return Case(
        "There are the pass keys of several people hidden inside a lot of irrelevant text. "
        "Memorize all of them. I will ask you about one of them at the end.\n\n",
        tuple(f" The pass key of {n} is {k}." for n, k in zip(names, keys, strict=True)),
        asked,
        f"\n\nWhat is the pass key of {names[asked]}? The pass key of {names[asked]} is",
        f" {keys[asked]}",
    )


def _associative(numbers: random.Random) -> Case:
    """Pairs of name and thing; one name is repeated (associative recall, arXiv 2312.04927)."""
    names, things = numbers.sample(NAMES, STATEMENTS), numbers.sample(THINGS, STATEMENTS)
    asked = numbers.randrange(STATEMENTS)
    return Case(
        "The text below says who owns what. Remember it. I will ask you about it at the end.\n\n",
        tuple(f" {n} owns a {t}." for n, t in zip(names, things, strict=True)),
        asked,
        f"\n\nWho owns what? {names[asked]} owns a",
        f" {things[asked]}",
    )


def _copying(numbers: random.Random) -> Case:
    """A list of random words to repeat from its start (copying, arXiv 2402.01032)."""
    words = numbers.sample(NAMES + THINGS, COPIED_WORDS)
    return Case(
        "There is a list of words hidden inside a lot of irrelevant text. "
        "Memorize it. I will ask you to repeat it at the end.\n\n",
        (f" The list is: {' '.join(words)}. Remember it.",),
        0,
        f"\n\nRepeat the list. The list is: {' '.join(words[:SHOWN_WORDS])}",
        f" {' '.join(words[SHOWN_WORDS:])}",
    )


def _multi_value(numbers: random.Random) -> Case:
    """Several keys of one person, all asked for (multi-value needles, arXiv 2404.06654)."""
    name = numbers.choice(NAMES)
    keys = [f"{key}" for key in numbers.sample(range(10_000, 100_000), STATEMENTS)]
    return Case(
        "There are several pass keys of one person hidden inside a lot of irrelevant text. "
        "Memorize all of them. I will ask you about them at the end.\n\n",
        tuple(f" A pass key of {name} is {key}." for key in keys),
        0,
        f"\n\nWhat are the {STATEMENTS} pass keys of {name}, in the order of the text? "
        f"The pass keys of {name} are",
        f" {', '.join(keys)}",
        ordered=True,
    )


def _variable_tracking(numbers: random.Random) -> Case:
    """A value passed along a chain of variables, all asked for (arXiv 2404.06654, section 3)."""
    names = ["".join(numbers.choices(string.ascii_uppercase, k=5)) for _ in range(VARIABLES)]
    value = f"{numbers.randrange(10_000, 100_000)}"
    assigned = (value, *(f"VAR {name}" for name in names))
    return Case(
        "Memorize and track the chain of variable assignments hidden in the following text.\n\n",
        tuple(f" VAR {n} = {g}." for n, g in zip(names, assigned, strict=False)),
        0,
        f"\n\nFind all variables that are assigned the value {value} in the text above. "
        f"Answer: {VARIABLES} variables are assigned the value {value}, they are:",
        f" {' '.join(names)}",
        ordered=True,
    )


Probe = Literal[
    "passkey", "multi_key", "associative", "copying", "multi_value", "variable_tracking"
]
MAKERS = (_passkey, _multi_key, _associative, _copying, _multi_value, _variable_tracking)
CASES: dict[Probe, Callable[[random.Random], Case]] = dict(
    zip(get_args(Probe), MAKERS, strict=True)
)
