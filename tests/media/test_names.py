"""One table of names: every layout in which public data name their media, and what is none."""

import base64

import pytest

from llama_adapter import UserError
from llama_adapter.media import MediaItem, find_media, marks_in, names_media, part_media, part_modality

IMAGE = MediaItem("image", "a.jpg")


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.jpg"},
        {"images": ["a.jpg"]},
        {"image_path": "a.jpg"},
        {"img": "a.jpg"},
        {"imgname": "a.jpg"},
        {"img_name": "a.jpg"},
        {"file_name": "a.jpg"},
        {"media": ["a.jpg"]},
        {"image_url": {"url": "a.jpg"}},
        {"image": {"path": "a.jpg", "bytes": None}},
        {"image": "file://a.jpg"},
        {"inputs": {"image": "a.jpg", "audio": None}},
        {"image": "a.jpg", "image_path": "folder/a.jpg", "images": [], "image_id": 7},
        {"image": "a.jpg", "file_name": "another.jpg"},
        {"image_id": 7, "image": "a.jpg", "imageId": "x"},
    ],
)
def test_one_image_by_every_name(row):
    found = find_media(row)
    assert found.items == (IMAGE,)
    assert found.keys <= set(row)
    assert all(names_media(key) for key in found.keys)


def test_every_modality_has_its_columns():
    row = {
        "audios": ["a.wav", "b.wav"],
        "video": "c.mp4",
        "image": "d.png",
        "point": "e.ply",
        "depth": "f.png",
    }
    assert [(one.modality, one.content) for one in find_media(row).items] == [
        ("image", "d.png"),
        ("video", "c.mp4"),
        ("audio", "a.wav"),
        ("audio", "b.wav"),
        ("depth", "f.png"),
        ("point", "e.ply"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {
            "depth": 3,
            "point": [1, 2],
            "points": [{"label": "nose"}],
            "file_name": "notes.pdf",
            "sound": "woof",
        },
        {"image": None, "images": [], "image_path": "", "imageId": "2405722", "image_id": 42},
        {"path": "a.jpg", "prompt": "a.jpg"},
    ],
)
def test_what_is_no_medium(row):
    assert find_media(row).items == ()
    assert not find_media(row).keys


def test_a_number_names_a_file_with_a_pattern_only():
    row = {"image_id": 42, "question": "q"}
    found = find_media(row, "COCO_val2014_{image_id:012d}.jpg")
    assert found.items == (MediaItem("image", "COCO_val2014_000000000042.jpg"),)
    assert found.keys == {"image_id"}
    assert find_media({"image_id": 42, "image": "a.jpg"}, "{image_id}.jpg").items == (IMAGE,)
    for pattern in ("{other}.jpg", "{question:d}.jpg", "{question.x}", "{}"):
        with pytest.raises(UserError, match=r"cannot be named after .* Use columns that every record has"):
            find_media(row, pattern)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.jpg"},
        {"type": "image", "path": "a.jpg"},
        {"type": "image", "url": "a.jpg"},
        {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "low"}},
        {"type": "input_image", "image_url": "a.jpg"},
        {"type": "image", "source": {"type": "url", "url": "a.jpg"}},
        {"type": "image", "image": {"path": "a.jpg"}, "text": None},
    ],
)
def test_parts_name_their_medium(part):
    assert part_modality(part) == "image"
    assert part_media(part).items == (IMAGE,)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(300)
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "base64": TEXT},
        {"type": "image", "data": TEXT},
        {"type": "image", "bytes": PNG},
        {"type": "image", "image": TEXT},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
    ],
)
def test_parts_may_carry_the_file_itself(part):
    assert part_media(part).items == (MediaItem("image", PNG),)


def test_a_part_may_only_say_that_something_stands_there():
    assert part_media({"type": "audio"}).items == (MediaItem("audio", None),)
    sound = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"},
    }
    assert part_media(sound).items == (MediaItem("audio", b"RIFF"),)
    assert part_modality({"type": "text"}) is part_modality({"type": ["image"]}) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": 7}, r"'image' holds int \('7'\), which is no medium. Use the path"),
        ({"image": "https://x.org/a.jpg"}, "'image' is the address 'https://x.org/a.jpg'. Download"),
        ({"image": {"width": 3}}, "'image' has an object with 'width'. Use the path"),
        ({"images": [["f1.jpg"]]}, r"'images' holds list .* Use the path"),
        ({"image": {"base64": "%%%"}}, "no base64"),
        ({"audio": {"array": [0.0], "sampling_rate": 16000}}, "an object with 'array', 'sampling_rate'"),
        ({"image": "a.jpg", "images": ["a.jpg", "b.jpg"]}, r"'image' and 'images' name different media"),
        ({"inputs": {"smell": "a"}}, "inputs is .* Use files or texts under some of"),
        ({"inputs": "a.wav"}, "inputs is 'a.wav'"),
        ({"inputs": {"audio": 3}}, "inputs is"),
    ],
)
def test_what_is_meant_as_a_medium_and_is_none(row, said):
    with pytest.raises(UserError, match=said):
        find_media(row)


def test_marks_in_their_order():
    assert marks_in("<video>a <image><image> <audio> <images> <IMAGE>") == [
        "video",
        "image",
        "image",
        "audio",
    ]
