"""CLIP as LLaMA-Adapter V2 sees through it; SigLIP and DINOv2 as transformers computes them."""

import numpy
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from llama_adapter import UserError
from llama_adapter.vision import VisionConfig, load_encoder
from tests.adapters.official import GOLDEN
from tests.vision.tiny_encoders import config_of, draw, save_processor

BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTSIDE = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


def golden_clip():
    """The golden file: OpenAI's names without their prefix, and the vectors."""
    tensors = load_file(GOLDEN / "clip_visual_tokens.safetensors")
    visual = {n.removeprefix("clip.visual."): t for n, t in tensors.items() if n.startswith("clip.visual.")}
    (pixels,) = [t for n, t in tensors.items() if n.startswith("golden.inputs")]
    (tokens,) = [t for n, t in tensors.items() if n.startswith("golden.outputs")]
    return visual, pixels, tokens


def to_transformers(visual):
    """OpenAI's tensors under the names of CLIPVisionModelWithProjection."""
    state = {f"vision_model.{ours}": visual[theirs] for theirs, ours in OUTSIDE.items()}
    state["visual_projection.weight"] = visual["proj"].T.contiguous()
    for layer in range(2):
        theirs, ours = f"transformer.resblocks.{layer}.", f"vision_model.encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = visual[f"{theirs}attn.in_proj_{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{ours}self_attn.{name}_proj.{kind}"] = part
            for official, own in BLOCK.items():
                state[f"{ours}{own}.{kind}"] = visual[f"{theirs}{official}.{kind}"]
    return state


@pytest.fixture
def golden_folder(tmp_path):
    visual, _, _ = golden_clip()
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=12,
        patch_size=4,
        projection_dim=24,
    )
    model = CLIPVisionModelWithProjection(config)
    model.load_state_dict(to_transformers(visual))
    model.save_pretrained(tmp_path / "clip")
    save_processor(tmp_path / "clip", 12)
    return str(tmp_path / "clip")


def test_projected_tokens_equal_the_original(golden_folder):
    _, pixels, tokens = golden_clip()
    config = VisionConfig(kind="transformers", name_or_path=golden_folder, projection=True)
    output = load_encoder(config)(pixels)
    torch.testing.assert_close(output.tokens[0], tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.pooled[0], tokens[:, 0], atol=1e-5, rtol=0)


def test_preprocessing_equals_the_original_to_the_bit(golden_folder, shared_data):
    save_processor(golden_folder, 224)
    folder = shared_data / "clip_preproc"
    encoder = load_encoder(VisionConfig(kind="transformers", name_or_path=golden_folder))
    wanted = torch.from_numpy(numpy.load(folder / "expected_preprocessed_image.npy"))
    assert torch.equal(encoder.pixels([folder / "franz-kafka.jpg"]), wanted)


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "dinov2_with_registers"])
def test_levels_are_hidden_states(name, tmp_path):
    config = config_of(name, tmp_path, levels=[0, 1, 2])
    encoder, folder = load_encoder(config), config.name_or_path
    model = (CLIPVisionModel if name == "clip" else AutoModel).from_pretrained(folder).eval()
    pixels = encoder.pixels(draw(tmp_path / "pictures", 2))
    output = encoder(pixels)
    wanted = model(pixel_values=pixels, output_hidden_states=True)
    torch.testing.assert_close(output.tokens[0], wanted.hidden_states[1])
    torch.testing.assert_close(output.tokens[1], wanted.hidden_states[2])
    normed = model.post_layernorm if name == "clip" else lambda tokens: tokens
    torch.testing.assert_close(output.tokens[2], normed(wanted.last_hidden_state))
    torch.testing.assert_close(output.pooled[2], wanted.pooler_output)


def test_missing_weights_are_an_error_and_not_random(tmp_path):
    config = config_of("clip", tmp_path, projection=True)
    load_encoder(config).tower.model.save_pretrained(tmp_path / "without")
    save_processor(tmp_path / "without")
    name = str(tmp_path / "without")
    with pytest.raises(
        UserError,
        match=r"does not fit (?s:.*)visual_projection.weight is missing(?s:.*)set projection to",
    ):
        load_encoder(VisionConfig(kind="transformers", name_or_path=name, projection=True))
    again = load_encoder(VisionConfig(kind="transformers", name_or_path=name))
    paths = draw(tmp_path / "pictures", 1)
    assert torch.equal(again.encode(paths), load_encoder(config_of("clip", tmp_path)).encode(paths))


def test_a_siglip_without_pooling_head_takes_the_mean(tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from tests.vision.tiny_encoders import SHAPE

    SiglipVisionModel(SiglipVisionConfig(**SHAPE, vision_use_head=False)).save_pretrained(tmp_path)
    save_processor(tmp_path)
    output = load_encoder(VisionConfig(kind="transformers", name_or_path=str(tmp_path)))(
        torch.rand(2, 3, 16, 16)
    )
    torch.testing.assert_close(output.pooled[0], output.tokens[0].mean(1))


def test_what_cannot_be_loaded_is_named(tmp_path, tiny_base):
    with pytest.raises(UserError, match="'nowhere/at-all' cannot be loaded: .*Use a folder with config.json"):
        load_encoder(VisionConfig(kind="transformers", name_or_path="nowhere/at-all"))
    with pytest.raises(UserError, match="projection=True does not go with .*siglip', which has none"):
        load_encoder(config_of("siglip", tmp_path, projection=True))
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text((tiny_base / "config.json").read_text())
    save_processor(llama)
    with pytest.raises(UserError, match=r"type 'llama', which is no image encoder known here. Use one of"):
        load_encoder(VisionConfig(kind="transformers", name_or_path=str(llama)))
