"""Inputs as they are written: PATH:WEIGHT, in the order of their modalities."""

import pytest

from llama_adapter import UserError
from llama_adapter.media import MediaItem, Mix, as_shown, read_input, read_inputs


def test_files_and_texts_with_and_without_weight(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    assert read_input("image", str(path)) == MediaItem("image", str(path), 1.0)
    assert read_input("image", f"{path}:0.7") == MediaItem("image", str(path), 0.7)
    assert read_input("audio", f"{path}:-2") == MediaItem("audio", str(path), -2.0)
    assert read_input("text", "at 10:30") == MediaItem("text", "at 10", 30.0)
    assert read_input("text", "a dog: brown") == MediaItem("text", "a dog: brown", 1.0)


def test_a_file_whose_name_ends_like_a_weight(tmp_path):
    path = tmp_path / "a:3"
    path.touch()
    assert read_input("image", str(path)) == MediaItem("image", str(path), 1.0)
    assert read_input("image", f"{path}:0.5").weight == 0.5


@pytest.mark.parametrize(
    ("modality", "written", "said"),
    [
        ("image", "none.png", "The image 'none.png' does not exist. Use PATH"),
        ("audio", "none.wav:1", "The audio 'none.wav' does not exist"),
        ("text", " ", "The input text is ' '. Use a text"),
        ("image", "", "The input image is ''. Use a file"),
    ],
)
def test_what_is_not_there(modality, written, said):
    with pytest.raises(UserError, match=said):
        read_input(modality, written)


def test_paths_start_at_a_folder(tmp_path):
    (tmp_path / "a.png").touch()
    assert read_input("image", "a.png:0.5", tmp_path) == MediaItem("image", str(tmp_path / "a.png"), 0.5)


def test_one_image_is_shown_as_its_file_and_all_else_as_a_mix(tmp_path):
    for name in ("a.png", "b.wav"):
        (tmp_path / name).touch()
    one = read_inputs({"image": ["a.png"]}, tmp_path)
    assert as_shown(one) == str(tmp_path / "a.png")
    assert as_shown([]) is None
    for given in ({"image": ["a.png:0.5"]}, {"audio": ["b.wav"]}, {"image": ["a.png"], "audio": ["b.wav"]}):
        assert isinstance(as_shown(read_inputs(given, tmp_path)), Mix)
    both = as_shown(read_inputs({"audio": ["b.wav:-1"], "image": ["a.png"]}, tmp_path))
    assert str(both) == f"image {str(tmp_path / 'a.png')!r} + audio {str(tmp_path / 'b.wav')!r} x -1"
