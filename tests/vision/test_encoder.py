"""Encoders of all libraries keep the same promises."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter import UserError
from llama_adapter.vision import VisionConfig, load_encoder
from tests.vision.tiny_encoders import NAMES, TIMM, config_of, draw


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_it_is_frozen_and_stays_in_evaluation(name, root, tmp_path):
    encoder = load_encoder(config_of(name, root)).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    features = encoder.encode(draw(tmp_path / "pictures", 1))
    assert not features.requires_grad
    assert features.dtype == torch.float32


def test_levels_are_those_that_were_asked_for(name, root, tmp_path):
    paths = draw(tmp_path / "pictures", 2)
    encoder = load_encoder(config_of(name, root, levels=[-1, 0, -1]))
    output = encoder(encoder.pixels(paths))
    assert torch.equal(output.tokens[0], output.tokens[2])
    alone = load_encoder(config_of(name, root))
    torch.testing.assert_close(alone.encode(paths), output.tokens[0], atol=1e-5, rtol=1e-5)
    for tokens, pooled in zip(output.tokens, output.pooled, strict=True):
        assert len(tokens) == len(pooled) == 2
        assert tokens.isfinite().all()
    assert not torch.allclose(output.tokens[0][0], output.tokens[0][1])
    if encoder.tower.class_token:
        assert torch.equal(output.pooled[1], output.tokens[1][:, 0])


def test_global_features_are_one_token_of_all_levels(name, root, tmp_path):
    paths = draw(tmp_path / "pictures", 2)
    encoder = load_encoder(config_of(name, root, levels=[0, -1], output="global"))
    output = encoder(encoder.pixels(paths))
    features = encoder.encode(paths)
    assert features.shape[1] == 1
    assert torch.equal(features[:, 0], torch.cat(output.pooled, dim=1))
    assert encoder.feature_shape == tuple(features.shape[1:])


def test_half_precision(name, root, tmp_path):
    paths = draw(tmp_path / "pictures", 2)
    whole = load_encoder(config_of(name, root)).encode(paths)
    half = load_encoder(config_of(name, root, dtype="bfloat16")).encode(paths)
    assert half.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(half.float().flatten(), whole.flatten(), dim=0) > 0.99


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(4)), cut=st.integers(1, 3))
def test_an_image_does_not_depend_on_its_batch(name, root, tmp_path, order, cut):
    encoder = _loaded(name, root)
    pixels = torch.stack([encoder.pixels(draw(tmp_path / "pictures", 4))[place] for place in order])
    together = encoder(pixels)
    parts = [encoder(pixels[:cut]), encoder(pixels[cut:])]
    for level in (0, 1):
        apart = torch.cat([part.tokens[level] for part in parts])
        torch.testing.assert_close(together.tokens[level], apart, atol=2e-5, rtol=1e-4)
        apart = torch.cat([part.pooled[level] for part in parts])
        torch.testing.assert_close(together.pooled[level], apart, atol=2e-5, rtol=1e-4)


_LOADED = {}


def _loaded(name, root):
    if name not in _LOADED:
        _LOADED[name] = load_encoder(config_of(name, root, levels=[-2, -1]))
    return _LOADED[name]


# The cache


def test_features_are_computed_once(name, root, tmp_path, monkeypatch):
    paths = draw(tmp_path / "pictures", 3)
    options = {"cache": tmp_path / "cache", "batch_size": 2, "progress": False}
    encoder = load_encoder(config_of(name, root, stored_dtype="float32"))
    table = encoder.features([*paths, paths[0]], **options)
    assert list(table) == paths
    for path in paths:
        torch.testing.assert_close(table[path], encoder.encode([path])[0], atol=2e-5, rtol=1e-4)
    again = load_encoder(config_of(name, root, stored_dtype="float32"))
    monkeypatch.setattr(again, "encode", lambda paths: pytest.fail("computed again"))
    assert torch.equal(again.features(paths, **options)[paths[1]], table[paths[1]])


def test_the_identity_does_not_depend_on_places_and_times(tmp_path):
    found = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for name in ("clip", "open_clip", "test_vit"):
            encoder = load_encoder(config_of(name, tmp_path / folder))
            encoder(torch.zeros(1, 3, *encoder.pixels(draw(tmp_path / "p", 1)).shape[2:]))
            found.append(encoder.identity)
    assert found[:3] == found[3:]


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [0]},
        {"output": "global"},
        {"projection": True},
        {"channels": "bgr"},
        {"dtype": "bfloat16"},
        {"stored_dtype": "float32"},
    ],
)
@pytest.mark.parametrize("name", ["clip", "open_clip"])
def test_what_decides_features_is_in_the_identity(name, change, root):
    assert (
        load_encoder(config_of(name, root, **change)).identity != load_encoder(config_of(name, root)).identity
    )


def test_heads_which_no_weight_shows_are_in_the_identity(tmp_path):
    from tests.vision.tiny_encoders import OPEN_CLIP, open_clip_folder

    found = []
    for width in (12, 24):
        vision = {**OPEN_CLIP["vision_cfg"], "head_width": width}
        torch.manual_seed(0)
        name = open_clip_folder(tmp_path / str(width), {**OPEN_CLIP, "vision_cfg": vision})
        found.append(load_encoder(VisionConfig(kind="open_clip", name_or_path=name)).identity)
    assert found[0].encoder["weights"] == found[1].encoder["weights"]
    assert found[0] != found[1]


# What is refused


def test_levels_that_are_not_there_are_named(root):
    with pytest.raises(UserError, match="names 3, but it has 3. Use numbers from -3 to 2"):
        load_encoder(config_of("clip", root, levels=[3]))
    with pytest.raises(UserError, match=r"levels of the image encoder is \[\]. Use \[-1\]"):
        config_of("clip", root, levels=[])


def test_stages_of_different_sizes_do_not_make_tokens(root, tmp_path):
    encoder = load_encoder(config_of("test_resnet", root, levels=[0, -1]))
    with pytest.raises(UserError, match="do not go side by side. Use levels with the same number of tokens"):
        encoder.encode(draw(tmp_path / "pictures", 1))


def test_random_weights_are_said(caplog):
    load_encoder(VisionConfig(kind="timm", name_or_path=TIMM[0]))
    assert "'test_vit' has random weights. Set weights" in caplog.text
