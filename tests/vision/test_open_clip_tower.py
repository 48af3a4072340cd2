"""open_clip's encoders beside OpenAI's numbers and open_clip's own."""

import numpy
import open_clip
import pytest
import torch

from llama_adapter import UserError
from llama_adapter.vision import VisionConfig, load_encoder
from tests.vision.test_transformers_tower import golden_clip
from tests.vision.tiny_encoders import OPEN_CLIP, config_of, draw, open_clip_folder

GOLDEN = {
    **OPEN_CLIP,
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 12, "patch_size": 4, "width": 32, "layers": 2, "head_width": 8},
}


def test_projected_tokens_equal_the_original(tmp_path):
    visual, pixels, tokens = golden_clip()
    name = open_clip_folder(tmp_path / "clip", GOLDEN, visual)
    output = load_encoder(VisionConfig(kind="open_clip", name_or_path=name, projection=True))(pixels)
    torch.testing.assert_close(output.tokens[0], tokens, atol=1e-5, rtol=0)


@torch.no_grad()
def test_global_features_are_open_clips(tmp_path):
    encoder = load_encoder(config_of("open_clip", tmp_path, projection=True, output="global"))
    model = open_clip.create_model(encoder.config.name_or_path).eval()
    pixels = encoder.pixels(draw(tmp_path / "pictures", 2))
    torch.testing.assert_close(encoder(pixels).pooled[0], model.encode_image(pixels))


@torch.no_grad()
def test_inner_levels_are_outputs_of_blocks(tmp_path):
    encoder = load_encoder(config_of("open_clip", tmp_path, levels=[1, 0]))
    found = []
    for block in encoder.tower.model.transformer.resblocks:
        block.register_forward_hook(lambda module, inputs, output: found.append(output))
    output = encoder(torch.rand(2, 3, 16, 16))
    assert torch.equal(output.tokens[0], found[1])
    assert torch.equal(output.tokens[1], found[0])


def test_preprocessing_equals_the_original_to_the_bit(tmp_path, shared_data):
    vision = {**OPEN_CLIP["vision_cfg"], "image_size": 224, "patch_size": 56}
    name = open_clip_folder(tmp_path / "clip", {**OPEN_CLIP, "vision_cfg": vision})
    encoder = load_encoder(VisionConfig(kind="open_clip", name_or_path=name))
    folder = shared_data / "clip_preproc"
    wanted = torch.from_numpy(numpy.load(folder / "expected_preprocessed_image.npy"))
    assert torch.equal(encoder.pixels([folder / "franz-kafka.jpg"]), wanted)


def test_what_cannot_be_taken_is_named(tmp_path):
    with pytest.raises(UserError, match="'no-such' with the weights None cannot be loaded"):
        load_encoder(VisionConfig(kind="open_clip", name_or_path="no-such"))
    with pytest.raises(UserError, match="is a TimmModel, .*projection=True. Use projection=False"):
        load_encoder(config_of("open_clip_timm", tmp_path, projection=True))
    convolutional = {**OPEN_CLIP["vision_cfg"], "layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    name = open_clip_folder(tmp_path / "resnet", {**OPEN_CLIP, "vision_cfg": convolutional})
    with pytest.raises(UserError, match="is a ModifiedResNet, whose tokens cannot be taken"):
        load_encoder(VisionConfig(kind="open_clip", name_or_path=name))
