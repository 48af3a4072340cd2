"""The function before a model is the cache's blend, and only for the model's own encoder."""

import faiss
import pytest
import torch

from imagebind_llm import CacheConfig, VisualCache
from imagebind_llm.cache.blending import open_blend
from imagebind_llm.cache.build import BuildConfig, build
from llama_adapter import UserError
from tests.imagebind_llm.cache.caches import random_features
from tests.vision.tiny_encoders import config_of, draw


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return config_of("test_vit", tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    draw(root / "pictures", 5)
    build(BuildConfig(cache=str(root / "cache"), source=str(root / "pictures"), vision=encoder))
    return root / "cache"


def test_it_is_the_blend_of_the_cache(folder, encoder):
    mixes = random_features(3, VisualCache.open(folder).dimension)
    config = CacheConfig(weight=0.2)
    wanted = VisualCache.open(folder, config).blend(mixes)
    assert torch.equal(open_blend(folder, encoder, config)(mixes), wanted)
    assert not torch.equal(open_blend(str(folder), encoder)(mixes), wanted)


def test_another_encoder_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="was built with 'timm test_vit'.*but 'timm test_convnext'"):
        open_blend(folder, config_of("test_convnext", tmp_path))
    with pytest.raises(UserError, match="needs a model that names its image encoder"):
        open_blend(folder, None)


def test_an_index_file_blends_too(encoder, tmp_path):
    index = faiss.IndexFlatIP(4)
    index.add(random_features(20, 4).numpy())
    faiss.write_index(index, str(tmp_path / "knn.index"))
    blend = open_blend(tmp_path / "knn.index", encoder)(random_features(2, 4, seed=1))
    torch.testing.assert_close(blend.norm(dim=-1), torch.ones(2))
