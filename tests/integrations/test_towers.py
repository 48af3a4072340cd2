"""Models with several towers: which one an adapter goes to, and what happens where that is not clear."""

import re

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from llama_adapter import UserError, ZeroInitConfig

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}

# The support matrix runs the towers on their own ("clip_vision_model"); of the model that holds both, the
# adapters say that no test of the matrix runs it. The tests here do.
pytestmark = pytest.mark.filterwarnings("ignore:No test runs model type 'clip':UserWarning")

STACKS = {"text": "text_model.encoder.layers", "vision": "vision_model.encoder.layers"}


def make_clip():
    torch.manual_seed(0)
    text = CLIPTextConfig(vocab_size=64, max_position_embeddings=20, initializer_range=0.2, **SMALL)
    vision = CLIPVisionConfig(image_size=16, patch_size=8, initializer_range=0.2, **SMALL)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


def make_llava():
    torch.manual_seed(0)
    text = LlamaConfig(vocab_size=64, num_key_value_heads=2, initializer_range=0.2, **SMALL)
    vision = CLIPVisionConfig(image_size=16, patch_size=8, initializer_range=0.2, **SMALL)
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=63, vision_feature_select_strategy="full"
    )
    return LlavaForConditionalGeneration(config).eval()


@pytest.fixture
def pair():
    """Two captions and two pictures."""
    generator = torch.Generator().manual_seed(2)
    return {
        "input_ids": torch.randint(5, 60, (2, 7), generator=generator),
        "pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
    }


def embeddings(model, pair):
    with torch.no_grad():
        out = model(**pair)
    return {"text": out.text_embeds, "vision": out.image_embeds}


def test_two_towers_need_a_choice_and_the_error_lists_them():
    model = make_clip()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(UserError, match="has 2 layer stacks.*Set layer_stack") as caught:
        get_peft_model(model, ZeroInitConfig())
    assert all(stack in str(caught.value) for stack in STACKS.values())
    assert [name for name, _ in model.named_modules()] == names, "the model is as it was"
    with pytest.raises(UserError, match=re.escape("layer_stack='layers'") + ".*Use one of"):
        get_peft_model(model, ZeroInitConfig(layer_stack="layers"))


@pytest.mark.parametrize("parts", ["prompts", "all of v2"])
@pytest.mark.parametrize("tower", STACKS)
def test_only_the_chosen_tower_changes(tower, parts, pair, stir, tmp_path):
    before = embeddings(make_clip(), pair)
    options = {"prompt_length": 4} if parts == "prompts" else {"preset": "v2"}
    model = get_peft_model(make_clip(), ZeroInitConfig(layer_stack=STACKS[tower], **options)).eval()
    now = embeddings(model, pair)
    assert all(torch.equal(now[name], before[name]) for name in before)
    now = embeddings(stir(model), pair)
    other = "vision" if tower == "text" else "text"
    assert not torch.allclose(now[tower], before[tower])
    assert torch.equal(now[other], before[other])

    model.save_pretrained(tmp_path)
    again = embeddings(PeftModel.from_pretrained(make_clip(), tmp_path), pair)
    assert all(torch.equal(again[name], now[name]) for name in now)


def test_each_tower_may_have_an_adapter_of_its_own(pair, stir):
    before = embeddings(make_clip(), pair)
    model = get_peft_model(
        make_clip(), ZeroInitConfig(layer_stack=STACKS["text"]), adapter_name="text"
    ).eval()
    model.add_adapter("vision", ZeroInitConfig(layer_stack=STACKS["vision"]))
    stir(model)
    now = embeddings(model, pair)
    assert not torch.allclose(now["text"], before["text"])
    assert torch.equal(now["vision"], before["vision"])
    model.base_model.set_adapter(["text", "vision"])
    both = embeddings(model, pair)
    assert torch.equal(both["text"], now["text"])
    assert not torch.allclose(both["vision"], before["vision"])


def test_a_vision_language_model_is_adapted_in_its_language_model(pair, stir, tmp_path):
    patches = (16 // 8) ** 2 + 1
    ids = torch.cat([torch.full((2, patches), 63), pair["input_ids"]], dim=1)
    batch = {"input_ids": ids, "pixel_values": pair["pixel_values"]}
    with torch.no_grad():
        before = make_llava()(**batch).logits
        model = get_peft_model(make_llava(), ZeroInitConfig(task_type="CAUSAL_LM", preset="v2")).eval()
        trainable = [name for name, p in model.named_parameters() if p.requires_grad]
        assert trainable
        assert all("language_model" in name for name in trainable)
        assert torch.equal(model(**batch).logits, before)
        after = stir(model)(**batch).logits
        assert not torch.allclose(after, before)
        tokens = model.generate(**batch, max_new_tokens=3, do_sample=False)
        assert tokens.shape[1] > ids.shape[1]
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(make_llava(), tmp_path)
        assert torch.equal(again(**batch).logits, after)


def test_a_vision_language_model_can_be_adapted_in_its_eyes(pair):
    names = [name for name, _ in make_llava().named_modules()]
    stack = next(name for name in names if "vision" in name and name.endswith("encoder.layers"))
    model = get_peft_model(make_llava(), ZeroInitConfig(layer_stack=stack))
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(stack in name for name in trainable)
