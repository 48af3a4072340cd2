import pytest

from llama_adapter import UserError
from llama_adapter.vision.packages import needed


def test_a_missing_package_prints_the_line_that_installs_it():
    with pytest.raises(UserError, match=r"package 'sight', .*pip install 'llama-adapter\[vision\]'"):
        needed("sight_that_is_not_there", "sight")


def test_a_package_that_is_there_is_imported():
    assert needed("PIL.Image", "pillow").__name__ == "PIL.Image"
