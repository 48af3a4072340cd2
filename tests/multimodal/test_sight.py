"""Images by their files: features in memory or on disk, rows with and without."""

import pytest
import torch

from llama_adapter import UserError
from llama_adapter.media import as_shown, read_inputs
from llama_adapter.multimodal import ImageConditionedModel, Sight
from llama_adapter.multimodal.sight import make_sight
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


def test_several_images_of_a_row_are_averaged_as_the_processor_does(model, tmp_path):
    paths = draw(tmp_path, 3)
    both = as_shown(read_inputs({"image": paths[:2]}))
    with pytest.raises(UserError, match="came for a model, .* several with --several-images average"):
        Sight(model).inputs([both])
    sight = make_sight(model, several_images="average")
    batch = sight.inputs([None, both, paths[2]])
    assert batch["has_image"].tolist() == [0, 2, 1]
    torch.testing.assert_close(batch["features"], sight.encoder.encode(paths))
    ids = torch.tensor([[5, 6, 7]] * 3)
    with torch.no_grad():
        found = model(input_ids=ids, **batch).logits
        pixels = {"pixel_values": sight.encoder.pixels(paths), "has_image": batch["has_image"]}
        assert torch.equal(found, model(input_ids=ids, **pixels).logits)
        alone = model(input_ids=ids[:1], **sight.inputs([paths[2]])).logits
    torch.testing.assert_close(found[2:], alone)
    weighted = as_shown(read_inputs({"image": [paths[0], f"{paths[1]}:0.5"]}))
    with pytest.raises(UserError, match="x 0.5 came for a model"):
        sight.inputs([weighted])


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
