"""The mix: alignment, normalisation, encoders of the core, weights in files of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from llama_adapter.errors import UserError
from sphinx_ft.encoders import base, registry
from sphinx_ft.encoders.base import EncoderConfig, GridOutput
from sphinx_ft.mixing import EncoderMix, aligned, renormalised
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.pictures import load_squares
from sphinx_ft.tokens import TokenConfig
from sphinx_ft.views import ViewConfig
from tests.sphinx_ft.tiny import CLIP, MIX, QFORMER, picture, tiny_config, tiny_model

TOWER = EncoderConfig(
    kind="tower", name="small", view_size=32, settings={"kind": "timm", "name_or_path": "test_vit"}
)


@pytest.fixture
def tower():
    """The core's encoder of timm's smallest transformer, with random weights."""
    torch.manual_seed(3)
    return EncoderMix([replace(TOWER, view_size=160)], ViewConfig(image_size=160), grid=10)


def test_a_grid_is_repeated_or_interpolated_and_its_mean_stands_in_for_a_class_token():
    grid = torch.rand(2, 3, 4, 4)
    repeated = aligned(GridOutput(None, grid), 8, "repeat")
    places = repeated[:, 1:].mT.unflatten(2, (8, 8))
    assert torch.equal(places[:, :, ::2, ::2], grid)
    assert torch.equal(places[:, :, 1::2, 1::2], grid)
    torch.testing.assert_close(repeated[:, 0], grid.mean(dim=(2, 3)))
    smaller = aligned(GridOutput(torch.ones(2, 3), grid), 2)
    assert smaller.shape == (2, 5, 3)
    assert torch.equal(smaller[:, 0], torch.ones(2, 3))
    constant = aligned(GridOutput(None, torch.full((1, 3, 5, 5), 0.7)), 16)
    torch.testing.assert_close(constant, torch.full((1, 257, 3), 0.7))


def test_normalisation_is_that_of_the_encoder():
    colours = torch.rand(1, 3, 4, 4)
    clip = (colours - torch.tensor(base.CLIP_MEAN).view(3, 1, 1)) / torch.tensor(base.CLIP_STD).view(3, 1, 1)
    mean, std = torch.tensor(base.IMAGENET_MEAN).view(3, 1, 1), torch.tensor(base.IMAGENET_STD).view(3, 1, 1)
    found = renormalised(clip, base.IMAGENET_MEAN, base.IMAGENET_STD)
    torch.testing.assert_close(found, (colours - mean) / std)
    assert renormalised(clip, base.CLIP_MEAN, base.CLIP_STD) is clip


def test_an_encoder_of_the_core_gives_what_it_gives_alone(tower):
    encoder = tower.encoder(tower.configs[0], torch.device("cpu"))
    image = picture(160, 160)
    squares, useful = load_squares([image], ViewConfig(image_size=160))
    found = tower(squares, useful)
    colours = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    half = torch.tensor(0.5)  # what this encoder's own preprocessing takes for mean and deviation
    alone = encoder.encoder.select(encoder.encoder((colours - half) / half))
    assert tower.mixed_width == alone.shape[2]
    torch.testing.assert_close(found.mixed, alone, atol=1e-4, rtol=1e-4)
    assert not list(tower.parameters())  # its weights are those that its settings name


def test_a_model_mixes_encoders_of_the_core_with_others_and_does_not_save_them(tmp_path):
    model = tiny_model((CLIP, TOWER), views=ViewConfig(image_size=64, rows=2, columns=2, padding="end"))
    assert not any("small" in name for name in model.state_dict())
    squares, useful = load_squares([picture(60, 30)], model.config.view_config)
    tokens = model.image_tokens(squares, useful)
    assert torch.isfinite(tokens).all()
    model.save_pretrained(tmp_path)
    again = SphinxForConditionalGeneration.from_pretrained(tmp_path)
    assert again.encoders.mixed_width == model.encoders.mixed_width
    assert again.config.encoders == model.config.encoders


def test_weights_in_files_of_their_own_are_read_with_the_first_image(tmp_path):
    model = tiny_model()
    squares, useful = load_squares([picture(60, 30)], model.config.view_config)
    with torch.no_grad():
        before = model.image_tokens(squares, useful)
    model.name_encoders(tmp_path / "encoders")
    model.save_pretrained(tmp_path / "model")
    assert not any(name.startswith("encoders.") for name in model.state_dict())
    again = SphinxForConditionalGeneration.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(model.image_tokens(squares, useful), before)
        assert torch.equal(again.image_tokens(squares, useful), before)
    (tmp_path / "encoders" / "clip.safetensors").unlink()
    last = SphinxForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert torch.isfinite(last(torch.tensor([[1, 5]])).logits).all()  # text needs no encoder
    with pytest.raises(UserError, match=r"clip.safetensors' (is damaged|does not fit the encoder 'clip')"):
        last.image_tokens(squares, useful)


def test_views_of_all_images_go_through_together_as_they_do_alone():
    mix = EncoderMix(MIX, tiny_config().view_config, grid=2)
    for weight in mix.parameters():
        nn.init.normal_(weight, std=0.3)
    squares, useful = load_squares([picture(60, 30), picture(20, 50, 1)], mix.views)
    together = mix(squares, useful)
    first = mix(squares[:1], useful[:1])
    torch.testing.assert_close(together.mixed[:3], first.mixed, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        together.queries["qformer"][:3], first.queries["qformer"], atol=1e-4, rtol=1e-4
    )


def test_every_registered_encoder_can_be_made_and_has_a_width():
    configs = {one.kind: one for one in (*MIX, TOWER)}
    assert configs.keys() == registry.ENCODERS.keys()
    for config in configs.values():
        with torch.device("meta"):
            assert registry.make_encoder(config).width > 0


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ((CLIP, CLIP), r"called \['clip', 'clip'\].*a name of its own"),
        ((replace(CLIP, kind="vgg"),), "no encoder of the kind 'vgg'.*Use one of"),
        ((replace(QFORMER, queries=0),), "'qformer' has queries=0. Use a number above 0"),
        ((replace(CLIP, queries=2),), "'clip' has queries=2. Use 0"),
        (
            (replace(CLIP, settings={"depth": 3}),),
            "do not go with the encoder 'clip'.*fields of ClipSettings",
        ),
        ((replace(TOWER, settings={**TOWER.settings, "output": "global"}),), "output='global'"),
    ],
)
def test_refuses_mixes_that_cannot_be(encoders, message):
    with pytest.raises(UserError, match=message):
        EncoderMix(encoders, ViewConfig(), TokenConfig().grid)


def test_refuses_names_with_dots():
    with pytest.raises(UserError, match="called 'a.b'"):
        EncoderConfig(kind="clip", name="a.b")


def test_patches_must_be_a_square():
    with pytest.raises(UserError, match="gave 3 patches"):
        base.as_grid(torch.zeros(1, 4, 2))
