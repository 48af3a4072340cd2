"""``ZeroInitConfig`` as PEFT stores it, and what it notices when an adapter is loaded."""

import json
import warnings

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from peft import PeftConfig, PeftModel, get_peft_model

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters.config import FORMAT_VERSION
from llama_adapter.adapters.deltas import DELTAS, parse_delta
from llama_adapter.adapters.presets import PRESETS

LAYERS = st.none() | st.integers(-8, 40).filter(bool) | st.lists(st.integers(0, 40), min_size=1, max_size=5)
NAMES = st.lists(
    st.sampled_from(["attention", "mlp", "q_proj", "down_proj", "query"]), min_size=1, max_size=3
)


@st.composite
def deltas(draw):
    kind = draw(st.sampled_from(sorted(DELTAS)))
    if draw(st.booleans()):
        return kind
    options = {"kind": kind}
    if draw(st.booleans()):
        options["targets"] = draw(NAMES)
    if draw(st.booleans()):
        options["exclude"] = draw(NAMES)
    if kind == "lora":
        options["rank"] = draw(st.integers(1, 64))
    return options


NORMS = (
    st.none()
    | st.booleans()
    | st.fixed_dictionaries({}, optional={"targets": NAMES, "final_norm": st.booleans()})
)

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "preset": st.sampled_from(sorted(PRESETS)),
        "prompt_length": st.integers(1, 64),
        "prompt_layers": LAYERS,
        "gate": st.sampled_from(["head", "scalar"]),
        "gate_activation": st.sampled_from(["tanh", "identity"]),
        "new_gate": st.booleans(),
        "prompt_init_std": st.floats(0, 2),
        "gate_init_std": st.floats(0, 2),
        "deltas": st.lists(deltas(), max_size=4),
        "norms": NORMS,
        "delta_layers": LAYERS,
        "layer_stack": st.sampled_from(["model.layers", "vision_model.encoder.layers"]),
        "modules_to_save": st.lists(st.sampled_from(["lm_head", "classifier"]), min_size=1, max_size=2),
        "task_type": st.sampled_from(["CAUSAL_LM", "SEQ_CLS"]),
        "inference_mode": st.booleans(),
    },
)


@given(options=OPTIONS, as_objects=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_config_survives_its_file(options, as_objects, tmp_path):
    if as_objects and "deltas" in options:
        options = options | {"deltas": [parse_delta(delta) for delta in options["deltas"]]}
    adapts_nothing = options.get("preset") == "chat" and not options.get("prompt_length")
    assume(not adapts_nothing or options.get("deltas") or options.get("norms"))
    config = ZeroInitConfig(**options)
    config.save_pretrained(tmp_path)
    again = PeftConfig.from_pretrained(tmp_path)
    assert type(again) is ZeroInitConfig
    saved_only = {"peft_version", "inference_mode"}  # PEFT sets both on saving
    assert {k: v for k, v in again.to_dict().items() if k not in saved_only} == {
        k: v for k, v in config.to_dict().items() if k not in saved_only
    }
    assert again.prompts == config.prompts


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_is_saved_as_its_options(preset, tmp_path):
    """So that a later change of a preset does not change adapters made with it."""
    ZeroInitConfig(preset=preset).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["preset"] is None
    for name, value in PRESETS[preset].items():
        if name not in ("deltas", "norms"):
            assert saved[name] == value
    assert [delta["kind"] for delta in saved["deltas"]] == [
        delta if isinstance(delta, str) else delta["kind"] for delta in PRESETS[preset].get("deltas", [])
    ]


def test_a_file_of_a_later_format_is_refused(tiny_llama, tmp_path):
    get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match="pip install --upgrade llama-adapter"):
        PeftModel.from_pretrained(tiny_llama(), tmp_path)


class TestFingerprint:
    """An adapter on another base than its own: a warning that names the difference, no error."""

    @pytest.fixture
    def adapter_dir(self, tiny_llama, tmp_path):
        get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
        return tmp_path

    def test_same_base_is_silent(self, tiny_llama, adapter_dir):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            PeftModel.from_pretrained(tiny_llama(), adapter_dir)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_another_precision_is_silent(self, tiny_llama, adapter_dir, dtype):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            PeftModel.from_pretrained(tiny_llama(dtype=dtype), adapter_dir)

    def test_other_weights_of_the_same_sizes(self, tiny_llama, adapter_dir):
        with pytest.warns(UserWarning, match="another base model: the embedding weights differ"):
            PeftModel.from_pretrained(tiny_llama(seed=1), adapter_dir)

    def test_other_sizes(self, tiny_llama, tmp_path):
        config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_layers=[0])
        get_peft_model(tiny_llama(), config).save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match="num_hidden_layers was 2, is 3.*Load it on the base"):
            PeftModel.from_pretrained(tiny_llama(num_hidden_layers=3), tmp_path)

    def test_a_config_may_serve_two_models(self, tiny_llama, tmp_path):
        """Attaching notes the base in the config; the next fresh model must not be judged by that note."""
        config = ZeroInitConfig(task_type="CAUSAL_LM")
        get_peft_model(tiny_llama(), config)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model = get_peft_model(tiny_llama(seed=1), config)
            model.save_pretrained(tmp_path)
            PeftModel.from_pretrained(tiny_llama(seed=1), tmp_path)
        with pytest.warns(UserWarning, match="the embedding weights differ"):
            PeftModel.from_pretrained(tiny_llama(), tmp_path)

    def test_a_read_config_is_judged_each_time(self, tiny_llama, adapter_dir):
        config = PeftConfig.from_pretrained(adapter_dir)
        for _ in range(2):
            with pytest.warns(UserWarning, match="the embedding weights differ"):
                get_peft_model(tiny_llama(seed=1), config)
