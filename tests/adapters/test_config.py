import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftConfig

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters.config import FORMAT_VERSION
from llama_adapter.adapters.norms import NormConfig

OPTIONS = st.fixed_dictionaries(
    {"prompt_length": st.integers(1, 64)},
    optional={
        "preset": st.sampled_from(["v1", "v2", "v21", "chat", "imagebind"]),
        "prompt_layers": st.one_of(st.integers(-8, 8), st.lists(st.integers(0, 31), min_size=1)),
        "gate": st.sampled_from(["head", "scalar"]),
        "gate_activation": st.sampled_from(["tanh", "identity"]),
        "new_gate": st.booleans(),
        "gate_init_std": st.floats(0, 2),
        "norms": st.sampled_from([True, False, {"final_norm": False}]),
        "deltas": st.lists(
            st.sampled_from(
                ["bias", "output_scale", {"kind": "lora", "rank": 4}, {"kind": "bias", "exclude": ["q_proj"]}]
            )
        ),
        "delta_layers": st.integers(1, 8),
        "modules_to_save": st.lists(st.sampled_from(["score", "lm_head"])),
    },
)


@given(OPTIONS)
def test_a_config_survives_being_saved(options):
    config = ZeroInitConfig(task_type="CAUSAL_LM", **options)
    stored = json.loads(json.dumps(config.to_dict()))
    assert ZeroInitConfig(**stored).to_dict() == config.to_dict()


def test_peft_loads_it_by_its_type(tmp_path):
    config = ZeroInitConfig(preset="v2", prompt_length=7)
    config.save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, ZeroInitConfig)
    assert loaded.to_dict() == config.to_dict()


def test_defaults_are_v1_like():
    config = ZeroInitConfig()
    assert (config.prompt_length, config.gate, config.gate_activation) == (10, "head", "tanh")
    assert config.linear_deltas == []
    assert config.tuned_norms is None


def test_options_beside_a_preset_win():
    config = ZeroInitConfig(preset="v2", prompt_length=3, norms=False)
    assert config.prompt_length == 3
    assert config.tuned_norms is None
    assert [delta.kind for delta in config.linear_deltas] == ["output_scale", "bias"]


def test_norms_may_be_written_in_four_ways():
    for value, want in ((True, NormConfig()), (False, None), (None, None), ({}, NormConfig())):
        assert ZeroInitConfig(norms=value).tuned_norms == want


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "v9"}, r"Unknown preset 'v9'\. Use one of \['chat', 'imagebind', 'v1', 'v2', 'v21'\]"),
        ({"prompt_length": -1}, r"prompt_length=-1 is negative\. Use 0 or more"),
        ({"gate_init_std": -0.5}, r"gate_init_std=-0\.5 is negative\. Use 0 or more"),
        ({"prompt_length": 0}, r"prompt_length=0, deltas=\[\], norms=None adapt nothing\. Set one of them"),
        ({"deltas": ["dora"]}, r"Unknown delta 'dora'\. Use one of"),
        ({"norms": {"epsilon": 1}}, r"norms does not take \['epsilon'\]\. Use only"),
        ({"format_version": FORMAT_VERSION + 1}, r"format version 2, newer than 1\. Use a newer program"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(UserError, match=message):
        ZeroInitConfig(**options)


@pytest.mark.parametrize(("name", "value"), [("gate", "layer"), ("gate_activation", "relu")])
def test_unknown_choices_are_named(name, value):
    config = ZeroInitConfig()
    setattr(config, name, value)  # the test run checks types, so the constructor would not let it through
    with pytest.raises(UserError, match=f"{name}='{value}' is unknown. Use one of"):
        config.__post_init__()
