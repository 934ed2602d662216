"""A seeded grammar of small children's stories: the text that the embedded checkpoint learns and is judged on.

A story follows one cast (hero, companion, thing, place) through one plot, so names, pronouns, colours and places must
agree from the first sentence to the last. One cast in eight is held out: no training story has that hero, companion and
thing together, whatever the plot, so held-out perplexity is measured on combinations that were never seen.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

GIRLS = ("Lily", "Mia", "Anna", "Sara", "Zoe", "Nora", "Ella", "Ruby", "Emma", "Ivy")
BOYS = ("Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Tim", "Finn", "Noah", "Hugo")
ANIMALS = ("dog", "cat", "bird", "rabbit", "frog", "duck", "bear", "fox", "mouse", "turtle", "pony", "squirrel")
THINGS = ("ball", "kite", "hat", "boat", "drum", "book", "doll", "box", "bell", "scarf", "lamp", "cup", "bag", "ring")
COLOURS = ("red", "blue", "green", "yellow", "white", "golden", "pink", "brown")
PLACES = ("park", "forest", "garden", "farm", "lake", "beach", "meadow", "village")
TREATS = ("cake", "soup", "bread", "pie", "pancakes", "cookies")
HELD_OUT_SHARE = 8

NEAR = {
    "park": ("the big slide", "the old bench", "the swings"),
    "forest": ("the tall tree", "the dark cave", "the little path"),
    "garden": ("the rose bush", "the wooden gate", "the apple tree"),
    "farm": ("the barn", "the hay", "the old fence"),
    "lake": ("the bridge", "the small dock", "the reeds"),
    "beach": ("the big rock", "the sand castle", "the blue waves"),
    "meadow": ("the tall grass", "the little stream", "the flowers"),
    "village": ("the shop", "the well", "the school"),
}
PREPOSITION = {"beach": "on", "farm": "on", "lake": "at"}


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who and what a story is about."""

    hero: str
    girl: bool
    friend: str
    animal: str
    thing: str
    colour: str
    place: str
    spot: str
    treat: str
    parent: str

    @property
    def held_out(self) -> bool:
        """Whether hero, animal and thing are a combination that training never sees."""
        return zlib.crc32(f"{self.hero}/{self.animal}/{self.thing}".encode()) % HELD_OUT_SHARE == 0


class Teller:
    """Words that agree with a cast, and the dice."""

    def __init__(self, cast: Cast, dice: random.Random) -> None:
        self.cast = cast
        self.dice = dice
        self.he, self.him, self.his = ("she", "her", "her") if cast.girl else ("he", "him", "his")
        self.He, self.His = self.he.capitalize(), self.his.capitalize()
        self.kind = "girl" if cast.girl else "boy"
        self.inn = PREPOSITION.get(cast.place, "in")

    def one(self, *options: str) -> str:
        """One of several ways to say something."""
        return self.dice.choice(options)


def _opening(t: Teller) -> list[str]:
    c = t.cast
    home = t.one(
        f"{t.He} lived in a small house near the {c.place}.",
        f"{t.He} lived near the {c.place} with {t.his} {c.parent}.",
    )
    like = t.one(
        f"{t.He} loved to play {t.inn} the {c.place}.",
        f"{t.He} liked to walk {t.inn} the {c.place} every day.",
        home,
    )
    trait = t.one("little", "little", "kind", "happy", "brave", "clever")
    a = f"a {trait} {t.kind} named {c.hero}"
    start = t.dice.choices(
        (
            f"Once upon a time, there was {a}.",
            f"Once upon a time, there lived {a}.",
            f"Once upon a time, {a} lived near the {c.place}.",
            f"There was once {a}.",
            f"{c.hero} was a {trait} {t.kind}.",
        ),
        weights=(6, 2, 1, 1, 1),
    )
    return [*start, like]


def _day(t: Teller) -> str:
    return t.one("One day", "One sunny day", "One morning", "One cold day", "One warm afternoon")


