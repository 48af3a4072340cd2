"""Loading bases, tokenizers and adapters: what works, and what every wrong folder is told."""

import json

import pytest
import torch
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llama_adapter import ZeroInitConfig
from llama_adapter.errors import UserError
from llama_adapter.models import (
    AdapterNotes,
    BaseModelConfig,
    attach_adapter,
    check_base,
    ensure_pad_token,
    load_adapter,
    load_base,
    load_tokenizer,
    parameter_counts,
    read_notes,
    write_notes,
)

WORDS = ["<s>", "</s>", "<unk>", "a", "b"]


def tokenizer_with(*extra, **special):
    vocabulary = {token: index for index, token in enumerate([*WORDS, *extra])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")), **special
    )


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer_with(eos_token="</s>", bos_token="<s>").save_pretrained(folder)
    return folder


@pytest.fixture
def base(base_dir):
    return load_base(BaseModelConfig(name_or_path=str(base_dir), dtype="fp32"))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("auto", torch.bfloat16),
        ("bf16", torch.bfloat16),
        ("float32", torch.float32),
        ("fp32", torch.float32),
        ("fp16", torch.float16),
    ],
)
def test_base_is_frozen_and_in_the_precision_asked_for(base_dir, dtype, expected):
    model = load_base(BaseModelConfig(name_or_path=str(base_dir), dtype=dtype))
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_kernel_asked_for_is_active(base_dir, kernel):
    model = load_base(BaseModelConfig(name_or_path=str(base_dir), attn_implementation=kernel))
    assert model.config._attn_implementation == kernel


def test_an_unknown_kernel_is_refused(base_dir):
    with pytest.raises(
        UserError, match="could not be loaded: .*Set base.name_or_path and the other settings"
    ):
        load_base(BaseModelConfig(name_or_path=str(base_dir), attn_implementation="warp_drive"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no config.json. It may be the wrong one. Use the folder of a Hugging Face model"),
        (["model.gguf"], "It holds a GGUF file; load it once with"),
        (["adapter_config.json"], "It holds an adapter; give the base model here"),
        (["consolidated.00.pth"], "It holds Meta's own format"),
        (["params.json"], "It holds Meta's own format"),
        (["inner/config.json"], "Did you mean its folder 'inner'"),
    ],
)
def test_a_folder_without_a_model_is_told_what_it_holds(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message):
        load_base(BaseModelConfig(name_or_path=str(tmp_path)))


def test_paths_that_are_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file. Use the folder"):
        check_base(str(tmp_path / "file"))
    with pytest.raises(UserError, match="does not exist. Use an existing folder, or a hub name"):
        check_base(str(tmp_path / "missing"))
    check_base("owner/name")  # may be on the hub


def test_a_hub_name_that_is_not_here(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="'no-such-owner/no-such-model' could not be loaded"):
        load_base(BaseModelConfig(name_or_path="no-such-owner/no-such-model"))


