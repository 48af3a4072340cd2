"""The life of an adapter in PEFT: save, load, add, switch, disable, delete, take off."""

import copy

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_layer_status,
    get_model_status,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llama_adapter import UserError, ZeroInitConfig

V2 = {"task_type": "CAUSAL_LM", "preset": "v2"}


@pytest.fixture
def adapted(tiny_llama, stir):
    """A V2-style adapter that has been moved off its start."""
    return stir(get_peft_model(tiny_llama(), ZeroInitConfig(**V2))).eval()


@pytest.fixture
def adapter_dir(llama_dir, tmp_path, stir):
    """A saved adapter whose config names its base folder."""
    base = AutoModelForCausalLM.from_pretrained(llama_dir)
    model = stir(get_peft_model(base, ZeroInitConfig(**V2)))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_saved_file_holds_the_adapter_alone(adapted, tmp_path):
    adapted.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert tensors
    assert all("zero_init_" in name and ".default" not in name for name in tensors)
    trainable, _ = adapted.get_nb_trainable_parameters()
    assert sum(tensor.numel() for tensor in tensors.values()) == trainable


def test_loading_gives_equal_logits(adapted, tiny_llama, ids, logits, tmp_path):
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(again, ids), logits(adapted, ids))
    assert not any(p.requires_grad for p in again.parameters())
    assert again.peft_config["default"].inference_mode


def test_loading_to_train_on(adapted, tiny_llama, ids, logits, tmp_path):
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path, is_trainable=True)
    assert torch.equal(logits(again, ids), logits(adapted, ids))
    assert again.get_nb_trainable_parameters() == adapted.get_nb_trainable_parameters()
    again.train()
    again(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in again.parameters() if p.requires_grad)


def test_loading_through_the_meta_device(adapted, tiny_llama, ids, logits, tmp_path):
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path, low_cpu_mem_usage=True)
    assert not any(p.is_meta for p in again.parameters())
    assert torch.equal(logits(again, ids), logits(adapted, ids))


def test_loading_with_torch_dtype(adapted, tiny_llama, ids, logits, tmp_path):
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(dtype=torch.bfloat16), tmp_path, torch_dtype=torch.bfloat16)
    expected = logits(adapted, ids)
    assert logits(again, ids).dtype == torch.bfloat16
    assert (logits(again, ids).float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_auto_peft_model_finds_the_base(adapter_dir, llama_dir, ids, logits):
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_dir), adapter_dir)
    model = AutoPeftModelForCausalLM.from_pretrained(adapter_dir)
    assert torch.equal(logits(model, ids), logits(expected, ids))
    half = AutoPeftModelForCausalLM.from_pretrained(adapter_dir, dtype=torch.bfloat16)
    assert half.get_input_embeddings().weight.dtype == torch.bfloat16
    assert logits(half, ids).dtype == torch.bfloat16


def test_several_adapters_are_switched_and_deleted(adapted, tiny_llama, ids, logits, stir, tmp_path):
    base = logits(tiny_llama(), ids)
    first = logits(adapted, ids)
    adapted.add_adapter("second", ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=4, prompt_layers=1))
    assert torch.equal(logits(adapted, ids), first), "adding must not switch"

    adapted.set_adapter("second")
    stir(adapted, seed=2, adapter="second")
    second = logits(adapted, ids)
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trainable
    assert all("second" in name for name in trainable)
    assert not torch.equal(second, first)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted, ids), base)
    adapted.set_adapter("default")
    assert torch.equal(logits(adapted, ids), first)

    adapted.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert (tmp_path / "second" / "adapter_model.safetensors").is_file()
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    again.load_adapter(tmp_path / "second", adapter_name="other name")
    assert torch.equal(logits(again, ids), first)
    again.set_adapter("other name")
    assert torch.equal(logits(again, ids), second)

    again.delete_adapter("default")
    assert torch.equal(logits(again, ids), second)
    assert not any(".default" in name for name, _ in again.named_parameters())
    with pytest.raises(ValueError, match="default"):
        again.set_adapter("default")


def test_only_the_chosen_adapter_is_saved(adapted, tmp_path):
    adapted.add_adapter("second", ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=4))
    adapted.save_pretrained(tmp_path, selected_adapters=["second"])
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["second"]
    assert not (tmp_path / "adapter_model.safetensors").exists()


def test_deleting_the_active_adapter_falls_back_to_the_other(adapted, ids, logits):
    before = logits(adapted, ids)
    adapted.add_adapter("second", ZeroInitConfig(task_type="CAUSAL_LM"))
    adapted.set_adapter("second")
    with pytest.warns(UserWarning, match="second"):
        adapted.delete_adapter("second")
    assert torch.equal(logits(adapted, ids), before)


