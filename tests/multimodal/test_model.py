"""A model that sees: images and text alone in one batch, pixels or features, training, files."""

import pytest
import torch

from llama_adapter import UserError
from llama_adapter.adapters import prompt_context
from llama_adapter.conditioning import make_conditioner
from llama_adapter.models import BaseModelConfig, check_base
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.vision import load_encoder
from tests.adapters import tiny
from tests.adapters.test_routing import padded, row, to_continue
from tests.vision.tiny_encoders import SIZE, config_of

KINDS = {
    "global_features": {"output": "global", "levels": [0, -1]},
    "visual_queries": {"projection": True},
}
WIDTHS = {"global_features": 48, "visual_queries": 12}
QUERIES = {"num_queries": 3, "width": 8, "depth": 1, "num_heads": 2, "mlp_width": 16}
GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return request.param


def conditioner(kind, hidden_size=64, **options):
    torch.manual_seed(3)
    options |= QUERIES if kind == "visual_queries" else {}
    sizes = {"hidden_size": hidden_size, "feature_width": WIDTHS[kind]}
    return make_conditioner({"kind": kind, **sizes, **options})


def seeing(kind, root, language_model=None, **options):
    adapted = language_model or tiny.adapted(prompt_length=3, prompt_layers=[0, 1, 3])
    encoder = load_encoder(config_of("clip", root, **KINDS[kind]))
    return ImageConditionedModel(adapted, conditioner(kind, **options), encoder).eval()


def images(count):
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def test_features_stand_in_for_pixels(kind, root):
    model, pixels = seeing(kind, root), images(3)
    inputs = padded(rows=3)
    seen = model(**inputs, pixel_values=pixels).logits
    features = model.encoder.select(model.encoder(pixels))
    model.encoder = None
    torch.testing.assert_close(model(**inputs, features=features).logits, seen)
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(model(**inputs, features=features, feature_mask=mask).logits, seen)


