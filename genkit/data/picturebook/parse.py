"""Reading a prompt: parse(text) → what it asks for, and the words that the picture book lacks.

The prompt becomes a sequence of items (`lexicon`), read once from left to right. Adjectives that
stand before their noun (English) wait for it; adjectives that follow it (Vietnamese, or "a house,
red") go to the noun in *focus*. An unknown noun takes its adjectives with it: in "a red dragon
next to a house" the house is not red.

For every ask made by `plan`,  parse(describe(ask)).ask = ask.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .ask import Ask, Look, ThingAsk
from .lexicon import Item, items
from .scene import COLOURED, COLOURS, LABELS, SECOND
from .scenery import TINTS
from .words import Choice

__all__ = ["Parsed", "parse"]

_OBJECTS = frozenset({"light", "mountains", "clouds", "rainbow", "balloon"})
_PLACED_NEXT = frozenset(
    {"kind", "number", "several", "colour", "size", "article", "unknown", "with"}
)
"""Roles after which "on the left" opens a phrase instead of closing one."""
_TINTS = frozenset().union(*(TINTS[label] for label in TINTS if label in LABELS))
_CLASSIFIER = ("cây", "cay")
_PLANTS = frozenset({"pine", "tree", "palm", "cactus", "mushroom"})
_AHEAD = 8
"""How many items a decision looks ahead."""


@dataclass(frozen=True)
class Parsed:
    """A prompt, understood.

    Args:
        ask: What it asks for.
        unknown: Words that the picture book does not know, as typed, in order of appearance.
    """

    ask: Ask
    unknown: tuple[str, ...]


def parse(text: str) -> Parsed:
    """What the text asks for, in English or Vietnamese; any text at all is accepted."""
    reader = _Reader(items(text))
    for place, item in enumerate(reader.items):
        reader.place = place
        reader.read(item)
    reader.flush()
    things = tuple(thing.done() for thing in reader.things)
    ask = Ask(**reader.scene, things=things)
    return Parsed(ask, tuple(dict.fromkeys(reader.unknown)))


@dataclass
class _Noun:
    """A noun under construction: what has been said about it so far."""

    kind: str = ""
    count: tuple[int, ...] = ()
    colours: list[Choice] = field(default_factory=list)
    seconds: list[Choice] = field(default_factory=list)
    sizes: list[Choice] = field(default_factory=list)
    slots: list[Choice] = field(default_factory=list)
    members: list[_Noun] = field(default_factory=list)

    def most(self) -> int:
        return self.count[0] if self.count else 1

    def look(self) -> Look:
        return Look(_union(self.colours), _union(self.seconds), _union(self.sizes), self._slot())

    def _slot(self) -> Choice:
        return self.slots[0] if self.slots else ()

    def done(self) -> ThingAsk:
        """The finished ask; several colours or places are shared out among several things."""
        two = self.most() == 1 and len(self.colours) == 2
        if two and self.kind in SECOND and not self.seconds:
            self.seconds = [self.colours.pop()]
        members = [member.look() for member in self.members]
        if self.most() > 1 and not members:
            if len(self.colours) > 1:
                members, self.colours = [Look(colour=colour) for colour in self.colours], []
            elif len(self.slots) > 1:
                members, self.slots = [Look(slot=slot) for slot in self.slots], []
        return ThingAsk(self.kind, self.count, self.look(), tuple(members[: self.most()]))


def _union(choices: list[Choice]) -> Choice:
    values = {value for choice in choices for value in choice}
    order = (*COLOURS, "small", "large")
    return tuple(value for value in order if value in values)


@dataclass
class _Waiting:
    """Words that wait for their noun."""

    colours: list[Item] = field(default_factory=list)
    sizes: list[Item] = field(default_factory=list)
    slots: list[Item] = field(default_factory=list)
    seconds: list[Item] = field(default_factory=list)
    count: tuple[int, ...] = ()
    number: Item | None = None
    opened: bool = False
    stale: bool = False


@dataclass
class _Reader:
    """The state of reading.

    `focus` is the noun that later adjectives belong to: a thing, the name of a scene label, or
    None after an unknown noun; `attribute` says which colour of the thing they give.
    """

    items: list[Item]
    place: int = 0
    scene: dict[str, Choice] = field(default_factory=dict)
    things: list[_Noun] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    waiting: _Waiting = field(default_factory=_Waiting)
    focus: _Noun | str | None = ""
    attribute: str = "colours"
    member: _Noun | None = None
    negated: bool = False
    fresh: bool = True
    previous: str = "stop"
    named: str = ""

    def read(self, item: Item) -> None:
        """Take the next item into account."""
        {
            "scene": self._scene, "balloon": self._balloon, "kind": self._kind, "part": self._part,
            "colour": self._adjective, "size": self._adjective, "slot": self._slot,
            "number": self._number, "several": self._several, "unknown": self._unknown,
            "and": self._and, "stop": self._stop, "with": self._with, "article": self._article,
            "no": self._no, "parted": self._parted, "sky": self._sky, "filler": self._filler,
        }[item.role](item)  # fmt: skip
        if item.role not in ("filler", "article"):
            self.previous = item.role
            self.fresh = item.role in ("stop", "and")

    # --- separators -------------------------------------------------------------------------

    def flush(self) -> None:
        """At the end of a phrase: adjectives without a noun go back to the one before."""
        waiting = self.waiting
        if waiting.stale:
            self.waiting = _Waiting()
        elif not waiting.opened and isinstance(self.focus, _Noun):
            for colour in waiting.colours:
                getattr(self.focus, self.attribute).append(colour.choice)
            self.focus.sizes += [size.choice for size in waiting.sizes]
            waiting.colours, waiting.sizes = [], []
        self.member = None
        self.negated = False

    def _stop(self, _: Item) -> None:
        self.flush()

    def _and(self, _: Item) -> None:
        follower = self._next()
        if not (follower and follower.role in ("colour", "size") and self.waiting.colours):
            self.flush()

    def _with(self, _: Item) -> None:
        negated = self.negated
        self.flush()
        self.negated = negated

    def _filler(self, _: Item) -> None:
        if self.waiting.stale:
            self.waiting = _Waiting()

    def _article(self, item: Item) -> None:
        self._filler(item)
        self.waiting.opened = True

    def _no(self, _: Item) -> None:
        self.flush()
        self.negated = True

    def _next(self) -> Item | None:
        """The next item that is more than a filler."""
        ahead = self.items[self.place + 1 : self.place + 1 + _AHEAD]
        return next((item for item in ahead if item.role not in ("filler",)), None)

    # --- nouns ------------------------------------------------------------------------------

    def _kind(self, item: Item) -> None:
        if self.member is not None and item.text.lower() in _CLASSIFIER:
            return
        waiting = self.waiting
        count = waiting.count or ((2, 3) if item.plural else ())
        noun = _Noun(str(item.value), (0,) if self.negated else count)
        noun.colours = [colour.choice for colour in waiting.colours]
        noun.sizes = [size.choice for size in waiting.sizes]
        noun.slots = [slot.choice for slot in waiting.slots]
        if noun.kind in SECOND:
            noun.seconds = [second.choice for second in waiting.seconds]
        self.things.append(noun)
        self.focus, self.attribute, self.member = noun, "colours", None
        self.waiting, self.negated = _Waiting(), False

    def _scene(self, item: Item) -> None:
        label, choice = str(item.value), item.choice
        waiting = self.waiting
        follower = self._next()
        adjective = label not in _OBJECTS and follower is not None and follower.role == "kind"
        if label == "clouds" and choice == ("1", "2", "3") and waiting.count:
            choice = tuple(str(count) for count in waiting.count)
        elif waiting.number and label in ("light", "rainbow") and waiting.count != ():
            self.unknown.append(waiting.number.text)
        if not (adjective and waiting.opened):
            self._surprises(label, item)
            slots = waiting.slots
            self.waiting = _Waiting()
            if label in _OBJECTS:
                self.unknown += [slot.text for slot in slots]
            else:
                self.waiting.slots = slots
        if label in _OBJECTS:
            self.focus, self.member = label, None
        self._narrow(label, choice)

    def _surprises(self, label: str, item: Item) -> None:
        """Colours that this part of the scene never has: "a pink sea"."""
        self.named = item.text
        if not self.waiting.stale:
            for colour in self.waiting.colours:
                if not set(colour.choice) & TINTS.get(label, frozenset()):
                    self.unknown.append(f"{colour.text} {item.text}")

    def _sky(self, item: Item) -> None:
        """The sky, whose colour is the time of day."""
        self._surprises("sky", item)
        self.waiting = _Waiting(slots=self.waiting.slots)
        self.focus, self.member = "sky", None

    def _narrow(self, label: str, choice: Choice) -> None:
        if self.negated:
            choice = tuple(value for value in LABELS[label] if value not in choice)
            self.negated = False
        before = self.scene.get(label, choice)
        both = tuple(value for value in before if value in choice)
        self.scene[label] = both or before

    def _balloon(self, _: Item) -> None:
        waiting = self.waiting
        if waiting.number and waiting.count not in ((), (1,)):
            self.unknown.append(waiting.number.text)
        self.unknown += [slot.text for slot in waiting.slots]
        asked = {value for colour in waiting.colours for value in colour.choice}
        self._narrow("balloon", tuple(c for c in COLOURS if c in asked or not asked))
        self.focus, self.member, self.waiting = "balloon", None, _Waiting()

    def _part(self, item: Item) -> None:
        """A roof or a sail: the second colour of the last thing that has one."""
        attribute = "seconds" if item.value in SECOND.values() else "colours"
        nouns = reversed(self.things[-_AHEAD:])
        owner = next((noun for noun in nouns if _has(noun, str(item.value))), None)
        colours = [] if self.waiting.stale else self.waiting.colours
        slots = self.waiting.slots
        if owner is None or (self.focus is None and not colours and item.language == "vi"):
            self.waiting = _Waiting(seconds=colours, slots=slots)
            self.focus = None
            return
        getattr(owner, attribute).extend(colour.choice for colour in colours)
        self.focus, self.attribute = owner, attribute
        self.waiting = _Waiting(slots=slots)

    def _parted(self, _: Item) -> None:
        """ "a blue-roofed house" """
        self.waiting.seconds += self.waiting.colours[-1:]
        del self.waiting.colours[-1:]

    def _unknown(self, item: Item) -> None:
        self.unknown.append(item.text)
        self.negated = False
        describing = self.previous in ("kind", "colour", "size", "slot", "part")
        if item.language == "vi" and describing and not self.fresh and not self.waiting.number:
            return
        self.waiting.stale = True
        self.focus = None

    # --- adjectives, places, numbers --------------------------------------------------------

    def _adjective(self, item: Item) -> None:
        tinted = item.language == "vi" and self.previous == "scene"
        if self.member is not None and not tinted:
            member = self.member.colours if item.role == "colour" else self.member.sizes
            member.append(item.choice)
        elif item.language == "en" or self.focus == "":
            (self.waiting.colours if item.role == "colour" else self.waiting.sizes).append(item)
        elif tinted or isinstance(self.focus, str):
            self._tint(item)
        elif isinstance(self.focus, _Noun):
            name = self.attribute if item.role == "colour" else "sizes"
            getattr(self.focus, name).append(item.choice)

    def _tint(self, item: Item) -> None:
        """A Vietnamese adjective after a scene word or the balloon."""
        if item.role == "size":
            return
        if self.focus == "balloon" and self.previous != "scene":
            if self.scene["balloon"] == COLOURS:
                self.scene["balloon"] = item.choice
        elif self.focus == "sky" or not set(item.choice) & _TINTS:
            self.unknown.append(f"{self.named} {item.text}")

    def _slot(self, item: Item) -> None:
        last = self.things[-1] if self.things else None
        follower = self._next()
        ahead = follower is not None and follower.role in _PLACED_NEXT
        described = bool(self.waiting.colours or self.waiting.sizes or self.waiting.number)
        taken = last is not None and last.most() == 1 and bool(last.slots)
        if self.member is not None:
            self.member.slots.append(item.choice)
        elif self._before_noun(item, ahead) or (self.fresh and (ahead or last is None or taken)):
            self.waiting.slots = [item]
        elif isinstance(self.focus, str) or last is None:
            (self.unknown.append(item.text) if self.focus else self.waiting.slots.append(item))
        elif self.focus is not None and not (taken and described):
            last.slots.append(item.choice)

    def _before_noun(self, item: Item, ahead: bool) -> bool:
        """ "the left house" """
        follower = self._next()
        noun = follower is not None and follower.role in ("kind", "colour", "size")
        return item.language == "en" and self.waiting.opened and ahead and noun

    def _number(self, item: Item) -> None:
        self._filler(item)
        number = int(item.value)
        last = self.things[-1] if self.things else None
        if number == 1 and last is not None:
            if item.language == "en" and self.waiting.opened and self.waiting.colours:
                self._kind(Item("kind", last.kind))  # "a red house and a blue one"
                return
            if last.most() > 1 and self.focus is last and not self._noun_ahead(last.kind):
                self.flush()
                self.member = _Noun()
                last.members.append(self.member)
                return
        self.waiting.opened = True
        self.waiting.number = item if number != 1 else None
        self.waiting.count = (number,) if number != 1 else ()

    def _noun_ahead(self, kind: str) -> bool:
        """Whether this phrase goes on to name a thing: "one boat", but not "one on the left".

        After "hai cây thông", "một cây" is one of the pines; "cây" alone is a tree.
        """
        for item in self.items[self.place + 1 : self.place + 1 + _AHEAD]:
            if item.role in ("stop", "and", "with", "scene", "number"):
                return False
            classifier = kind in _PLANTS and item.text.lower() in _CLASSIFIER
            if item.role in ("kind", "unknown", "balloon") and not classifier:
                return True
        return False

    def _several(self, item: Item) -> None:
        self._filler(item)
        self.waiting.opened = True
        self.waiting.number, self.waiting.count = item, (2, 3)


def _has(noun: _Noun, part: str) -> bool:
    if part in SECOND.values():
        return SECOND.get(noun.kind) == part
    return noun.kind in COLOURED
