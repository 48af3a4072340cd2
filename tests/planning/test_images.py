"""Plans of runs with images: what is counted, and the example files of the published models."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from llama_adapter import arguments
from llama_adapter.errors import UserError
from llama_adapter.planning import PlanConfig, estimate
from llama_adapter.planning.fake_model import FeatureShape, build_on_meta
from tests.vision.tiny_encoders import config_of

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("v[12]*_7b.yaml"))
BIND = sorted((Path(__file__).parents[2] / "examples").glob("imagebind_llm_*_7b.yaml"))


@pytest.fixture
def base(tmp_path):
    """The settings of a thin model."""
    return thin(tmp_path / "base", layers=4)


def thin(folder, layers):
    """Write the settings of a model of little width."""
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    config.save_pretrained(folder)
    return str(folder)


def plan_of(path, *options):
    stated = ["--tokens_per_record", "20", "--records", "64", "--compare", "false", "--gpu", "a100-80gb"]
    return arguments.parse(PlanConfig, [str(path), *stated, *options], "plan")


def small_run(tmp_path, base, *options):
    """A thin run with a tiny CLIP."""
    vision = config_of("clip", tmp_path, projection=True)
    text = f"""
base: {{name_or_path: {base}}}
adapter: {{prompt_length: 3, prompt_layers: 2}}
vision: {{kind: transformers, name_or_path: {vision.name_or_path}, projection: true}}
conditioner: {{kind: visual_queries, width: 8, depth: 1, num_heads: 2, mlp_width: 16}}
data: {{train: [{{path: nowhere.json}}], max_length: 24}}
training: {{use_cpu: true, per_device_train_batch_size: 2}}
"""
    (tmp_path / "run.yaml").write_text(text)
    return estimate(plan_of(tmp_path / "run.yaml", *options))


@pytest.mark.slow
@pytest.mark.parametrize("path", [*EXAMPLES, *BIND], ids=[path.stem for path in [*EXAMPLES, *BIND]])
def test_every_example_with_images_can_be_planned(path, tmp_path):
    features = ["--feature_tokens", "1", "--feature_width", "4096"]
    if "v2" in path.stem:
        features = ["--feature_tokens", "257", "--feature_width", "768"]
    if "imagebind" in path.stem:
        features = ["--feature_tokens", "1", "--feature_width", "1024"]
    plan = estimate(plan_of(path, "--base.name_or_path", thin(tmp_path, layers=32), *features))
    assert plan.device.fits
    assert {"conditioner"} <= {part.part for part in plan.parts}
    assert plan.load.images == 64
    assert all(value >= 0 for value in (plan.flops.per_token, plan.flops.per_square, plan.flops.per_batch))
    assert plan.flops.per_seeing_record > 0.999 * plan.flops.per_blind_row > 0
    assert plan.flops.per_image == pytest.approx(0, abs=1)


def test_the_counts_of_the_published_models_at_7b():
    trainable = {}
    for path in EXAMPLES:
        config = plan_of(path, "--feature_tokens", "257", "--feature_width", "768")
        width = 4096 if "v1" in path.stem else 768
        with torch.device("meta"):
            model = build_on_meta(LlamaConfig(), config, torch.bfloat16, FeatureShape(257, width))
        trainable[path.stem] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # the published count has 32 gates of a layer without prompts, too
    assert trainable["v2_stage1_7b"] == 61_731_584 - 32
    assert 1.75e6 < trainable["v1_scienceqa_7b"] < 1.85e6


@pytest.mark.parametrize("batching", ["rows", "packed"])
def test_what_an_image_costs_is_counted(tmp_path, base, batching):
    more = ["--training.batching", batching]
    cached = small_run(tmp_path, base, *more)
    live = small_run(tmp_path, base, *more, "--data.images", "live")
    parts = {part.part: part for part in cached.parts}
    assert parts["conditioner"].trainable > 0
    assert "image encoder" not in parts
    assert {part.part: part for part in live.parts}["image encoder"].frozen > 0
    assert live.forward_flops > cached.forward_flops
    assert live.flops.per_image > 0 == round(cached.flops.per_image)
    assert cached.flops.per_seeing_record > cached.flops.per_blind_row > 0
    blind = small_run(tmp_path, base, *more, "--image_share", "0")
    assert blind.load.images == 0
    assert blind.forward_flops < cached.forward_flops
    assert blind.flops.per_blind_row == pytest.approx(cached.flops.per_blind_row, rel=1e-6)


def test_an_encoder_that_is_not_at_hand_is_stated(tmp_path, base):
    with pytest.raises(UserError, match="is not at hand: .* Or state its features with --feature-tokens"):
        small_run(tmp_path, base, "--vision.name_or_path", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="feature_tokens=3 and feature_width=None .* Use both, or none"):
        small_run(tmp_path, base, "--feature_tokens", "3")
    with pytest.raises(UserError, match=r"--image_share: got .2.\. Use a number from 0 to 1"):
        small_run(tmp_path, base, "--image_share", "2")