def _lost(t: Teller) -> list[str]:
    c = t.cast
    thing = f"{c.colour} {c.thing}"
    return [
        f"{c.hero} had a {thing}.",
        t.one(
            f"It was {t.his} favorite toy.", f"{t.He} took it everywhere.", f"{t.His} {c.parent} gave it to {t.him}."
        ),
        f"{_day(t)}, {c.hero} could not find the {thing}.",
        t.one(f"{t.He} looked under the bed, but it was not there.", f"{t.He} looked in every room, but it was gone."),
        t.one(f"{c.hero} was very sad.", f"{c.hero} sat down and began to cry."),
        f"Then a {t.one('little', 'friendly', 'funny')} {c.animal} came to {t.him}.",
        t.one(f'"Why are you sad?" asked the {c.animal}.', f'"What is wrong?" asked the {c.animal}.'),
        f'"I lost my {thing}," said {c.hero}.',
        t.one(
            f'"I will help you," said the {c.animal}.', f'"Do not cry," said the {c.animal}. "We will look together."'
        ),
        f"They went to the {c.place} and looked near {c.spot}.",
        f"There was the {thing}!",
        t.one(
            f'{c.hero} hugged the {c.animal}. "Thank you," {t.he} said.',
            f'"Thank you, my friend," said {c.hero}.',
        ),
        t.one(
            f"From that day on, {c.hero} and the {c.animal} were best friends.",
            f"Then {c.hero} and the {c.animal} played with the {c.thing} until the sun went down.",
        ),
    ]


def _rescue(t: Teller) -> list[str]:
    c = t.cast
    trouble, help_, cured = t.dice.choice(
        (
            ("was stuck in a hole", f"pulled the {c.animal} out with a long stick", "free"),
            ("was cold and wet", f"put a warm blanket around the {c.animal}", "warm"),
            ("was very hungry", f"gave the {c.animal} some {c.treat}", "full"),
            ("had hurt its leg", "put a soft cloth around its leg", "better"),
            ("was lost and alone", f"took the {c.animal} back to its home", "safe"),
        )
    )
    return [
        f"{_day(t)}, {c.hero} went to the {c.place}.",
        f"Near {c.spot}, {t.he} {t.one('saw', 'found')} a {t.one('small', 'little', 'young')} {c.animal}.",
        f"The {c.animal} {trouble}.",
        t.one(f'"Please help me," said the {c.animal}.', f'"Can you help me?" asked the {c.animal}.'),
        t.one(f'"Of course," said {c.hero}.', f'"Do not be afraid," said {c.hero}.'),
        f"{t.He} {help_}.",
        f"Soon the {c.animal} was {cured} and {t.one('happy', 'very glad')}.",
        f"The next day, the {c.animal} came to {c.hero} with a {c.colour} {c.thing}.",
        t.one(f'"This is for you," said the {c.animal}.', f'"This is a gift for you," said the {c.animal}.'),
        f"{c.hero} {t.one('smiled', 'laughed', 'was so happy')} and {t.one('thanked', 'hugged')} the {c.animal}.",
        t.one(
            f"{t.He} learned that it is good to help others.",
            f"{c.hero} and the {c.animal} became best friends.",
            f"{t.He} kept the {c.thing} forever.",
        ),
    ]


def _share(t: Teller) -> list[str]:
    c = t.cast
    return [
        f"{_day(t)}, {c.hero} and {t.his} friend {c.friend} went to the {c.place}.",
        f"They saw a {c.colour} {c.thing} near {c.spot}.",
        f'"It is mine!" said {c.hero}.',
        f'"No, I saw it first!" said {c.friend}.',
        t.one("They began to shout.", "They were both angry.", f"They both pulled at the {c.thing}."),
        f"A {t.one('wise', 'wise old', 'old')} {c.animal} {t.one('heard', 'saw')} them and came near.",
        f'"{t.one("It is more fun to share", "Friends must share", "You can play together")}," said the {c.animal}.',
        f"{c.hero} looked at {c.friend}.",
        t.one(
            f'"I am sorry," said {c.hero}. "You can have it first."', f'"I am sorry," said {c.friend}. "Let us share."'
        ),
        f"They {t.one('took turns with', 'played with', 'shared')} the {c.colour} {c.thing} all day.",
        t.one(
            f"The {c.animal} smiled and played with them.",
            "They were happy and laughed a lot.",
            f"When it got dark, {c.hero} and {c.friend} went home as friends.",
        ),
    ]