@torch.no_grad()
def test_rows_equal_themselves_alone_with_and_without_image(kind, root):
    model, inputs = seeing(kind, root), padded(rows=4)
    has_image, pixels = torch.tensor([True, False, True, False]), images(2)
    got = model(**inputs, pixel_values=pixels, has_image=has_image).logits
    for index in range(4):
        given = {"pixel_values": pixels[index // 2][None]} if has_image[index] else {}
        want = model(**row(inputs, index), **given).logits[0]
        kept = inputs["attention_mask"][index].bool()
        torch.testing.assert_close(got[index][kept], want[kept], atol=1e-5, rtol=1e-5)
        plain = model.language_model(**row(inputs, index)).logits[0]
        assert torch.allclose(got[index][kept], plain[kept], atol=1e-5) != bool(has_image[index])


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"]
)
def test_generations_equal_one_by_one(kind, root, options):
    model, inputs = seeing(kind, root), to_continue(rows=3)
    has_image, pixels = torch.tensor([True, False, True]), images(2)
    got = model.generate(**inputs, pixel_values=pixels, has_image=has_image, **GREEDY, **options)
    each = options.get("num_return_sequences", 1)
    for index in range(3):
        given = {"pixel_values": pixels[index // 2][None]} if has_image[index] else {}
        want = model.generate(**row(inputs, index), **given, **GREEDY, **options)
        assert torch.equal(got[index * each : (index + 1) * each], want)
    assert not torch.equal(got, model.generate(**inputs, **GREEDY, **options))


@torch.no_grad()
def test_half_precision_base(kind, root):
    model = seeing(kind, root, tiny.adapted(tiny.llama().bfloat16(), prompt_length=3, prompt_layers=2))
    logits = model(tiny.ids(), pixel_values=images(2)).logits
    assert logits.dtype == torch.bfloat16
    assert not torch.equal(logits, model(tiny.ids()).logits)


@torch.no_grad()
def test_no_rows_have_an_image(kind, root):
    model = seeing(kind, root)
    nowhere = torch.zeros(2, dtype=torch.bool)
    got = model(tiny.ids(), pixel_values=images(0), has_image=nowhere).logits
    assert torch.equal(got, model(tiny.ids()).logits)


# Training


def test_what_trains_gets_gradients_and_nothing_else(kind, root):
    model = seeing(kind, root).train()
    model(tiny.ids(), pixel_values=images(2), labels=tiny.ids()).loss.backward()
    for name, parameter in model.named_parameters():
        trained = name.startswith("conditioner.") or "zero_init" in name
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name


def test_a_training_batch_of_text_alone_touches_the_conditioner(kind, root):
    """With gradients of zero, so that no process waits for another one's."""
    model = seeing(kind, root).train()
    output = model(tiny.ids(), labels=tiny.ids())
    output.loss.backward()
    for name, parameter in model.conditioner.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    plain = model.language_model(tiny.ids()).logits
    torch.testing.assert_close(output.logits, plain, atol=1e-6, rtol=0)


def test_it_learns_what_only_the_image_tells(kind, root):
    """One question, two pictures, two answers; from gates of zero."""
    from peft import get_peft_model

    from llama_adapter import ZeroInitConfig

    config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=3, prompt_layers=4)
    torch.manual_seed(0)
    model = seeing(kind, root, get_peft_model(tiny.llama(initializer_range=0.2), config)).train()
    question = tiny.ids(rows=1, length=6).expand(2, 6)
    ids = torch.cat([question, torch.tensor([[7], [50]])], dim=1)
    labels = ids.masked_fill(torch.arange(7) < 6, -100)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05)
    losses = []
    for _ in range(40):
        loss = model(ids, pixel_values=images(2), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[0] > 3
    assert losses[-1] < 0.3  # without the image it is at least log 2 = 0.69


# Files


@torch.no_grad()
def test_only_what_was_trained_is_saved_and_comes_back(kind, root, tmp_path):
    tiny.llama().save_pretrained(tmp_path / "base")
    base = BaseModelConfig(name_or_path=str(tmp_path / "base"))
    model = seeing(kind, root, early_layers=1)
    model.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()} - {"README.md"}
    settings = {"adapter_config.json", "config.json"}
    assert names == {"adapter_model.safetensors", "conditioner.safetensors", *settings}
    given = {"input_ids": tiny.ids(), "pixel_values": images(2)}
    want = model(**given).logits
    again = ImageConditionedModel.from_pretrained(tmp_path / "saved", base)
    # some CPUs take another kernel for weights that lie elsewhere in memory
    torch.testing.assert_close(again(**given).logits, want, rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not again.training
    further = ImageConditionedModel.from_pretrained(tmp_path / "saved", base, encoder=None, trainable=True)
    assert further.encoder is None
    found = {name for name, parameter in further.named_parameters() if parameter.requires_grad}
    assert found == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_adapter_names_its_base(root, tmp_path):
    from transformers import AutoModelForCausalLM

    tiny.llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = seeing("visual_queries", root, tiny.adapted(base, prompt_length=3, prompt_layers=2))
    model.save_pretrained(tmp_path / "saved")
    given = {"input_ids": tiny.ids(), "pixel_values": images(2)}
    again = ImageConditionedModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again(**given).logits, model(**given).logits)
    settings = tmp_path / "saved" / "config.json"
    settings.write_text(settings.read_text().replace('"levels"', '"sight"'))
    with pytest.raises(UserError, match="saved' cannot be used: .*Delete them there and pass"):
        ImageConditionedModel.from_pretrained(tmp_path / "saved")


# What is refused


def test_images_that_do_not_fit_are_named(root):
    model, pixels = seeing("visual_queries", root), images(2)
    with pytest.raises(
        UserError, match="1 images came for 2 rows, of which 2 have one. Use one for each True"
    ):
        model(tiny.ids(), pixel_values=pixels[:1])
    with pytest.raises(UserError, match="2 images came for 2 rows, of which 1 have one"):
        model(tiny.ids(), pixel_values=pixels, has_image=torch.tensor([True, False]))
    with pytest.raises(UserError, match="came together with features. Use one of"):
        model(tiny.ids(), pixel_values=pixels, features=torch.zeros(2, 5, 12))
    model.encoder = None
    with pytest.raises(UserError, match="came to a model without encoder. Use one of"):
        model(tiny.ids(), pixel_values=pixels)


# Several images, several adapters


@torch.no_grad()
def test_several_images_of_a_row_are_averaged(kind, root):
    model, pixels, inputs = seeing(kind, root), images(3), padded(rows=3)
    counts = torch.tensor([2, 0, 1])
    got = model(**inputs, pixel_values=pixels, has_image=counts).logits
    features = model.encoder.select(model.encoder(pixels))
    torch.testing.assert_close(model(**inputs, features=features, has_image=counts).logits, got)
    added = model.conditioner(features)
    rows = torch.stack([added[:2].mean(0), torch.zeros_like(added[0]), added[2]])
    with prompt_context(model.language_model, rows, present=counts > 0):
        want = model.language_model(**inputs).logits
    torch.testing.assert_close(got, want)
    with pytest.raises(UserError, match="3 images came for 3 rows, whose numbers add up to 2"):
        model(**inputs, pixel_values=pixels, has_image=torch.tensor([1, 0, 1]))


def test_early_layers_see_averages_too(root):
    model, inputs = seeing("visual_queries", root, early_layers=1), padded(rows=2)
    with torch.no_grad():
        one = model(**inputs, pixel_values=images(2)).logits
        same = images(2).repeat_interleave(2, dim=0)
        twice = model(**inputs, pixel_values=same, has_image=torch.tensor([2, 2])).logits
    torch.testing.assert_close(one, twice)


def test_text_alone_with_gradients_and_an_adapter_for_each_row(kind, root):
    """The language model in evaluation mode, as routing wants it, while the conditioner trains."""
    adapted = tiny.adapted(prompt_length=3, prompt_layers=[0, 1, 3])
    model = seeing(kind, root, adapted)
    model.conditioner.train()
    output = model(tiny.ids(), adapter_names=["default", "__base__"])
    output.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.conditioner.parameters())
    with torch.no_grad():
        want = adapted(tiny.ids(), adapter_names=["default", "__base__"]).logits
    torch.testing.assert_close(output.logits, want)


