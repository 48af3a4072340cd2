"""What a model is shown: embeddings that are kept, and the visual cache before the bind network."""

import pytest
import torch
from PIL import Image

from imagebind_llm import VisualCache
from imagebind_llm.cache.build import BuildConfig, build
from imagebind_llm.loading import as_mix
from llama_adapter.cli import main
from llama_adapter.multimodal.sight import make_sight
from tests.imagebind_llm.bind_runs import make_imagebind


def cache_of(folder, pictures, imagebind):
    build(BuildConfig(cache=str(folder), source=str(pictures), imagebind=str(imagebind)))
    return folder


@pytest.fixture(scope="module")
def cache(trained, tmp_path_factory):
    """Of the pictures that the model was trained on."""
    return cache_of(tmp_path_factory.mktemp("cache") / "own", trained / "pictures", trained / "imagebind")


@pytest.fixture(scope="module")
def foreign(trained, tmp_path_factory):
    """Of another ImageBind."""
    folder = tmp_path_factory.mktemp("cache")
    other = make_imagebind(folder / "imagebind", seed=1)
    return cache_of(folder / "foreign", trained / "pictures", other)


def only_nothing(files):
    """A reader that has nothing to read."""
    if files:
        raise LookupError(str(list(files)))
    return {}


def test_a_file_is_embedded_once_and_a_picture_each_time(model, rows, monkeypatch):
    sight, (_, picture) = make_sight(model), rows[0][0]
    wanted = sight.inputs([picture])["features"]
    monkeypatch.setattr(type(sight), "processor", property(lambda _: only_nothing))
    torch.testing.assert_close(sight.inputs([None, picture])["features"][1:], wanted, atol=0, rtol=0)
    with Image.open(picture) as opened, pytest.raises(LookupError, match="vision"):
        sight.inputs([opened])


def test_embeddings_pass_through_it(cache, model, rows):
    mixes = [as_mix(row) for row in rows]
    plain = make_sight(model).inputs(mixes)
    found = make_sight(model, visual_cache=cache).inputs(mixes)
    present = plain["feature_mask"][:, 0]
    assert found["feature_mask"].equal(plain["feature_mask"])
    wanted = VisualCache.open(cache).blend(plain["features"][present, 0])
    torch.testing.assert_close(found["features"][present, 0], wanted)
    assert not torch.allclose(wanted, plain["features"][present, 0], atol=1e-3)


def test_from_the_command_line(trained, rows, cache, foreign, capsys):
    (_, picture), *_ = rows[0]
    words = ["generate", "--adapter", str(trained / "second" / "adapter"), "--max-new-tokens", "4"]
    words += ["--prompt", "Say", "--image", f"{picture}:0.5", "--text", "a dog"]
    assert main([*words, "--visual-cache", str(cache)]) == 0
    capsys.readouterr()
    assert main([*words, "--visual-cache", str(foreign)]) == 2
    assert "encoder" in (error := " ".join(capsys.readouterr().err.split()))
    assert str(foreign) in error
    assert main([*words, "--visual-cache", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
