"""A tiny ImageBind-LLM that was trained in both stages."""

import pytest

from imagebind_llm import ImageBindLlm
from llama_adapter.training import train
from tests.imagebind_llm.bind_runs import FIRST, SECOND, make_imagebind, stage, write_points, write_sound


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_base):
    """The folder of a run, with both adapters, a sound and a cloud of points."""
    root = tmp_path_factory.mktemp("bind")
    imagebind = make_imagebind(root / "imagebind")
    assert train(stage(root, tiny_base, imagebind, FIRST)) == 0
    first = str(root / "first" / "adapter")
    assert train(stage(root, tiny_base, imagebind, SECOND, first)) == 0
    write_sound(root / "tone.wav")
    write_points(root / "cloud.npy")
    return root


@pytest.fixture(scope="session")
def model(trained):
    return ImageBindLlm.from_pretrained(trained / "second" / "adapter")


@pytest.fixture(scope="session")
def rows(trained):
    """Rows of one batch: one input, a mix, none, a negative weight."""
    picture = str(sorted((trained / "pictures").iterdir())[0])
    sound, cloud = str(trained / "tone.wav"), str(trained / "cloud.npy")
    return [
        [("image", picture)],
        [("image", picture, 0.7), ("audio", sound, 0.3)],
        None,
        [("image", picture, 1.5), ("text", "a dog", -0.5), ("point", cloud, 0.25)],
    ]