@torch.no_grad()
def test_generation_without_a_cache_and_without_padding(kind, root):
    model, inputs = seeing(kind, root), to_continue(rows=3)
    given = {"pixel_values": images(2), "has_image": torch.tensor([True, False, True])}
    want = model.generate(**inputs, **given, **GREEDY)
    assert torch.equal(model.generate(**inputs, **given, **GREEDY, use_cache=False), want)
    for index in range(3):
        bare = inputs["input_ids"][index][inputs["attention_mask"][index].bool()][None]
        own = {"pixel_values": images(2)[index // 2][None]} if index != 1 else {}
        alone = model.generate(input_ids=bare, attention_mask=torch.ones_like(bare), **own, **GREEDY)
        assert torch.equal(alone[0, bare.shape[1] :], want[index, inputs["input_ids"].shape[1] :])
    drawn = {**GREEDY, "do_sample": True, "num_return_sequences": 3}
    torch.manual_seed(0)
    several = model.generate(**inputs, **given, **drawn)
    assert several.shape[0] == 9


@torch.no_grad()
def test_folders_of_before_are_read(root, tmp_path):
    """Settings in files of their own, as the first versions wrote them."""
    import json

    model = seeing("visual_queries", root)
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "conditioner_config.json").write_text(json.dumps(content["conditioner"]))
    (tmp_path / "vision_config.json").write_text(json.dumps(content["vision"]))
    again = ImageConditionedModel.around(model.language_model, tmp_path, "saved").eval()
    given = {"input_ids": tiny.ids(), "pixel_values": images(2)}
    assert torch.equal(again(**given).logits, model(**given).logits)
    with pytest.raises(UserError, match="holds no base model. It holds an adapter; give the base"):
        check_base(str(tmp_path))
    with pytest.raises(UserError, match="spin=3 came. Use some of"):
        ImageConditionedModel.from_pretrained(tmp_path, spin=3)
