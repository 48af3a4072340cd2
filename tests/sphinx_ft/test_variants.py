"""The published models' settings, and their sizes."""

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from llama_adapter.errors import UserError
from sphinx_ft.mixing import EncoderMix
from sphinx_ft.variants import VARIANTS, variant_config

WIDTHS = {"clip": 1024, "convnext": 3072, "dinov2": 1536}


@pytest.mark.parametrize("name", ["sphinx", "sphinx-tiny"])
def test_encoders_have_the_published_sizes(name):
    config = variant_config(name)
    with torch.device("meta"):
        mix = EncoderMix(config.encoder_configs, config.view_config, 16)
    grid = [one for one in VARIANTS[name].encoders if one["kind"] != "qformer"]
    assert mix.mixed_width == sum(WIDTHS[one["kind"]] for one in grid)
    counts = {key: sum(w.numel() for w in part.parameters()) / 1e6 for key, part in mix.members.items()}
    # millions of parameters as the encoders' publishers state them
    expected = {"clip": 303.97, "convnext": 843.4, "dinov2": 1136.5, "qformer": 1091.3}
    for key, count in counts.items():
        assert count == pytest.approx(expected[key], rel=0.01), key


@pytest.mark.parametrize("name", VARIANTS)
def test_settings_survive_json(name, tmp_path):
    config = variant_config(name)
    config.save_pretrained(tmp_path)
    again = type(config).from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert again.encoder_configs == config.encoder_configs
    assert again.image_token_id == config.text_config.vocab_size


def test_balancing_weights_are_the_published_ones_in_the_terms_of_transformers():
    """An even load gives 1 in the original and, with two experts for each token, 2 in transformers."""
    weights = {name: variant_config(name).text_config for name in ("sphinx-moe", "sphinx-moe-1k")}
    even = load_balancing_loss_func((torch.zeros(64, 8),), 8, 2)
    assert even == pytest.approx(2)
    assert even * weights["sphinx-moe"].router_aux_loss_coef == pytest.approx(0.1)
    assert even * weights["sphinx-moe-1k"].router_aux_loss_coef == pytest.approx(0.01)


def test_refuses_unknown_variants():
    with pytest.raises(UserError, match="no variant 'sphinx-3'.*Use one of"):
        variant_config("sphinx-3")
