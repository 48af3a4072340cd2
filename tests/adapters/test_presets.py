import pytest
from peft import get_peft_model

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.presets import PRESETS
from tests.adapters import tiny


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_valid_configs(preset):
    assert ZeroInitConfig(preset=preset).peft_type == "ZERO_INIT"


def test_v1_leaves_the_first_two_layers_alone_and_v2_the_first():
    for preset, count in (("v1", 2), ("v2", 3), ("imagebind", 4)):
        model = get_peft_model(tiny.llama(), ZeroInitConfig(preset=preset))
        assert sum("zero_init_prompt" in name for name, _ in model.named_parameters()) == count


def test_v2_tunes_no_keys_and_values_and_chat_tunes_all():
    for preset, want in (("v2", False), ("v21", False), ("chat", True)):
        names = [
            name for name, _ in get_peft_model(tiny.llama(), ZeroInitConfig(preset=preset)).named_parameters()
        ]
        assert any("k_proj.zero_init_bias" in name for name in names) is want
        assert any("q_proj.zero_init_bias" in name for name in names)
