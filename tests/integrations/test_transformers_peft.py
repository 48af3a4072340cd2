"""transformers' own adapter methods, without a PeftModel around the base, and its pipeline."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, pipeline

from llama_adapter import ZeroInitConfig

pytestmark = pytest.mark.usefixtures("transformers_takes_peft")

V2 = {"task_type": "CAUSAL_LM", "preset": "v2"}

# transformers adds a second adapter through a fresh tuner, at which PEFT warns; that is its way of doing it.
second_adapter = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")


@pytest.fixture
def base(llama_dir):
    return AutoModelForCausalLM.from_pretrained(llama_dir)


@pytest.fixture
def adapter_dir(llama_dir, tmp_path, stir):
    """An adapter saved by PEFT whose config names the base folder."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_dir), ZeroInitConfig(**V2))
    stir(model).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@second_adapter
def test_add_switch_off_and_on_and_delete(base, ids, logits, stir):
    before = logits(base, ids)
    base.add_adapter(ZeroInitConfig(**V2), adapter_name="first")
    assert torch.equal(logits(base, ids), before)
    trainable = [name for name, p in base.named_parameters() if p.requires_grad]
    assert trainable
    assert all("zero_init_" in name for name in trainable)

    stir(base)
    first = logits(base, ids)
    assert not torch.equal(first, before)
    base.disable_adapters()
    assert torch.equal(logits(base, ids), before)
    base.enable_adapters()
    assert torch.equal(logits(base, ids), first)

    base.add_adapter(ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=3), adapter_name="second")
    assert base.active_adapters() == ["second"]
    assert torch.equal(logits(base, ids), before)
    base.set_adapter("first")
    assert torch.equal(logits(base, ids), first)
    base.delete_adapter("second")
    assert torch.equal(logits(base, ids), first)
    base.delete_adapter("first")
    assert torch.equal(logits(base, ids), before)
    with pytest.raises(ValueError, match="No adapter loaded"):
        base.disable_adapters()


def test_saved_by_transformers_read_by_all(base, llama_dir, ids, logits, stir, tmp_path):
    base.add_adapter(ZeroInitConfig(**V2))
    expected = logits(stir(base), ids)
    base.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "model.safetensors").exists(), "the adapter alone is saved"

    through_auto = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(through_auto, ids), expected)
    fresh = AutoModelForCausalLM.from_pretrained(llama_dir)
    assert torch.equal(logits(PeftModel.from_pretrained(fresh, tmp_path), ids), expected)


@second_adapter
def test_from_pretrained_of_an_adapter_folder(adapter_dir, llama_dir, ids, logits):
    expected = logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_dir), adapter_dir), ids
    )
    model = AutoModelForCausalLM.from_pretrained(adapter_dir)
    assert torch.equal(logits(model, ids), expected)
    assert not model.training

    late = AutoModelForCausalLM.from_pretrained(llama_dir)
    late.load_adapter(str(adapter_dir), adapter_name="late")
    assert torch.equal(logits(late, ids), expected)
    late.load_adapter(str(adapter_dir), adapter_name="to train", is_trainable=True)
    late.set_adapter("to train")
    late.train()
    late(input_ids=ids, labels=ids).loss.backward()
    grads = {name for name, p in late.named_parameters() if p.grad is not None}
    assert grads
    assert all("zero_init_" in name and "to train" in name for name in grads)


def test_adapter_for_the_bare_model(llama_dir, adapter_dir, ids):
    """A backbone without a head takes adapters of its own too."""
    backbone = AutoModel.from_pretrained(llama_dir)
    with torch.no_grad():
        before = backbone(input_ids=ids).last_hidden_state
        backbone.add_adapter(ZeroInitConfig(prompt_length=4))
        assert torch.equal(backbone(input_ids=ids).last_hidden_state, before)


def test_wrapped_model_in_a_pipeline(llama_dir, adapter_dir, tokenizer):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_dir), adapter_dir)
    prompts = ["The capital of France", "Water boils"]
    for generator_model in (model, AutoModelForCausalLM.from_pretrained(adapter_dir)):
        generator = pipeline("text-generation", model=generator_model, tokenizer=tokenizer)
        options = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
        single = [generator(prompt, **options)[0]["generated_text"] for prompt in prompts]
        batch = [row[0]["generated_text"] for row in generator(prompts, batch_size=2, **options)]
        assert batch == single

        inputs = tokenizer(prompts[0], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = tokens[0, inputs["input_ids"].shape[1] :]
        assert single[0] == tokenizer.decode(new, skip_special_tokens=True)


def test_pipeline_from_the_adapter_folder(adapter_dir, llama_dir, tokenizer):
    """``pipeline(model=folder)`` reads base and adapter by the folder alone."""
    tokenizer.save_pretrained(adapter_dir)
    generator = pipeline("text-generation", model=str(adapter_dir))
    chat = [{"role": "user", "content": "Name the colour of the sky."}]
    answer = generator(chat, max_new_tokens=4, do_sample=False)[0]["generated_text"]
    assert answer[-1]["role"] == "assistant"
    base = pipeline("text-generation", model=str(llama_dir))
    assert base(chat, max_new_tokens=4, do_sample=False)[0]["generated_text"] != answer
