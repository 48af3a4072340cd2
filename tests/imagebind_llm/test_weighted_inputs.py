"""PATH:WEIGHT."""

import pytest

from imagebind_llm.weighted_inputs import WeightedInput, read_input
from llama_adapter import UserError


def test_files_and_texts_with_and_without_weight(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    assert read_input("image", str(path)) == WeightedInput("image", str(path), 1.0)
    assert read_input("image", f"{path}:0.7") == WeightedInput("image", str(path), 0.7)
    assert read_input("audio", f"{path}:-2") == WeightedInput("audio", str(path), -2.0)
    assert read_input("text", "at 10:30") == WeightedInput("text", "at 10", 30.0)
    assert read_input("text", "a dog: brown") == WeightedInput("text", "a dog: brown", 1.0)


def test_a_file_whose_name_ends_like_a_weight(tmp_path):
    path = tmp_path / "a:3"
    path.touch()
    assert read_input("image", str(path)) == WeightedInput("image", str(path), 1.0)
    assert read_input("image", f"{path}:0.5").weight == 0.5


@pytest.mark.parametrize(
    ("modality", "written"), [("image", "none.png"), ("image", "none.png:1"), ("text", " ")]
)
def test_what_is_not_there(modality, written):
    with pytest.raises(UserError, match=f"{modality} is .*which is no file. Use PATH"):
        read_input(modality, written)
