"""What is shown with questions, by the names and ids that public data sets have."""

import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.question_media import MediaFinder, is_there
from llama_adapter.media import MediaItem


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
        ({"image": "42"}, "val2014/COCO_val2014_000000000042.jpg"),
    ],
)
def test_pictures_are_found(folder, record, file):
    (item,) = MediaFinder(str(folder)).find(record, "here")
    assert item == MediaItem("image", str(folder / file))
    assert is_there(item)


def test_what_is_not_there_is_known_to_be_missing(folder):
    for finder in (MediaFinder(str(folder)), MediaFinder()):
        for record in ({"image": "lost.jpg"}, {"image_id": 999}):
            (item,) = finder.find(record, "x")
            assert not is_there(item)
        assert finder.find({"image": None, "question": "?"}, "x") == ()


def test_pictures_in_the_record_itself_are_there(folder):
    for image in ({"bytes": b"any"}, "data:image/png;base64,AAAA", {"bytes": b"any", "path": "lost.jpg"}):
        (item,) = MediaFinder(str(folder)).find({"image": image}, "x")
        assert isinstance(item.content, bytes)
        assert is_there(item)


def test_several_pictures_sounds_and_weights_are_all_found(folder):
    (folder / "s.wav").touch()
    record = {"images": ["a.jpg", "b/c.jpg"], "audio": "s.wav"}
    found = MediaFinder(str(folder)).find(record, "x")
    assert [item.modality for item in found] == ["image", "image", "audio"]
    assert [item.content for item in found] == [str(folder / name) for name in ("a.jpg", "b/c.jpg", "s.wav")]
    (first, second) = MediaFinder(str(folder)).find({"inputs": {"image": "a.jpg:0.5", "text": "a bell"}}, "x")
    assert (first, second) == (MediaItem("image", str(folder / "a.jpg"), 0.5), MediaItem("text", "a bell"))
    assert is_there(second)


def test_names_by_a_pattern_or_another_field(folder):
    pattern = MediaFinder(str(folder), pattern="val2014/COCO_val2014_{image_id:012d}.jpg")
    (item,) = pattern.find({"image_id": 42}, "x")
    assert item.content == str(folder / "val2014/COCO_val2014_000000000042.jpg")
    with pytest.raises(UserError, match="q1: The image cannot be named after .*KeyError 'image_id'"):
        pattern.find({"id": 1}, "q1")
    with pytest.raises(UserError, match="ValueError"):
        pattern.find({"image_id": "a"}, "q1")
    other = MediaFinder(str(folder), field="photo_of")
    (item,) = other.find({"photo_of": "a.jpg", "image_id": 42}, "x")
    assert item.content == str(folder / "a.jpg")
    assert other.find({"image": "a.jpg"}, "x") == ()


def test_an_id_of_two_files_is_not_guessed(folder):
    (folder / "42.jpg").touch()
    with pytest.raises(UserError, match="the picture '42' may be any of .*Use --media-name"):
        MediaFinder(str(folder)).find({"image_id": 42}, "x")


def test_what_is_no_name_is_refused(folder):
    for image in ([["a.jpg"]], {"a": 1}, True, 1.5, "http://example.org/a.jpg"):
        with pytest.raises(UserError, match="x: 'image' .*Use|x: 'image' .*use its path"):
            MediaFinder(str(folder)).find({"image": image}, "x")
    with pytest.raises(UserError, match="images is 'nowhere', which is no folder"):
        MediaFinder("nowhere").find({"image_id": 42}, "x")
