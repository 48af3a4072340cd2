"""Images by their files: features in memory or on disk, rows with and without."""

import pytest
import torch

from llama_adapter import UserError
from llama_adapter.multimodal import ImageConditionedModel, Sight
from tests.multimodal.seeing import make_folder
from tests.vision.tiny_encoders import draw


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ImageConditionedModel.from_pretrained(make_folder(tmp_path_factory.mktemp("seeing")), encoder=None)


def test_rows_get_the_features_of_their_images(model, tmp_path):
    paths = draw(tmp_path, 2)
    sight = Sight(model)
    assert sight.inputs([None, None]) == {}
    batch = sight.inputs([paths[1], None, paths[0], paths[1]])
    want = sight.encoder.encode(paths)
    assert torch.equal(batch["features"][0], batch["features"][3])
    torch.testing.assert_close(batch["features"][[2, 0]], want)
    assert batch["feature_mask"].any(1).tolist() == [True, False, True, True]


def refuse(*_):
    raise AssertionError("the encoder was asked")


def test_a_cache_on_disk_spares_the_encoder(model, tmp_path, monkeypatch):
    paths = draw(tmp_path, 3)
    sight = Sight(model, tmp_path / "cache")
    sight.prepare(paths)
    want = sight.inputs(paths)["features"]
    again = Sight(model, tmp_path / "cache")
    monkeypatch.setattr(type(again.encoder), "encode", refuse)
    assert torch.equal(again.inputs(paths)["features"], want)


def test_what_it_sees_through_is_named(model):
    first = Sight(model).identity
    with torch.no_grad():
        next(model.conditioner.parameters()).add_(1)
    assert Sight(model).identity != first
    model.encoder, known = None, model.encoder_config
    model.encoder_config = None
    with pytest.raises(UserError, match="no config.json that names the image encoder .*Use llama_adapter"):
        Sight(model).inputs(["a.png"])
    model.encoder_config = known
