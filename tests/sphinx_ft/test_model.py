"""The model as a whole: batches, skipped views, generation, gradients, folders."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from llama_adapter.errors import UserError
from sphinx_ft.config import SphinxConfig
from sphinx_ft.mixing import MixedFeatures
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.processor import SphinxProcessor
from sphinx_ft.tokens import TokenConfig
from sphinx_ft.trainable import set_trainable
from tests.sphinx_ft.tiny import CLIP, CONVNEXT, DINOV2, MIX, QFORMER, picture, tiny_config, tiny_model
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer

WIDE, TALL, SQUARE = picture(80, 40, 1), picture(30, 90, 2), picture(50, 50, 3)


def processor_of(model, template="plain"):
    return SphinxProcessor(byte_tokenizer(CHAT_TEMPLATE), model.config, template)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def logits_at_end(model, images, texts):
    batch = processor_of(model)(images, texts)
    with torch.no_grad():
        return model(**batch, position_ids=positions(batch["attention_mask"])).logits[:, -1], batch


def positions(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


@pytest.mark.parametrize("places", ["after_bos", "placeholder"])
def test_rows_of_a_batch_are_what_they_are_alone(places):
    model = tiny_model(image_places=places)
    mark = "<image>" if places == "placeholder" else ""
    texts = [f"look {mark}here", f"{mark}tall", "no picture at all", f"two {mark} and {mark}?"]
    images = [WIDE, TALL, None, [SQUARE, WIDE]]
    together, batch = logits_at_end(model, images, texts)
    assert batch["useful_views"].sum(dim=1).tolist() == [3, 3, 5, 3]
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        alone, _ = logits_at_end(model, [image], [text])
        torch.testing.assert_close(together[row], alone[0], atol=2e-5, rtol=1e-4)


def test_placeholders_say_where_images_stand():
    model = tiny_model(image_places="placeholder")
    first, batch = logits_at_end(model, [WIDE], ["<image>ab"])
    later, _ = logits_at_end(model, [WIDE], ["a<image>b"])
    assert not torch.allclose(first, later, atol=1e-3)
    swapped, _ = logits_at_end(model, [[WIDE, TALL]], ["<image>and<image>"])
    given, _ = logits_at_end(model, [[TALL, WIDE]], ["<image>and<image>"])
    assert not torch.allclose(swapped, given, atol=1e-4)


def test_images_follow_the_first_token_in_the_compatible_mode(model):
    row = processor_of(model)([WIDE], ["ab<image>c"])["input_ids"][0].tolist()
    count = model.config.image_lengths([WIDE.size])[0]
    assert row[1 : 1 + count] == [model.config.image_token_id] * count
    assert row[0] == 1
    assert model.config.image_token_id not in row[1 + count :]


class Calls:
    """Counts how often an encoder is run, and on how many views."""

    def __init__(self, model):
        self.rows = {name: [] for name in model.encoders.members}
        self.handles = [
            member.register_forward_pre_hook(self._hook(name))
            for name, member in model.encoders.members.items()
        ]

    def _hook(self, name):
        return lambda module, inputs: self.rows[name].append(len(inputs[0]))


def test_encoders_run_once_on_useful_views_alone(model):
    calls = Calls(model)
    batch = processor_of(model)([WIDE, [TALL, SQUARE], None], ["a", "b", "c"])
    with torch.no_grad():
        model(**batch)
    assert calls.rows == {name: [3 + 3 + 5] for name in ("qformer", "clip", "convnext", "dinov2")}
    [handle.remove() for handle in calls.handles]


def test_generation_encodes_once_whatever_the_beams(model):
    calls = Calls(model)
    batch = processor_of(model)([WIDE, None], ["a", "b"])
    model.generate(**batch, max_new_tokens=4, num_beams=3, do_sample=False)
    assert calls.rows["clip"] == [3]
    [handle.remove() for handle in calls.handles]


def test_a_skipped_view_does_not_depend_on_its_pixels_and_an_encoded_one_does(model):
    batch = processor_of(model)([WIDE], ["a"])
    with torch.no_grad():
        before = model(**batch).logits
        batch["pixel_values"][:, :, 28:] += 1  # padding below, which the whole view shows, too
        model.encoders.views = replace(model.encoders.views)
        whole_changes = model(**batch).logits
        tokens = model.image_tokens(batch["pixel_values"], batch["useful_views"])
    assert not torch.allclose(before, whole_changes)
    (skip,) = model.view_tokens.skip[0]
    assert torch.equal(tokens[-1], skip)
    assert torch.equal(tokens[-2], skip)


def test_one_token_for_each_place_or_marks_around():
    config = TokenConfig(grid=2, skip="per_place", skip_marks=True)
    model = tiny_model(tokens=config)
    batch = processor_of(model)([TALL], ["a"])  # views 2 and 4 are skipped
    with torch.no_grad():
        tokens = model.image_tokens(batch["pixel_values"], batch["useful_views"])
    marks = model.view_tokens
    torch.testing.assert_close(tokens[-2], marks.skip[0, 3])
    torch.testing.assert_close(
        tokens[-3:], torch.stack([marks.start[0, 0], marks.skip[0, 3], marks.end[0, 0]])
    )
    assert len(tokens) == model.config.image_lengths([TALL.size])[0]


def test_pooled_sub_images_have_the_mean_of_four_places():
    model = tiny_model(tokens=TokenConfig(grid=2, pool_sub_images=True))
    batch = processor_of(model)([SQUARE], ["a"])
    with torch.no_grad():
        encoded = torch.ones(1, 5, dtype=torch.bool)
        features = model.encoders(batch["pixel_values"], encoded)
        tokens = model.image_tokens(batch["pixel_values"], batch["useful_views"])
        projected = model.view_tokens.mixed_projection(features.mixed[2, 1:].mean(dim=0))
    whole, sub = 2 + 3 + 5, 2 + 3 + 2
    assert len(tokens) == whole + 4 * sub
    torch.testing.assert_close(tokens[whole + 2 * sub - 2], projected)


@pytest.mark.parametrize(
    "encoders",
    [MIX, (CLIP,), (QFORMER,), (DINOV2, CONVNEXT), (CONVNEXT, QFORMER, replace(CLIP, name="other"), CLIP)],
    ids=lambda mix: "+".join(one.name for one in mix),
)
def test_any_combination_and_order_of_encoders(encoders):
    model = tiny_model(encoders)
    batch = processor_of(model)([WIDE], ["a"])
    with torch.no_grad():
        assert torch.isfinite(model(**batch).logits).all()
        features = model.encoders(batch["pixel_values"], batch["useful_views"])
        same = model(batch["input_ids"], features=features, useful_views=batch["useful_views"]).logits
    torch.testing.assert_close(same, model(**batch).logits)


@pytest.mark.parametrize("mixtral", [False, True], ids=["llama", "mixtral"])
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_the_same_with_and_without_cache_and_alone(mixtral, beams):
    model = tiny_model(mixtral=mixtral)
    model.generation_config.eos_token_id = None
    texts, images = ["first", "the second one", "text"], [WIDE, [TALL, SQUARE], None]
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams}
    batch = processor_of(model)(images, texts)
    cached = model.generate(**batch, **options)
    assert torch.equal(cached, model.generate(**batch, **options, use_cache=False))
    assert cached.shape[1] == batch["input_ids"].shape[1] + 6
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        alone = model.generate(**processor_of(model)([image], [text]), **options)
        assert torch.equal(alone[0, -6:], cached[row, -6:])


def test_generation_is_the_repeated_forward_pass(model):
    batch = processor_of(model)([WIDE], ["abc"])
    found = model.generate(**batch, max_new_tokens=5, do_sample=False, repetition_penalty=1.1)
    plain = model.generate(**batch, max_new_tokens=5, do_sample=False)
    ids = batch["input_ids"]
    with torch.no_grad():
        for _ in range(5):
            step = model(ids, batch["pixel_values"], batch["useful_views"]).logits[:, -1:].argmax(dim=-1)
            ids = torch.cat([ids, step], dim=1)
    assert torch.equal(ids[:, -5:], plain[:, -5:])
    assert found.max() < 259  # ids that every decoder knows


def test_every_trained_part_gets_gradients_and_frozen_encoders_none(model):
    model = tiny_model()
    set_trainable(model, "all_but_encoders")
    model.train()
    batch = processor_of(model)([WIDE, None], ["abc", "d"])
    model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] >= 259, -100)).loss.backward()
    for name, weight in model.named_parameters():
        if name.startswith("encoders."):
            assert weight.grad is None, name
        else:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


def test_a_batch_of_text_gives_visual_parts_gradients_of_zero():
    model = tiny_model()
    set_trainable(model, "everything")
    model.train()
    batch = processor_of(model)(None, ["only text"])
    out = model(**batch, labels=batch["input_ids"])
    torch.testing.assert_close(out.logits, model.language_model(**batch).logits)
    out.loss.backward()
    visual = [weight for name, weight in model.named_parameters() if name.startswith("view_tokens.")]
    assert all(weight.grad is not None and not weight.grad.any() for weight in visual)
    assert model.encoders.members["clip"].tower.model.conv1.weight.grad is not None


def test_experts_are_balanced_while_training_once():
    model = tiny_model(mixtral=True)
    batch = processor_of(model)([WIDE], ["abc"])
    labels = batch["input_ids"].masked_fill(batch["input_ids"] >= 259, -100)
    assert getattr(model(**batch, labels=labels), "aux_loss", None) is None
    plain = model(**batch, labels=labels).loss
    found = model.train()(**batch, labels=labels)
    coefficient = model.config.text_config.router_aux_loss_coef
    torch.testing.assert_close(found.loss, plain + coefficient * found.aux_loss)


def test_encoders_can_be_trained():
    model = tiny_model()
    set_trainable(model, "everything")
    model.train()
    batch = processor_of(model)([SQUARE], ["abc"])
    model(**batch).logits.sum().backward()
    for part in ("qformer", "clip", "convnext", "dinov2"):
        grads = [
            weight.grad for weight in model.encoders.members[part].parameters() if weight.grad is not None
        ]
        assert any(grad.any() for grad in grads), part


def test_dropout_of_a_frozen_encoder_is_active_only_where_it_was_published():
    published = tiny_model((replace(QFORMER, dropout=True), CLIP))
    published.train()
    assert published.encoders.members["qformer"].training
    assert not published.encoders.members["clip"].training
    assert not tiny_model().train().encoders.members["qformer"].training
    assert not published.eval().encoders.members["qformer"].training


@pytest.mark.parametrize("mixtral", [False, True], ids=["llama", "mixtral"])
def test_a_folder_holds_the_whole_model(tmp_path, mixtral):
    model = tiny_model(mixtral=mixtral)
    processor_of(model).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    again, report = SphinxForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any(weight.requires_grad for weight in again.encoders.parameters())
    for (name, weight), (other, loaded) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(weight, loaded), name
    batch = SphinxProcessor.from_pretrained(tmp_path)([WIDE], ["abc"])
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits)


def test_half_precision_is_that_of_all_parts(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    half = SphinxForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    batch = processor_of(model)([WIDE], ["abc"])
    with torch.no_grad():
        assert half(**batch).logits.dtype == torch.bfloat16


def test_a_given_language_model_keeps_its_weights():
    donor = tiny_model(seed=5).language_model
    kept = {name: weight.clone() for name, weight in donor.state_dict().items()}
    config = tiny_config()
    config = SphinxConfig(
        text_config=donor.config, encoders=config.encoders, views=config.views, tokens=config.tokens
    )
    model = SphinxForConditionalGeneration(config, donor)
    assert model.language_model.config._attn_implementation == "sdpa"
    assert model.config.text_config is donor.config
    for name, weight in model.language_model.state_dict().items():
        assert torch.equal(weight, kept[name]), name
    assert model.view_tokens.start.std() > 0.1  # initializer_range is 0.3


def test_refuses_images_that_do_not_fit_their_places(model):
    batch = processor_of(model)([WIDE], ["abc"])
    with pytest.raises(UserError, match="have 32 tokens, but the text 0 places"):
        model(batch["input_ids"][:, -3:], batch["pixel_values"], batch["useful_views"])
    with pytest.raises(UserError, match="have 0 tokens, but the text 32 places"):
        model(batch["input_ids"])
    features = MixedFeatures(torch.zeros(2, 5, 28))
    with pytest.raises(
        UserError, match="Features of 2 views came for 1 images, of which 3 views are encoded"
    ):
        model(batch["input_ids"], features=features, useful_views=batch["useful_views"])
    with pytest.raises(UserError, match="Neither input_ids nor inputs_embeds"):
        model()


def test_embeddings_are_the_language_models(model):
    assert model.get_input_embeddings() is model.language_model.get_input_embeddings()
    assert isinstance(model.get_output_embeddings(), nn.Linear)


@pytest.mark.parametrize("padding", ["none", "left"])
def test_generate_sees_images_without_an_attention_mask(model, padding):
    """Their places have an id that no decoder knows; what stands there instead is no padding."""
    model = model.eval()
    texts = ["look"] if padding == "none" else ["look", "look at this"]
    images = [WIDE] * len(texts)
    processor = processor_of(model)
    batch = dict(processor(images, texts))
    mask = batch.pop("attention_mask")
    assert bool((mask == 0).any()) == (padding == "left")
    pad = processor.tokenizer.pad_token_id or 0
    options = {
        "max_new_tokens": 2,
        "do_sample": False,
        "output_scores": True,
        "return_dict_in_generate": True,
    }
    options |= {"pad_token_id": pad, "eos_token_id": 255}

    def scores(pixels, **given):
        return model.generate(**{**batch, "pixel_values": pixels}, **options, **given).scores[0]

    pixels = batch["pixel_values"]
    torch.testing.assert_close(scores(pixels), scores(pixels, attention_mask=mask))
    torch.testing.assert_close(scores(pixels, attention_mask=None), scores(pixels, attention_mask=mask))
    assert not torch.allclose(scores(pixels), scores(-pixels), atol=1e-3)
