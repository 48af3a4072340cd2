"""Scenes, their captions and their pictures agree with each other."""

import numpy
import pytest


@pytest.fixture
def shapes(example):
    return example("shapes")


def test_every_caption_reads_as_its_scene(shapes):
    scenes = shapes.draw_scenes(600, seed=5) + shapes.draw_scenes(100, seed=5, unseen=True)
    assert {scene.layout for scene in scenes} == set(shapes.SENTENCES)
    for scene in scenes:
        assert len(set(scene.captions)) == 5
        for caption in scene.captions:
            assert shapes.read_caption(caption) == scene
            assert all(shapes.agreement(caption.capitalize() + ".", scene).values())


def test_scenes_differ_and_only_some_hold_unseen_pairs(shapes):
    training, unseen = shapes.draw_scenes(300, seed=0), shapes.draw_scenes(60, seed=0, unseen=True)
    assert len(set(training)) == 300
    assert not any(scene.unseen for scene in training)
    assert all(scene.unseen for scene in unseen)
    assert {len(scene.things) for scene in training} == {1, 2, 3}
    assert shapes.draw_scenes(300, seed=0) == training
    seen = {(thing.colour, thing.shape) for scene in training for thing in scene.things}
    assert {colour for colour, _ in seen} == set(shapes.COLOURS)  # each half of an unseen pair is known
    assert {shape for _, shape in seen} == set(shapes.SHAPES)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a small red circle to the left of a large blue square", set()),
        ("a large blue square to the right of a small red circle", set()),
        ("a large blue square to the left of a small red circle", {"position", "all"}),
        ("a small red circle above a large blue square", {"position", "all"}),
        ("a small red circle to the left of a small blue square", {"sizes", "all"}),
        ("a small red circle to the left of a large green square", {"colours", "position", "all"}),
        ("a small red circle in the top left", {"count", "colours", "shapes", "sizes", "position", "all"}),
        ("i see a small red circle and a large blue square", {"position", "all"}),
        ("hello", {"count", "colours", "shapes", "sizes", "position", "all"}),
    ],
)
def test_agreement_says_what_is_wrong(shapes, text, wrong):
    things = (shapes.Thing("small", "red", "circle"), shapes.Thing("large", "blue", "square"))
    found = shapes.agreement(text, shapes.Scene(things, "row of 2"))
    assert {name for name, right in found.items() if not right} == wrong


def test_things_are_drawn_in_their_colour_where_the_caption_says(shapes):
    pytest.importorskip("PIL", reason="pillow is not installed: pip install pillow")
    for place, (x, y) in shapes.PLACES.items():
        thing = shapes.Thing("large", "blue", "cross")
        picture = numpy.asarray(shapes.draw(shapes.Scene((thing,), place), seed=3)).astype(int)
        rows, columns = numpy.nonzero(abs(picture - shapes.COLOURS["blue"]).sum(-1) < 30)
        assert abs(columns.mean() - x) < 10
        assert abs(rows.mean() - y) < 10


def test_there_are_enough_scenes_for_the_study(shapes):
    assert len(shapes.draw_scenes(4000, seed=0)) == 4000


def test_sizes_and_orders_can_be_seen(shapes):
    pytest.importorskip("PIL", reason="pillow is not installed: pip install pillow")
    things = (shapes.Thing("large", "red", "square"), shapes.Thing("small", "green", "circle"))
    for layout, axis in (("row of 2", 1), ("column of 2", 0)):
        picture = numpy.asarray(shapes.draw(shapes.Scene(things, layout), seed=1)).astype(int)
        red, green = (
            numpy.nonzero(abs(picture - shapes.COLOURS[colour]).sum(-1) < 30) for colour in ("red", "green")
        )
        assert red[axis].max() < green[axis].min()
        assert len(red[0]) > 2 * len(green[0])