def _brave(t: Teller) -> list[str]:
    c = t.cast
    fear, place_line, deed = t.dice.choice(
        (
            ("the dark", f"the {c.thing} was in a dark room", "walked into the dark room"),
            ("deep water", f"the {c.thing} fell into the water", "jumped into the water"),
            ("high places", f"the {c.thing} was at the top of a tree", "climbed up the tree"),
            ("loud noises", f"there was a loud noise behind the {c.thing}", "walked up to the loud noise"),
        )
    )
    return [
        f"{c.hero} had a {c.colour} {c.thing}, but {t.he} was afraid of {fear}.",
        f"{_day(t)}, {place_line}.",
        t.one(f"{c.hero} wanted to run away.", f"{c.hero} did not know what to do."),
        f'"I am too scared," {t.he} said to {t.his} {c.animal}.',
        t.one(f'"You can do it," said the {c.animal}.', f'"I will go with you," said the {c.animal}.'),
        f"{c.hero} {t.one('took a deep breath', 'closed ' + t.his + ' eyes', 'counted to three')} and {deed}.",
        t.one("It was not so bad.", "It was easy!", "Nothing bad happened."),
        f"{t.He} came back with the {c.colour} {c.thing} in {t.his} hands.",
        f'"{t.one("I did it", "Look, I did it", "I am not afraid now")}!" {t.one("said", "shouted")} {c.hero}.',
        f"{t.His} {c.parent} was very proud of {t.him}.",
        t.one(
            f"That night, {c.hero} slept well with the {c.animal} next to {t.him}.",
            f"After that, {c.hero} was not afraid of {fear} any more.",
        ),
    ]


def _bake(t: Teller) -> list[str]:
    c = t.cast
    return [
        f"{_day(t)}, {c.hero} wanted to make {c.treat} with {t.his} {c.parent}.",
        f"They put everything into a big {t.one('pot', 'bowl')}.",
        f"Then {c.hero} heard a noise at the door.",
        f"It was a {t.one('hungry', 'little', 'tired')} {c.animal} from the {c.place}, "
        f"and it had a {c.colour} {c.thing}.",
        t.one(f'"That smells so good," said the {c.animal}.', f'"May I have some {c.treat}?" asked the {c.animal}.'),
        t.one(f'"Yes, come in," said {c.hero}.', f'"You can eat with us," said {t.his} {c.parent}.'),
        f"They all sat {t.one('down at the table', 'by the fire')} and ate the {c.treat}.",
        f"The {c.animal} {t.one('ate and ate', 'ate every bite', 'asked for more')}.",
        f'"Take my {c.colour} {c.thing}," it said. "It is yours now."',
        f"{c.hero} {t.one('was very happy', 'jumped with joy', 'said thank you')}.",
        t.one(
            f"Every week, the {c.animal} came back for more {c.treat}.",
            f"Now {c.hero} makes {c.treat} for the {c.animal} every day.",
        ),
    ]


def _honest(t: Teller) -> list[str]:
    c = t.cast
    return [
        f"{_day(t)}, {c.hero} found a {c.colour} {c.thing} near {c.spot}.",
        t.one(f"{t.He} wanted to keep it.", f"It was the best {c.thing} {t.he} had ever seen."),
        f"But then {t.he} saw a sad {c.animal}.",
        f'"I cannot find my {c.colour} {c.thing}," said the {c.animal}.',
        t.one(f"{c.hero} thought for a long time.", f"{c.hero} looked at the {c.thing} in {t.his} hands."),
        t.one(f'"Here it is," {t.he} said. "I found it."', f'"Is this your {c.thing}?" {t.he} asked.'),
        f"The {c.animal} {t.one('jumped with joy', 'was so happy', 'danced around')}.",
        t.one(f'"You are very kind," said the {c.animal}.', f'"Thank you for telling the truth," said the {c.animal}.'),
        f"At home, {c.hero} told {t.his} {c.parent} what happened.",
        f'"I am proud of you," said {t.his} {c.parent}.',
        t.one(
            f"They made {c.treat} and asked the {c.animal} to come and eat with them.",
            f"The next day, {c.hero} and the {c.animal} played with the {c.thing} {t.inn} the {c.place}.",
        ),
    ]


PLOTS: tuple[Callable[[Teller], list[str]], ...] = (_lost, _rescue, _share, _brave, _bake, _honest)


def _cast(dice: random.Random) -> Cast:
    girl = dice.random() < 0.5
    hero = dice.choice(GIRLS if girl else BOYS)
    place = dice.choice(PLACES)
    return Cast(
        hero=hero,
        girl=girl,
        friend=dice.choice([name for name in GIRLS + BOYS if name != hero]),
        animal=dice.choice(ANIMALS),
        thing=dice.choice(THINGS),
        colour=dice.choice(COLOURS),
        place=place,
        spot=dice.choice(NEAR[place]),
        treat=dice.choice(TREATS),
        parent=dice.choice(("mom", "dad", "grandma", "grandpa")),
    )


def stories(*, seed: int, held_out: bool) -> Iterator[str]:
    """Endless stories, each one line; ``held_out`` chooses which casts."""
    dice = random.Random(f"{seed}/{held_out}")
    while True:
        cast = _cast(dice)
        if cast.held_out == held_out:
            teller = Teller(cast, dice)
            yield " ".join(_opening(teller) + dice.choice(PLOTS)(teller))
