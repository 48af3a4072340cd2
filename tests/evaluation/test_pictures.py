"""Pictures of questions, by the names and ids that public data sets have."""

import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.pictures import Pictures


@pytest.fixture
def folder(tmp_path):
    names = (
        "a.jpg",
        "val2014/COCO_val2014_000000000042.jpg",
        "000000000139.jpg",
        "7.png",
        "n16.jpg",
        "b/c.jpg",
    )
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("record", "file"),
    [
        ({"image": "a.jpg"}, "a.jpg"),
        ({"image": ["a.jpg"]}, "a.jpg"),
        ({"images": ["a.jpg"]}, "a.jpg"),
        ({"image": {"path": "a.jpg", "bytes": None}}, "a.jpg"),
        ({"images": [{"url": "b/c.jpg"}]}, "b/c.jpg"),
        ({"image_path": "b/c.jpg"}, "b/c.jpg"),
        ({"img": "a.jpg"}, "a.jpg"),
        ({"imgname": "a.jpg"}, "a.jpg"),
        ({"file_name": "a.jpg"}, "a.jpg"),
        ({"image": "", "image_id": 42}, "val2014/COCO_val2014_000000000042.jpg"),
        ({"image_id": 42}, "val2014/COCO_val2014_000000000042.jpg"),
        ({"image_id": "139"}, "000000000139.jpg"),
        ({"image_id": 139.0}, "000000000139.jpg"),
        ({"image_id": 7}, "7.png"),
        ({"imageId": "n16"}, "n16.jpg"),
        ({"image": "n16"}, "n16.jpg"),
        ({"image": 42}, "val2014/COCO_val2014_000000000042.jpg"),
    ],
)
def test_pictures_are_found(folder, record, file):
    found = Pictures(str(folder)).find(record, "here")
    assert found.files == (str(folder / file),)
    assert found.any


def test_what_is_not_there_is_known_to_be_missing(folder):
    assert Pictures(str(folder)).find({"image": "lost.jpg"}, "x").files == ("lost.jpg",)
    lost = Pictures(str(folder)).find({"image_id": 999}, "x")
    assert (lost.any, lost.files) == (True, ())
    assert not Pictures(str(folder)).find({"image": None, "question": "?"}, "x").any
    assert Pictures().find({"image_id": 42}, "x").any, "without a folder an id is no file, but a picture"


@pytest.mark.parametrize(
    "image", [{"bytes": "b64"}, "data:image/png;base64,AAAA", {"bytes": "b", "path": "a"}]
)
def test_pixels_inside_of_a_record_are_no_file(folder, image):
    found = Pictures(str(folder)).find({"image": image}, "x")
    assert (found.any, found.inside, found.files) == (True, True, ())


def test_several_pictures_are_all_found(folder):
    found = Pictures(str(folder)).find({"images": ["a.jpg", "b/c.jpg"]}, "x")
    assert found.files == (str(folder / "a.jpg"), str(folder / "b/c.jpg"))


def test_names_by_a_pattern_or_another_field(folder):
    pattern = Pictures(str(folder), pattern="val2014/COCO_val2014_{image_id:012d}.jpg")
    assert pattern.find({"image_id": 42}, "x").files == (
        str(folder / "val2014/COCO_val2014_000000000042.jpg"),
    )
    with pytest.raises(UserError, match="q1: its picture cannot be named after .*KeyError 'image_id'"):
        pattern.find({"id": 1}, "q1")
    with pytest.raises(UserError, match="ValueError"):
        pattern.find({"image_id": "a"}, "q1")
    other = Pictures(str(folder), field="photo")
    assert other.find({"photo": "a.jpg", "image_id": 42}, "x").files == (str(folder / "a.jpg"),)
    assert not other.find({"image": "a.jpg"}, "x").any


def test_an_id_of_two_files_is_not_guessed(folder):
    (folder / "42.jpg").touch()
    with pytest.raises(UserError, match="the picture '42' may be any of .*Use --media-name"):
        Pictures(str(folder)).find({"image_id": 42}, "x")


def test_what_is_no_name_is_refused(folder):
    for image in ([["a.jpg"]], {"a": 1}, True, 1.5):
        with pytest.raises(UserError, match="its picture is .*Use the name of a file"):
            Pictures(str(folder)).find({"image": image}, "x")
    with pytest.raises(UserError, match="images is 'nowhere', which is no folder"):
        Pictures("nowhere").find({"image_id": 42}, "x")
