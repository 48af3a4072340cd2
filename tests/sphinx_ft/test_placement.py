"""Images behind the first token, or where the text says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from sphinx_ft.placement import PlacementRule, place_images, place_labels, places_of

IMAGE, BOS = 99, 1
AFTER = PlacementRule(image_token_id=IMAGE, bos_token_id=BOS)
MARKED = PlacementRule(image_token_id=IMAGE, places="placeholder", bos_token_id=BOS)


def test_images_follow_the_first_token_and_marks_are_dropped():
    assert place_images([1, 5, 99, 6], [2, 1], AFTER) == [1, 99, 99, 99, 5, 6]
    assert place_labels([1, 5, 99, 6], [-100, 5, -100, 6], [2], AFTER) == [-100, -100, -100, 5, 6]


def test_images_stand_in_front_where_nothing_begins_a_text():
    assert place_images([5, 6], [2], AFTER) == [99, 99, 5, 6]
    assert place_images([], [1], AFTER) == [99]


def test_images_stand_at_their_marks():
    assert place_images([1, 99, 5, 99], [2, 3], MARKED) == [1, 99, 99, 5, 99, 99, 99]
    assert place_labels([1, 99, 5], [-100, -100, 5], [3], MARKED) == [-100] * 4 + [5]


@given(
    text=st.lists(st.sampled_from([1, 5, 6, 99]), max_size=12),
    length=st.integers(1, 4),
    after=st.booleans(),
)
def test_text_and_lengths_are_kept(text, length, after):
    rule = AFTER if after else MARKED
    lengths = [length] * text.count(IMAGE)
    places = places_of(text, lengths, rule)
    assert places.count(-1) == sum(lengths)
    assert [place for place in places if place >= 0] == [i for i, token in enumerate(text) if token != IMAGE]
    assert len(place_labels(text, text, lengths, rule)) == len(places)


def test_refuses_another_number_of_marks():
    with pytest.raises(UserError, match="1 placeholders, but 2 images"):
        place_images([1, 99], [3, 3], MARKED)
