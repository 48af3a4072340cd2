import torch

from llama_adapter.conditioning import GlobalFeatures, GlobalFeaturesConfig


def test_one_vector_per_record_from_features_of_any_scale():
    config = GlobalFeaturesConfig(hidden_size=10, feature_width=6)
    conditioner, features = GlobalFeatures(config), torch.randn(3, 1, 6)
    added = conditioner(features)
    assert added.shape == (3, 1, 10)
    torch.testing.assert_close(conditioner(features * 50), added, atol=1e-4, rtol=0)


def test_the_default_has_about_the_published_number_of_parameters():
    """1.8M with images and 1.2M without, for LLaMA-7B; features of CLIP ViT-L/14."""
    with torch.device("meta"):
        conditioner = GlobalFeatures(GlobalFeaturesConfig(hidden_size=4096, feature_width=768))
    assert 0.55e6 < sum(p.numel() for p in conditioner.parameters()) < 0.65e6