def test_a_damaged_config(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json' is damaged or no JSON file"):
        load_base(BaseModelConfig(name_or_path=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    with pytest.raises(UserError, match="could not be loaded"):
        load_base(BaseModelConfig(name_or_path=str(tmp_path)))


def test_a_folder_without_a_tokenizer(tmp_path, base):
    base.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="tokenizer of .* could not be loaded: .*Add sound tokenizer files"):
        load_tokenizer(BaseModelConfig(name_or_path=str(tmp_path)))


@pytest.mark.parametrize(
    ("extra", "special", "chosen"),
    [
        (["[P]"], {"pad_token": "[P]", "eos_token": "</s>"}, "[P]"),  # its own stays
        (["<pad>"], {"eos_token": "</s>", "unk_token": "<unk>"}, "<pad>"),
        (["<|finetune_right_pad_id|>"], {"eos_token": "</s>"}, "<|finetune_right_pad_id|>"),
        ([], {"eos_token": "</s>", "unk_token": "<unk>"}, "<unk>"),
        ([], {"eos_token": "</s>"}, "</s>"),
    ],
)
def test_pad_token_comes_from_the_vocabulary_in_a_fixed_order(extra, special, chosen):
    tokenizer = tokenizer_with(*extra, **special)
    size = len(tokenizer)
    assert ensure_pad_token(tokenizer).pad_token == chosen
    assert len(tokenizer) == size


def test_a_tokenizer_with_nothing_to_pad_with():
    with pytest.raises(UserError, match="has no pad, unknown or end token. Set `pad_token`"):
        ensure_pad_token(tokenizer_with())


def test_the_saved_tokenizer_pads_as_the_loaded_one(base_dir, tmp_path):
    tokenizer = load_tokenizer(BaseModelConfig(name_or_path=str(base_dir)))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((base_dir / "config.json").read_text())
    assert (
        load_tokenizer(BaseModelConfig(name_or_path=str(tmp_path))).pad_token == tokenizer.pad_token == "</s>"
    )


def test_attaching_leaves_the_config_alone_and_the_base_frozen(base):
    config = ZeroInitConfig(prompt_length=2)
    adapted = attach_adapter(base, config)
    assert config.task_type is None
    assert adapted.active_peft_config.task_type == "CAUSAL_LM"
    trainable, total = parameter_counts(adapted)
    assert trainable == 2 * (2 * 8 + 2)  # two layers, each two prompts and a gate per head
    assert total > trainable


def test_an_adapter_that_does_not_fit(base):
    with pytest.raises(
        UserError, match="The adapter .*LORA does not fit LlamaForCausalLM: .*Set others under `adapter`"
    ):
        attach_adapter(base, LoraConfig(target_modules=["no_such_layer"]))
    with pytest.raises(UserError, match="prompt_layers=5 does not fit"):
        attach_adapter(base, ZeroInitConfig(prompt_layers=5))


def test_an_adapter_that_trains_nothing(base):
    with pytest.raises(UserError, match="has no trainable parameters"):
        attach_adapter(base, LoraConfig(target_modules=["q_proj"], inference_mode=True))


def saved(base_dir, folder, length):
    torch.manual_seed(length)
    base = load_base(BaseModelConfig(name_or_path=str(base_dir), dtype="fp32"))
    adapted = attach_adapter(base, ZeroInitConfig(prompt_length=length, gate_init_std=1.0)).eval()
    adapted.save_pretrained(folder)
    return adapted


def test_several_adapters_load_by_name_and_the_first_is_active(base, base_dir, tmp_path):
    originals = {
        name: saved(base_dir, tmp_path / name, length) for name, length in (("short", 2), ("long", 5))
    }
    loaded = load_adapter(base, {name: tmp_path / name for name in originals})
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.active_adapter == "short"
    assert not loaded.training
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        for name, original in originals.items():
            loaded.set_adapter(name)
            assert torch.equal(loaded(input_ids=ids).logits, original(input_ids=ids).logits)


def test_loading_for_further_training(base, base_dir, tmp_path):
    saved(base_dir, tmp_path / "a", 2)
    loaded = load_adapter(base, {"default": tmp_path / "a"}, trainable=True)
    assert parameter_counts(loaded)[0] > 0


def test_folders_that_hold_no_adapter(base, tmp_path):
    with pytest.raises(UserError, match="does not exist. .*Use the folder that `train` saved"):
        load_adapter(base, {"default": tmp_path / "missing"})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no adapter_config\.json.*Did you mean '.*/adapter'\?"):
        load_adapter(base, {"default": tmp_path})
    with pytest.raises(UserError, match=r"No adapter was given \(\{\}\)\. Use at least one folder"):
        load_adapter(base, {})


def test_an_adapter_of_another_base(base_dir, tmp_path):
    saved(base_dir, tmp_path / "a", 2)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2
    )
    other = LlamaForCausalLM(config)
    with pytest.raises(
        UserError, match=r"/a' does not fit the base 'LlamaFor(?s:.*)hidden_size was 8, is 16"
    ):
        load_adapter(other, {"default": tmp_path / "a"})


def test_notes_round_trip_and_tolerate_what_is_missing(tmp_path):
    notes = AdapterNotes(template="alpaca", base="b", max_length=7)
    write_notes(tmp_path, notes)
    assert read_notes(tmp_path) == notes
    assert read_notes(tmp_path / "elsewhere") == AdapterNotes()


def test_damaged_or_newer_notes_are_refused(tmp_path):
    (tmp_path / "llama_adapter.json").write_text("{")
    with pytest.raises(UserError, match="damaged or no JSON file.*Delete it"):
        read_notes(tmp_path)
    (tmp_path / "llama_adapter.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(UserError, match="has format 2, this version reads 1. Install a newer one"):
        read_notes(tmp_path)
