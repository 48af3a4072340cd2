import pytest

from llama_adapter import UserError
from llama_adapter.vision import VisionConfig


def test_weights_of_transformers_are_those_of_the_folder():
    with pytest.raises(UserError, match="weights='w.pth' does not go with .*Set name_or_path"):
        VisionConfig(kind="transformers", name_or_path="folder", weights="w.pth")
