import pytest
import torch
from safetensors.torch import save_file

from llama_adapter import UserError
from llama_adapter.conditioning import load_conditioner, save_conditioner
from llama_adapter.conditioning.files import CONDITIONER_FILE, SETTINGS_FILE
from tests.conditioning.test_base import features, small


@pytest.mark.parametrize("kind", ["global_features", "visual_queries"])
def test_what_is_saved_comes_back(tmp_path, kind):
    conditioner = small(kind, early_layers=2)
    save_conditioner(conditioner, tmp_path / "new")
    again = load_conditioner(tmp_path / "new")
    assert again.config == conditioner.config
    assert torch.equal(again(features(kind))[1], conditioner(features(kind))[1])


def test_official_tensors_need_no_settings(tmp_path):
    conditioner = small("visual_queries")
    save_file(conditioner.state_dict(), tmp_path / CONDITIONER_FILE)
    assert load_conditioner(tmp_path, num_heads=2).config == conditioner.config
    with pytest.raises(UserError, match="width=8 .* 16 heads. Set num_heads"):
        load_conditioner(tmp_path)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="damaged or no safetensors.*Use a folder that save_conditioner"):
        load_conditioner(tmp_path)
    save_conditioner(small("visual_queries"), tmp_path)
    settings = tmp_path / SETTINGS_FILE
    settings.write_text(settings.read_text().replace('"depth": 2', '"depth": 3'))
    with pytest.raises(
        UserError, match=r"does not fit the settings in its config.json(?s:.*)visual_blocks.2"
    ):
        load_conditioner(tmp_path)
    settings.write_text("{")
    with pytest.raises(UserError, match="damaged or no JSON file"):
        load_conditioner(tmp_path)
