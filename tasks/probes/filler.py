"""Seeded English sentences that fill a prompt: plain, varied and without a subject."""

import random

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
