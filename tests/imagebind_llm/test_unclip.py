"""Vectors to draw from, and what a pipeline is given for them."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from imagebind_llm.unclip import POINT_SCALE, DrawingConfig, draw, drawing_vectors, load_pipeline
from llama_adapter import UserError


class FakePipeline:
    """Draws nothing, but keeps what it was given."""

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, width=16):
        self.image_normalizer = SimpleNamespace(mean=torch.zeros(1, width))
        self.given = {}

    def __call__(self, **given):
        self.given = given
        return SimpleNamespace(images=["picture"] * given["num_images_per_prompt"] * len(given["prompt"]))


def test_vectors_keep_their_lengths_and_points_are_divided():
    torch.manual_seed(0)
    image, point = torch.randn(3, 16) * 7, torch.randn(3, 16) * 40
    found = drawing_vectors([("image", image), ("point", point)], [3.0, 1.0])
    torch.testing.assert_close(found, 0.75 * image + 0.25 * point / POINT_SCALE, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(drawing_vectors([("image", image)], [2.0]), image, rtol=1e-5, atol=1e-5)


def test_the_cache_is_asked_with_unit_vectors_and_the_length_is_restored():
    image = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    asked = []

    def blend(vectors):
        asked.append(vectors)
        return torch.tensor([[1.0, 0.0], [0.0, -1.0]])

    found = drawing_vectors([("image", image)], [1.0], blend)
    torch.testing.assert_close(asked[0].norm(dim=1), torch.ones(2))
    torch.testing.assert_close(found, torch.tensor([[5.0, 0.0], [0.0, -2.0]]), rtol=1e-5, atol=1e-5)


def test_a_pipeline_gets_vectors_and_settings():
    pipeline, vectors = FakePipeline(), torch.randn(2, 16)
    config = DrawingConfig(
        prompt="at night", guidance_scale=7.5, noise_level=40, steps=9, pictures=3, size=64, seed=5
    )
    assert draw(pipeline, vectors, config) == ["picture"] * 6
    given = pipeline.given
    assert given["image_embeds"].shape == (2, 16)
    assert given["image_embeds"].dtype == torch.float64
    torch.testing.assert_close(given["image_embeds"].float(), vectors)
    assert given["prompt"] == ["at night"] * 2
    assert given["negative_prompt"] is None
    assert (given["noise_level"], given["guidance_scale"], given["num_inference_steps"]) == (40, 7.5, 9)
    assert (given["height"], given["width"]) == (64, 64)
    assert given["generator"].initial_seed() == 5


def test_the_defaults_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = inspect.signature(diffusers.StableUnCLIPImg2ImgPipeline.__call__).parameters
    pipeline = FakePipeline()
    draw(pipeline, torch.randn(1, 16))
    assert set(pipeline.given) <= set(theirs)
    for name in ("guidance_scale", "noise_level", "num_inference_steps", "num_images_per_prompt"):
        assert pipeline.given[name] == theirs[name].default, name
    assert pipeline.given["generator"] is None


def test_vectors_of_another_width():
    with pytest.raises(UserError, match="The vectors have 16 values, but the unCLIP model draws from 24"):
        draw(FakePipeline(24), torch.randn(1, 16))


@pytest.mark.parametrize(
    ("name", "value"),
    [("noise_level", -1), ("noise_level", 1000), ("steps", 0), ("pictures", 0), ("size", 12)],
)
def test_values_out_of_range(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}"):
        DrawingConfig(**{name: value})


def test_a_model_that_is_not_there(tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(str(tmp_path), torch.device("cpu"))


def tiny_pipeline(width):
    """A real pipeline of diffusers with random weights."""
    import diffusers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextModel(CLIPTextConfig(**shape, vocab_size=1000, projection_dim=16))
    vision = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**shape, projection_dim=width, image_size=32, patch_size=16)
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        attention_head_dim=2,
        layers_per_block=1,
        cross_attention_dim=16,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * width,
    )
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    return diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessorPil(size=32, crop_size=32),
        image_encoder=vision,
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=width),
        image_noising_scheduler=diffusers.DDPMScheduler(),
        tokenizer=words(CLIPTokenizer),
        text_encoder=text,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8),
    )


def words(tokenizer):
    """A tokenizer of letters."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *(f"{letter}</w>" for letter in "abcdefgh")]
    return tokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=[], model_max_length=77)


def test_a_real_pipeline_draws_from_vectors(tmp_path):
    pytest.importorskip("diffusers")
    tiny_pipeline(16).save_pretrained(tmp_path)
    pipeline = load_pipeline(str(tmp_path), torch.device("cpu"))
    pipeline.set_progress_bar_config(disable=True)
    config = DrawingConfig(steps=2, pictures=2, size=16, seed=3, noise_level=10)
    vectors = torch.randn(2, 16)
    first = draw(pipeline, vectors, config)
    assert len(first) == 4
    again = draw(pipeline, vectors, config)
    other = draw(pipeline, -3 * vectors, config)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert any(a.tobytes() != b.tobytes() for a, b in zip(first, other, strict=True))
