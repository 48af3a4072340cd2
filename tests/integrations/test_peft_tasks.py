"""``get_peft_model`` for the task types of PEFT: the adapter learns, the base does not move."""

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from transformers import (
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from llama_adapter import ZeroInitConfig

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_roberta() -> RobertaForSequenceClassification:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=64, max_position_embeddings=40, num_labels=3, initializer_range=0.2, **SMALL
    )
    return RobertaForSequenceClassification(config).eval()


def make_vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_labels=5, **SMALL)).eval()


def train_steps(model, batch, steps=25, lr=2e-2) -> list[float]:
    """A few steps of Adam on one batch; returns the losses."""
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def frozen_state(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}


def assert_equal_states(state, model):
    now = dict(model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in state.items())


def test_causal_lm(tiny_llama, ids, logits):
    base = tiny_llama()
    before = logits(base, ids)
    model = get_peft_model(base, ZeroInitConfig(task_type=TaskType.CAUSAL_LM))
    assert torch.equal(logits(model, ids), before)

    frozen = frozen_state(model)
    losses = train_steps(model, {"input_ids": ids, "labels": ids})
    assert losses[-1] < losses[0] - 0.1
    assert_equal_states(frozen, model)
    assert not torch.equal(logits(model, ids), before)
    tokens = model.generate(input_ids=ids, max_new_tokens=3, do_sample=False)
    assert tokens.shape[1] <= 11
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), before)


def test_chosen_token_embeddings_train_too(tiny_llama, ids, logits, tmp_path):
    chosen = sorted(set(ids[0].tolist()))[:3]
    before = tiny_llama().get_input_embeddings().weight
    config = ZeroInitConfig(task_type=TaskType.CAUSAL_LM, trainable_token_indices=chosen)
    model = get_peft_model(tiny_llama(), config)
    train_steps(model, {"input_ids": ids, "labels": ids}, steps=3)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert torch.equal(logits(again, ids), logits(model, ids))
    every = torch.arange(len(before))
    with torch.no_grad():
        moved = (again.get_input_embeddings()(every) != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == chosen


def test_sequence_classification_trains_the_new_head(tmp_path):
    base = make_roberta()
    batch = {"input_ids": torch.randint(5, 64, (4, 12)), "labels": torch.tensor([0, 1, 2, 1])}
    model = get_peft_model(base, ZeroInitConfig(task_type=TaskType.SEQ_CLS, modules_to_save=["classifier"]))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trainable if "modules_to_save" in name}
    assert all("zero_init_" in name or "modules_to_save" in name for name in trainable)

    frozen = frozen_state(model)
    losses = train_steps(model, batch)
    assert losses[-1] < losses[0] / 2
    assert_equal_states(frozen, model)

    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_roberta(), tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_sequence_classification_finds_the_head_by_itself():
    """PEFT trains a classification head for this task type without being told."""
    model = get_peft_model(make_roberta(), ZeroInitConfig(task_type=TaskType.SEQ_CLS))
    assert any("classifier" in name for name, p in model.named_parameters() if p.requires_grad)


def test_feature_extraction(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=64, max_position_embeddings=40, initializer_range=0.2, **SMALL)
    base = BertModel(config, add_pooling_layer=False).eval()
    ids = torch.randint(5, 64, (2, 9))
    with torch.no_grad():
        before = base(input_ids=ids).last_hidden_state
        model = get_peft_model(base, ZeroInitConfig(task_type=TaskType.FEATURE_EXTRACTION))
        assert torch.equal(model(input_ids=ids).last_hidden_state, before)
    model.train()
    target = torch.randn_like(before)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(15):
        loss = (model(input_ids=ids).last_hidden_state - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_image_classification_without_a_task_type(tmp_path):
    batch = {"pixel_values": torch.randn(4, 3, 16, 16), "labels": torch.tensor([0, 1, 2, 4])}
    model = get_peft_model(make_vit(), ZeroInitConfig(modules_to_save=["classifier"]))
    frozen = frozen_state(model)
    losses = train_steps(model, batch)
    assert losses[-1] < losses[0] / 2
    assert_equal_states(frozen, model)

    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_vit(), tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("preset", ["v1", "v2", "v21", "chat", "imagebind"])
def test_every_preset_starts_from_the_base_and_trains(tiny_llama, ids, logits, preset):
    base = tiny_llama(num_hidden_layers=3)
    before = logits(base, ids)
    model = get_peft_model(base, ZeroInitConfig(task_type="CAUSAL_LM", preset=preset))
    assert torch.equal(logits(model, ids), before)
    losses = train_steps(model, {"input_ids": ids, "labels": ids}, steps=10)
    assert losses[-1] < losses[0]
