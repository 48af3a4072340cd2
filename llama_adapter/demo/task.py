"""The demo's task: a request in free words in, a small JSON command out.

    Hey, remind me of the pasta in twelve minutes  ->  {"action": "timer", "minutes": 12, "for": "pasta"}

An answer is right when it equals the expected string, character for character. That is fair because every
command has one normal form: fixed keys in a fixed order, names copied as the request writes them, numbers
as digits, times as HH:MM.

Unusual: phrasings, wrappers ("Hey, ...", "..., thanks") and slot values are each split in two *before* any
item is made. Training items use the larger sides only. Held-out items come in two parts, both with slot
values never seen in training: `seen_phrasing` in words that training used, `new_phrasing` in words that it
did not. The seed decides the split too.

Knows nothing about models, tokenizers or files other than its own list of phrases.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

HELD_OUT_SHARE = 0.25
SEEN_PHRASING, NEW_PHRASING = "seen_phrasing", "new_phrasing"

_NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
# Slots whose values are counted out here rather than listed in phrases.json.
_NUMBERS = {
    "minutes": [str(n) for n in (*range(2, 31), 35, 40, 45, 50, 55, 60, 75, 80, 90)],
    "count": [str(n) for n in range(2, 25)],
    "time": [f"{hour:02d}:{minute:02d}" for hour in range(4, 12) for minute in range(0, 60, 5)],
}
# action -> (key in the command, slot that fills it), in the order of the normal form
COMMANDS = {
    "light_on": (("room", "room"),),
    "light_off": (("room", "room"),),
    "timer": (("minutes", "minutes"), ("for", "task")),
    "alarm": (("time", "time"), ("day", "day")),
    "buy": (("count", "count"), ("item", "item")),
    "message": (("to", "name"), ("text", "text")),
    "weather": (("place", "place"), ("day", "day")),
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request with its command, and what both were made of."""

    request: str
    """What the user says."""
    answer: str
    """The command in its normal form, the only right answer."""
    action: str
    """The command's action, a key of `COMMANDS`."""
    phrasing: str
    """The phrasing, with its slots open."""
    wrapper: str
    """The words around the phrasing."""
    values: tuple[str, ...]
    """Normal forms of the slot values, in the order of the command."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """All items of one seed."""

    train: list[Item]
    """Items to train on."""
    held_out: dict[str, list[Item]]
    """Items to measure with, by part: `seen_phrasing` and `new_phrasing`."""


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """What items may be made of: one side of the split."""

    phrasings: dict[str, list[str]]
    wrappers: list[str]
    values: dict[str, list[str]]


def make_task(seed: int, train_size: int = 800, held_out_size: int = 100) -> Task:
    """Make the items of one seed; the same arguments give the same items in every process.

    Args:
        seed: Decides the split, the items and their order.
        train_size: Number of training items, all different.
        held_out_size: Number of held-out items, half of them in each part.

    Returns:
        Items whose actions are as evenly spread as the numbers allow.
    """
    rng = random.Random(f"split {seed}")
    source = _phrases()
    phrasings = {action: _split(list_, rng) for action, list_ in source["phrasings"].items()}
    wrappers = _split(source["wrappers"], rng)
    values = {slot: _split(list_, rng) for slot, list_ in (source["values"] | _NUMBERS).items()}

    def pool(wording: int, slots: int) -> _Pool:
        return _Pool(
            phrasings={action: halves[wording] for action, halves in phrasings.items()},
            wrappers=wrappers[wording],
            values={slot: halves[slots] for slot, halves in values.items()},
        )

    half = held_out_size // 2
    return Task(
        train=_items(pool(0, 0), train_size, random.Random(f"train {seed}")),
        held_out={
            SEEN_PHRASING: _items(pool(0, 1), held_out_size - half, random.Random(f"seen {seed}")),
            NEW_PHRASING: _items(pool(1, 1), half, random.Random(f"new {seed}")),
        },
    )


@cache
def _phrases() -> dict:
    """The lists of phrasings, wrappers and slot values."""
    return json.loads(files("llama_adapter.demo").joinpath("phrases.json").read_text(encoding="utf-8"))


def _split(values: Sequence[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """Shuffle and cut into (for training, held out)."""
    shuffled = rng.sample(values, len(values))
    cut = round(len(shuffled) * HELD_OUT_SHARE)
    return shuffled[cut:], shuffled[:cut]


def _items(pool: _Pool, size: int, rng: random.Random) -> list[Item]:
    """Draw `size` different items: actions in turn, and within an action its phrasings in turn."""
    turns = {action: rng.sample(list_, len(list_)) for action, list_ in pool.phrasings.items()}
    items: dict[str, Item] = {}
    turn = 0
    while len(items) < size:
        action = list(COMMANDS)[turn % len(COMMANDS)]
        phrasing = turns[action][turn // len(COMMANDS) % len(turns[action])]
        item = _draw(action, phrasing, pool, rng)
        if item.request not in items:  # else draw the same turn again
            items[item.request] = item
            turn += 1
    drawn = list(items.values())
    rng.shuffle(drawn)
    return drawn


def _draw(action: str, phrasing: str, pool: _Pool, rng: random.Random) -> Item:
    """Fill one phrasing with slot values, wrap it, and write its command."""
    slots = COMMANDS[action]
    values = {slot: rng.choice(pool.values[slot]) for _, slot in slots}
    wrapper = rng.choice(pool.wrappers)
    words = _wrap(phrasing, wrapper, rng)
    if rng.random() < 0.25:  # some people start sentences without capitals
        words = words.lower()
    return Item(
        request=words.format(**{slot: _say(slot, value, rng) for slot, value in values.items()}),
        answer=_command(action, values),
        action=action,
        phrasing=phrasing,
        wrapper=wrapper,
        values=tuple(values.values()),
    )


def _command(action: str, values: dict[str, str]) -> str:
    """The command in its normal form."""
    body: dict[str, str | int] = {"action": action}
    for key, slot in COMMANDS[action]:
        body[key] = int(values[slot]) if slot in ("minutes", "count") else values[slot]
    return json.dumps(body, ensure_ascii=False)


def _say(slot: str, value: str, rng: random.Random) -> str:
    """One of the ways in which people write a value; names are always written as they are."""
    if slot in ("minutes", "count") and int(value) < len(_NUMBER_WORDS):
        return rng.choice((value, _NUMBER_WORDS[int(value)]))
    if slot == "time":
        bare = value.removeprefix("0")
        return rng.choice((value, bare, bare, f"{bare} am", bare.replace(":", ".")))
    return value


def _wrap(phrasing: str, wrapper: str, rng: random.Random) -> str:
    """Put the wrapper around the phrasing, with capitals and the final mark where they belong."""
    question = phrasing.endswith("?")
    words = phrasing.removesuffix("?")
    starts_sentence = wrapper.startswith("{request}") or wrapper.endswith(". {request}")
    if not starts_sentence and not words.startswith(("I ", "I'")):
        words = words[0].lower() + words[1:]
    mark = "?" if question else rng.choice((".", "", ""))
    return wrapper.replace("{request}", words) + mark
