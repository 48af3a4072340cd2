"""The official file to ours and back."""

import pytest
import torch

from imagebind_llm.imagebind.config import ImageBindConfig
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter.cli import main
from tests.imagebind_llm.imagebind.test_golden import golden_model
from tests.imagebind_llm.tiny import IMAGEBIND, official_weights, tiny_config


def convert(*options):
    return main(["convert", "--kind", "imagebind", *map(str, options)])


@pytest.fixture
def sizes(tmp_path):
    """A folder whose config.json has the sizes of the goldens."""
    tiny_config().save_pretrained(tmp_path / "sizes")
    return tmp_path / "sizes"


@pytest.fixture
def official(tmp_path):
    """A file like imagebind_huge.pth."""
    torch.save(official_weights(*IMAGEBIND), tmp_path / "imagebind_huge.pth")
    return tmp_path / "imagebind_huge.pth"


def test_there_and_back(tmp_path, official, sizes):
    assert convert("--checkpoint", official, "--base", sizes, "--output", tmp_path / "ours") == 0
    ours = ImageBindModel.from_pretrained(tmp_path / "ours")
    assert list(ours.towers) == list(IMAGEBIND)
    for name, tensor in golden_model(*IMAGEBIND).state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert (
        convert("--checkpoint", tmp_path / "ours", "--output", tmp_path / "back.pth", "--reverse", "true")
        == 0
    )
    back, wanted = torch.load(tmp_path / "back.pth"), torch.load(official)
    assert list(back) == list(wanted)
    for name, tensor in wanted.items():
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor), name


def test_points_and_half_precision(tmp_path, sizes):
    torch.save({"model": official_weights("point")}, tmp_path / "w3D.pth")
    assert convert("--checkpoint", tmp_path / "w3D.pth", "--base", sizes, "--output", tmp_path / "ours") == 0
    assert (
        convert("--checkpoint", tmp_path / "ours", "--output", tmp_path / "back.pth", "--reverse", "true")
        == 0
    )
    back = torch.load(tmp_path / "back.pth")["model"]
    for name, tensor in official_weights("point").items():
        assert torch.equal(back[name], tensor), name
    options = ["--dtype", "float16", "--overwrite", "true"]
    assert (
        convert(
            "--checkpoint", tmp_path / "w3D.pth", "--base", sizes, "--output", tmp_path / "ours", *options
        )
        == 0
    )
    weight = (
        ImageBindModel.from_pretrained(tmp_path / "ours", dtype="auto").towers["point"].encoder.widen.weight
    )
    assert weight.dtype == torch.float16


def test_published_sizes_need_no_config(tmp_path):
    model = ImageBindModel(ImageBindConfig(towers={"imu": {}}))
    model.save_pretrained(tmp_path / "ours")
    assert (
        convert("--checkpoint", tmp_path / "ours", "--output", tmp_path / "imu.pth", "--reverse", "true") == 0
    )
    options = ["--max_shard_gb", "0.02"]
    assert convert("--checkpoint", tmp_path / "imu.pth", "--output", tmp_path / "again", *options) == 0
    assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 2
    again = ImageBindModel.from_pretrained(tmp_path / "again")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_saved_model_becomes_an_official_file(tmp_path):
    golden_model("text", "imu").save_pretrained(tmp_path / "ours")
    assert (
        convert("--checkpoint", tmp_path / "ours", "--output", tmp_path / "back.pth", "--reverse", "true")
        == 0
    )
    back, wanted = torch.load(tmp_path / "back.pth"), official_weights("text", "imu")
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("kept", [True, False])
def test_how_long_texts_end(tmp_path, sizes, kept):
    torch.save(official_weights("text"), tmp_path / "text.pth")
    options = [] if kept else ["--keep_end_token", "false"]
    assert (
        convert(
            "--checkpoint", tmp_path / "text.pth", "--base", sizes, "--output", tmp_path / "ours", *options
        )
        == 0
    )
    ids = ImageBindProcessor.from_pretrained(tmp_path / "ours")({"text": "word " * 100})["text"]
    assert (49407 in ids) == kept


def test_files_that_do_not_fit(tmp_path, official, sizes, capsys):
    assert convert("--checkpoint", official, "--output", tmp_path / "ours") == 2
    message = capsys.readouterr().err
    assert "imagebind_huge.pth' lacks 1305 of 1310 tensors" in message
    assert "with --base." in message
    weights = official_weights("imu")
    torch.save({**weights, "something.else": torch.zeros(1)}, tmp_path / "more.pth")
    assert convert("--checkpoint", tmp_path / "more.pth", "--base", sizes, "--output", tmp_path / "ours") == 2
    assert "1 tensors that ImageBind does not have: something.else" in capsys.readouterr().err
    weights.pop("modality_heads.imu.3.weight")
    torch.save(weights, tmp_path / "fewer.pth")
    assert (
        convert("--checkpoint", tmp_path / "fewer.pth", "--base", sizes, "--output", tmp_path / "ours") == 2
    )
    assert "modality_heads.imu.3.weight (16, 16) is missing" in capsys.readouterr().err
    torch.save({"layers.0": torch.zeros(1)}, tmp_path / "other.pth")
    assert convert("--checkpoint", tmp_path / "other.pth", "--output", tmp_path / "ours") == 2
    assert "holds no tower of ImageBind, but layers.0" in capsys.readouterr().err
    assert convert("--checkpoint", tmp_path, "--output", tmp_path / "x.pth", "--reverse", "true") == 2
    assert "config.json' is damaged or no JSON file" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert convert("--checkpoint", tmp_path, "--output", tmp_path / "x.pth", "--reverse", "true") == 2
    assert "config.json' is that of a 'llama' model. Use" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()
