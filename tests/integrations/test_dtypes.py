"""Precision: half-precision bases with a float32 adapter, and models that change precision afterwards."""

from functools import partial

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import RobertaConfig, RobertaForSequenceClassification

from llama_adapter import ZeroInitConfig

HALVES = [torch.bfloat16, torch.float16]
PRESETS = ["v1", "v2", "v21", "chat"]


@pytest.fixture
def make(tiny_llama):
    def build(preset, dtype=torch.float32, **options):
        config = ZeroInitConfig(task_type="CAUSAL_LM", preset=preset)
        return get_peft_model(tiny_llama(dtype=dtype, num_hidden_layers=3), config, **options).eval()

    return build


@pytest.fixture
def stir(stir):
    """A smaller move than elsewhere: the models are random and amplify what half precision loses."""
    return partial(stir, scale=0.2)


def dtypes(model):
    return {p.dtype for name, p in model.named_parameters() if "zero_init_" in name}


def assert_close(found, expected):
    """Half precision keeps two to three digits."""
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_base(dtype, preset, make, tiny_llama, ids, logits, stir, tmp_path):
    before = logits(tiny_llama(dtype=dtype, num_hidden_layers=3), ids)
    model = make(preset, dtype)
    assert dtypes(model) == {torch.float32}, "PEFT keeps what is trained in float32"
    assert torch.equal(logits(model, ids), before)

    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.grad.dtype for p in trained} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in trained)

    reference = stir(make(preset)).eval()
    after = logits(stir(model.eval()), ids)
    assert after.dtype == dtype
    assert_close(after, logits(reference, ids))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(dtype=dtype, num_hidden_layers=3), tmp_path)
    assert torch.equal(logits(again, ids), after)


@pytest.mark.parametrize("preset", PRESETS)
def test_adapter_in_the_precision_of_its_base(preset, make, ids, logits, stir):
    model = make(preset, torch.bfloat16, autocast_adapter_dtype=False)
    assert dtypes(model) == {torch.bfloat16}
    assert_close(logits(stir(model), ids), logits(stir(make(preset)), ids))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", HALVES)
def test_changed_afterwards(dtype, preset, make, ids, logits, stir):
    expected = logits(stir(make(preset)), ids)
    model = stir(make(preset))
    halved = model.to(dtype) if dtype is torch.bfloat16 else model.half()
    assert dtypes(halved) == {dtype}
    assert_close(logits(halved, ids), expected)
    assert_close(logits(halved.float(), ids), expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_autocast(preset, make, ids, logits, stir):
    model = stir(make(preset))
    expected = logits(model, ids)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(logits(model, ids), expected)


def test_only_the_base_in_double(make, ids, logits, stir):
    model = stir(make("v2"))
    expected = logits(model, ids)
    assert_close(logits(model.double(), ids), expected)
    assert dtypes(model) == {torch.float64}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_moved_away_and_back(attention, make, ids, logits, stir):
    """Every adapter tensor moves with the model: nothing is left behind on the way to meta and back."""
    model = stir(make("v2"))
    model.base_model.model.set_attn_implementation(attention)
    expected = logits(model, ids)
    state = model.state_dict()
    model.to("meta")
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}
    assert model(input_ids=ids.to("meta")).logits.shape == expected.shape
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    buffers = dict(make("v2").named_buffers())  # rotary frequencies are in no state dict
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    assert torch.equal(logits(model, ids), expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_layer_norm_gets_one_precision(dtype, ids, monkeypatch):
    """torch's LayerNorm refuses mixed precision on GPUs; the CPU would take it without a word."""

    def strict_layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
        assert {x.dtype} == {t.dtype for t in (weight, bias)}
        return torch.layer_norm(x, shape, weight, bias, eps)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", strict_layer_norm)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = RobertaForSequenceClassification(
        RobertaConfig(vocab_size=400, max_position_embeddings=40, num_labels=3, **sizes)
    ).to(dtype)
    with torch.no_grad():
        before = base.eval()(input_ids=ids).logits
        config = ZeroInitConfig(task_type="SEQ_CLS", deltas=["bias", "output_scale"], norms=True)
        model = get_peft_model(base, config).eval()
        assert torch.allclose(model(input_ids=ids).logits.float(), before.float(), atol=1e-2)
    model.train()(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "zero_init_norm" in n)
