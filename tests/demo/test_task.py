import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_adapter.demo import task
from llama_adapter.demo.task import COMMANDS, NEW_PHRASING, SEEN_PHRASING, make_task

SEEDS = [0, 1, 2, 3]
WORDS = (
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


def every_item(made):
    return [*made.train, *made.held_out[SEEN_PHRASING], *made.held_out[NEW_PHRASING]]


def values_by_slot(items):
    found = {}
    for item in items:
        for (_, slot), value in zip(COMMANDS[item.action], item.values, strict=True):
            found.setdefault(slot, set()).add(value)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_are_as_asked_and_no_request_occurs_twice(seed):
    made = make_task(seed, train_size=640, held_out_size=100)
    assert len(made.train) == 640
    assert {part: len(items) for part, items in made.held_out.items()} == {
        SEEN_PHRASING: 50,
        NEW_PHRASING: 50,
    }
    requests = [item.request for item in every_item(made)]
    assert len(set(requests)) == len(requests)
    assert len({request.lower() for request in requests[:640]} & {r.lower() for r in requests[640:]}) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_no_held_out_slot_value_occurs_in_training(seed):
    made = make_task(seed)
    trained = values_by_slot(made.train)
    for items in made.held_out.values():
        for slot, values in values_by_slot(items).items():
            assert not values & trained[slot], slot
            # nor under another slot
            assert not values & set().union(*trained.values()) or slot in ("minutes", "count"), slot


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_use_seen_and_new_phrasings_and_wrappers(seed):
    made = make_task(seed)
    phrasings = {item.phrasing for item in made.train}
    wrappers = {item.wrapper for item in made.train}
    assert {item.phrasing for item in made.held_out[SEEN_PHRASING]} <= phrasings
    assert {item.wrapper for item in made.held_out[SEEN_PHRASING]} <= wrappers
    assert not {item.phrasing for item in made.held_out[NEW_PHRASING]} & phrasings
    assert not {item.wrapper for item in made.held_out[NEW_PHRASING]} & wrappers


def test_training_is_varied():
    made = make_task(0)
    for action in COMMANDS:
        items = [item for item in made.train if item.action == action]
        assert len(items) >= len(made.train) // len(COMMANDS)
        assert len({item.phrasing for item in items}) >= 18
    assert {item.action for item in made.held_out[NEW_PHRASING]} == set(COMMANDS)


def number_in(request, number):
    named = [WORDS[number]] if number < len(WORDS) else []
    return any(re.search(rf"\b{word}\b", request, re.IGNORECASE) for word in [str(number), *named])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_answer_is_a_normal_form_that_follows_from_its_request(seed):
    for item in every_item(make_task(seed)):
        command = json.loads(item.answer)
        assert json.dumps(command, ensure_ascii=False) == item.answer
        assert list(command) == ["action", *(key for key, _ in COMMANDS[item.action])]
        assert command["action"] == item.action
        for (key, slot), value in zip(COMMANDS[item.action], item.values, strict=True):
            assert str(command[key]) == value
            if slot in ("minutes", "count"):
                assert number_in(item.request, command[key]), item
            elif slot == "time":
                assert re.fullmatch(r"\d\d:\d\d", value)
                hour, minute = value.split(":")
                assert re.search(rf"\b0?{int(hour)}[:.]{minute}\b", item.request), item
            else:
                assert value in item.request, item


def test_no_slot_is_left_open_and_no_mark_is_doubled():
    for item in every_item(make_task(0)):
        assert not re.search(r"[{}]|[.?!]{2}|  |^\s|\s$", item.request), item.request


def test_phrases_fill_exactly_the_slots_of_their_action():
    source = task._phrases()
    assert set(source["phrasings"]) == set(COMMANDS)
    for action, phrasings in source["phrasings"].items():
        assert len(set(phrasings)) == len(phrasings) >= 24
        for phrasing in phrasings:
            assert sorted(re.findall(r"{(\w+)}", phrasing)) == sorted(slot for _, slot in COMMANDS[action]), (
                phrasing
            )
    assert all(wrapper.count("{request}") == 1 for wrapper in source["wrappers"])


def test_a_slot_value_belongs_to_one_slot():
    values = [value.lower() for values in task._phrases()["values"].values() for value in values]
    assert len(set(values)) == len(values)


def test_same_seed_same_items_in_another_process_and_other_seed_other_items():
    code = (
        "from llama_adapter.demo.task import make_task; t = make_task(5, 80, 20);"
        "print([i.request for i in t.train], t.held_out)"
    )
    root = str(Path(task.__file__).parents[2])
    salt = "1" if sys.flags.hash_randomization else "random"  # another order of sets than here
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": root, "PYTHONHASHSEED": salt},
        capture_output=True,
        text=True,
        check=True,
    )
    made = make_task(5, 80, 20)
    here = f"{[item.request for item in made.train]} {made.held_out}\n"
    assert done.stdout == here
    assert make_task(6, 80, 20) != made
