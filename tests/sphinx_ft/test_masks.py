"""Masks by a random SAM: the interface, not what it finds."""

import numpy as np
import pytest

from llama_adapter.errors import UserError
from sphinx_ft.boxes import Mark
from sphinx_ft.masks import BoxMasks

image = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")
pytest.importorskip("torchvision", reason="torchvision is not installed: pip install torchvision")


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    torch.manual_seed(0)
    config = SamConfig(
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
            "patch_size": 16, "output_channels": 16, "num_pos_feats": 8, "mlp_dim": 16, "window_size": 2,
            "global_attn_indexes": [0],
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8,
            "num_hidden_layers": 1,
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    SamModel(config).save_pretrained(folder)
    sizes = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    SamProcessor(SamImageProcessor(**sizes, mask_size={"longest_edge": 16})).save_pretrained(folder)
    return folder


def test_every_box_gets_a_mask_of_the_pictures_size(sam):
    picture = image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8))
    marks = [Mark("a", (5.0, 5.0, 50.0, 30.0)), Mark("b", (7.0, 8.0)), Mark("c", (60.0, 10.0, 80.0, 35.0))]
    find = BoxMasks(sam)
    masks = find(picture, marks)
    assert masks.shape == (3, 40, 90)
    assert not masks[1].any()  # a point
    assert np.array_equal(find(picture, marks[2:])[0], masks[2])  # each box for itself
    assert find(picture, marks[1:2]).shape == (1, 40, 90)
    assert not find(picture, [Mark("", (5.0, 5.0, 5.0, 30.0))]).any()


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="where no SAM is found"):
        BoxMasks(tmp_path)
