"""Every encoder gives what the original classes gave, from pictures and the official weights."""

import pytest
import torch
from PIL import Image

from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.encoders.registry import make_encoder
from sphinx_ft.mixing import EncoderMix, aligned
from sphinx_ft.official_names import official_tensors
from sphinx_ft.pictures import load_squares
from tests.sphinx_ft.golden_cases import (
    CASES,
    LIGHT,
    SETTINGS,
    SPARSE,
    encoder_configs,
    from_official,
    golden,
    view_config,
)


def encoders_of(case, tensors):
    mix = EncoderMix(encoder_configs(case), view_config(case), 16)
    shapes = {f"encoders.{name}": tuple(weight.shape) for name, weight in mix.state_dict().items()}
    ours = from_official(official_tensors(shapes), tensors)
    mix.load_state_dict({name.removeprefix("encoders."): weight for name, weight in ours.items()})
    return mix.eval()


def pictures_of(tensors):
    return [Image.fromarray(tensors[f"in/image{index}_u8"].numpy()) for index in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_encoders_give_the_original_features_from_pictures(case):
    tensors = golden(case)
    squares, useful = load_squares(pictures_of(tensors), view_config(case))
    torch.testing.assert_close(
        squares[:, :, squares.shape[2] // 2], tensors["mid/pixels_row"], atol=1e-5, rtol=0
    )
    mix = encoders_of(case, tensors)
    assert useful.all()
    found = mix(squares, useful)
    item_major = case in LIGHT + SPARSE
    views = useful.shape[1]

    def ordered(name):
        """In our order, which is image by image."""
        values = tensors[name]
        return values if item_major else values.unflatten(0, (views, 2)).transpose(0, 1).flatten(0, 1)

    convnext = ordered("mid/convnext.out")
    side = convnext.shape[-1]
    start = 0 if case in LIGHT else 8
    grid = found.mixed[:, 1:, start : start + 24].mT.unflatten(2, (16, 16))
    step = 16 // side
    torch.testing.assert_close(grid[:, :, ::step, ::step], convnext, atol=2e-4, rtol=0)
    torch.testing.assert_close(found.mixed[:, 0, -12:], ordered("mid/dinov2.cls"), atol=2e-4, rtol=0)
    torch.testing.assert_close(found.mixed[:, 1:, -12:], ordered("mid/dinov2.patch"), atol=2e-4, rtol=0)
    if case not in LIGHT:
        torch.testing.assert_close(found.mixed[:, :, :8], ordered("mid/clip.out"), atol=2e-4, rtol=0)
        torch.testing.assert_close(found.queries["qformer"], ordered("mid/qformer.out"), atol=2e-4, rtol=0)


def test_positions_of_dinov2_are_resized_as_in_the_original():
    tensors = golden("llama_ens")
    embeddings = encoders_of("llama_ens", tensors).members["dinov2"].model.embeddings
    found = embeddings.interpolate_pos_encoding(torch.zeros(1, 257, 12), 224, 224)
    torch.testing.assert_close(found, tensors["mid/dinov2.pos_embed_16x16"], atol=1e-6, rtol=0)


def test_quick_gelu_is_the_published_alternative():
    tensors = golden("llama_ens")
    squares, useful = load_squares(pictures_of(tensors), view_config("llama_ens"))
    given = encoders_of("llama_ens", tensors).members["clip"]
    quick = make_encoder(EncoderConfig(kind="clip", settings={**SETTINGS["clip"], "quick_gelu": True})).eval()
    quick.load_state_dict(given.state_dict())
    with torch.no_grad():
        found = aligned(quick(squares), 16)
    torch.testing.assert_close(found, tensors["mid/clip.out_if_quickgelu"], atol=1e-4, rtol=0)