def test_counts_and_status(adapted, capsys):
    adapted.add_adapter("second", ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=4))
    adapted.print_trainable_parameters()
    count = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert f"trainable params: {count:,}" in capsys.readouterr().out

    status = get_model_status(adapted)
    assert status.peft_types == {"default": "ZERO_INIT", "second": "ZERO_INIT"}
    assert status.enabled is True
    assert status.active_adapters == ["default"]
    assert status.merged_adapters == []
    assert status.requires_grad == {"default": True, "second": False}
    assert sorted(status.available_adapters) == ["default", "second"]
    assert status.trainable_params == count

    layers = get_layer_status(adapted)
    assert len(layers) == status.num_adapter_layers
    prompts = [layer for layer in layers if layer.module_type == "PromptLayer"]
    assert [layer.name for layer in prompts] == [
        f"model.model.layers.{i}.self_attn.prompt_attention" for i in range(2)
    ]
    assert prompts[0].available_adapters == ["second"]
    assert sorted(prompts[1].available_adapters) == ["default", "second"]


def test_merging_is_refused_and_changes_nothing(adapted, ids, logits):
    before = logits(adapted, ids)
    for merge in (adapted.merge_and_unload, adapted.merge_adapter):
        with pytest.raises(NotImplementedError, match=r"do not merge.*unload\(\)"):
            merge()
        assert torch.equal(logits(adapted, ids), before)


def test_unload_gives_the_base_back(adapted, tiny_llama, ids, logits):
    fresh = tiny_llama()
    base = adapted.unload()
    assert torch.equal(logits(base, ids), logits(fresh, ids))
    assert set(base.state_dict()) == set(fresh.state_dict())
    assert [type(m) for m in base.modules()] == [type(m) for m in fresh.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")  # PEFT's second one
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prompt_length": 2}, {"prompt_length": 3, "prompt_layers": 1}),
        ({"prompt_length": 0, "deltas": ["lora"]}, {"prompt_length": 0, "deltas": ["lora"]}),
        ({"preset": "v2"}, {"preset": "v2"}),
        ({"preset": "v2"}, {"prompt_length": 0, "deltas": ["bias"]}),
        ({"preset": "chat"}, {"preset": "v21"}),
    ],
)
def test_a_second_adapter_of_one_name_takes_the_place_of_the_first(
    first, second, tiny_llama, ids, logits, stir
):
    """As when the cell of a notebook is run twice; PEFT warns of it, and nothing of the first is left."""
    base = tiny_llama()
    stir(get_peft_model(base, ZeroInitConfig(task_type="CAUSAL_LM", **first)))
    with pytest.warns(UserWarning, match="second time"):
        again = get_peft_model(base, ZeroInitConfig(task_type="CAUSAL_LM", **second)).eval()
    fresh = get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM", **second)).eval()
    assert torch.equal(logits(again, ids), logits(tiny_llama(), ids))
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in fresh.named_parameters() if p.requires_grad
    }
    assert again.get_nb_trainable_parameters()[0] == fresh.get_nb_trainable_parameters()[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_second_adapter_that_does_not_fit_leaves_the_first(adapted, ids, logits):
    before = logits(adapted, ids)
    with pytest.raises(UserError, match="does not fit"):
        get_peft_model(adapted.get_base_model(), ZeroInitConfig(task_type="CAUSAL_LM", prompt_layers=9))
    assert torch.equal(logits(adapted, ids), before)


def test_other_methods_are_refused_beside_it(adapted, tiny_llama):
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="different peft types"):
        adapted.add_adapter("another", lora)
    other = get_peft_model(tiny_llama(), lora)
    with pytest.raises(ValueError, match="different peft types"):
        other.add_adapter("another", ZeroInitConfig(task_type="CAUSAL_LM"))


def test_modules_to_save_travel_with_the_adapter(tiny_llama, ids, logits, tmp_path):
    config = ZeroInitConfig(task_type="CAUSAL_LM", modules_to_save=["lm_head"])
    model = get_peft_model(tiny_llama(), config)
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.add_(0.5)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(again, ids), logits(model, ids))
    with again.disable_adapter():
        assert torch.equal(logits(again, ids), logits(tiny_llama(), ids))


def test_a_user_can_keep_the_state_dict_himself(adapted, tiny_llama, ids, logits):
    from peft import set_peft_model_state_dict

    state = copy.deepcopy(get_peft_model_state_dict(adapted))
    again = get_peft_model(tiny_llama(), ZeroInitConfig(**V2))
    result = set_peft_model_state_dict(again, state)
    assert not result.unexpected_keys
    assert torch.equal(logits(again.eval(), ids), logits(adapted, ids))


def test_model_card_names_base_and_library(adapter_dir, llama_dir):
    card = (adapter_dir / "README.md").read_text()
    assert f"base_model: {llama_dir}" in card
    assert "library_name: peft" in card


def test_config_class_is_found_from_the_file(adapter_dir, llama_dir):
    config = PeftConfig.from_pretrained(adapter_dir)
    assert isinstance(config, ZeroInitConfig)
    assert config.base_model_name_or_path == str(llama_dir)
    assert config.prompt_layers == -1


def test_deepcopy_is_independent(adapted, ids, logits, stir):
    before = logits(adapted, ids)
    other = copy.deepcopy(adapted)
    assert torch.equal(logits(other, ids), before)
    stir(other, seed=3)
    assert not torch.equal(logits(other, ids), before)
    assert torch.equal(logits(adapted, ids), before)
