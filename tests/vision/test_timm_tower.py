"""timm's models as timm computes them."""

import pytest
import timm
import torch

from llama_adapter import UserError
from llama_adapter.vision import VisionConfig, load_encoder
from tests.vision.tiny_encoders import TIMM, config_of, draw


@torch.no_grad()
@pytest.mark.parametrize("name", TIMM)
def test_outputs_are_timms(name, tmp_path):
    encoder = load_encoder(config_of(name, tmp_path, levels=[-1, 0]))
    model = timm.create_model(name, checkpoint_path=str(tmp_path / f"{name}.pth")).eval()
    pixels = encoder.pixels(draw(tmp_path / "pictures", 2))
    output, features = encoder(pixels), model.forward_features(pixels)
    torch.testing.assert_close(output.pooled[0], model.forward_head(features, pre_logits=True))
    head = model.forward_head(features)
    torch.testing.assert_close(head, model(pixels))
    assert output.tokens[0].numel() == features.numel()
    (first,) = model.forward_intermediates(pixels, indices=[0], intermediates_only=True)
    patches = output.tokens[1][:, encoder.tower.prefix_tokens :]
    torch.testing.assert_close(patches, first.flatten(2).mT)


@torch.no_grad()
def test_a_model_without_inner_levels_has_the_last(tmp_path, monkeypatch):
    model = timm.create_model("test_resnet")
    monkeypatch.delattr(type(model), "forward_intermediates")
    config = config_of("test_resnet", tmp_path)
    assert load_encoder(config).encode(draw(tmp_path / "pictures", 1)).dim() == 3
    config.levels = [0, -1]
    assert load_encoder(config).levels == [0, 0]
    config.levels = [1]
    with pytest.raises(UserError, match="names 1, but it has 1"):
        load_encoder(config)


def test_preprocessing_is_that_of_the_model(tmp_path):
    encoder = load_encoder(config_of("test_vit", tmp_path))
    asked = timm.data.resolve_model_data_config(timm.create_model("test_vit"))
    assert encoder.pixels(draw(tmp_path / "pictures", 1)).shape == (1, *asked["input_size"])
    assert encoder.transform.settings["mean"] == list(asked["mean"])


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(UserError, match="'no_such' with the weights None cannot be loaded: .*Use a name of"):
        load_encoder(VisionConfig(kind="timm", name_or_path="no_such"))
    with pytest.raises(UserError, match="'test_vit' with the weights '.*nowhere.pth' cannot be loaded"):
        load_encoder(
            VisionConfig(kind="timm", name_or_path="test_vit", weights=str(tmp_path / "nowhere.pth"))
        )
    with pytest.raises(UserError, match="projection=True does not go with the kind 'timm'. Use open_clip"):
        load_encoder(VisionConfig(kind="timm", name_or_path="test_vit", projection=True))
