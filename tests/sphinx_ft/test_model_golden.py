"""Tokens, logits and losses of the original models, from their encoders' outputs and from pictures."""

import pytest
import torch
from PIL import Image

from sphinx_ft.pictures import load_squares
from tests.sphinx_ft.golden_cases import (
    CASES,
    SPARSE,
    golden,
    golden_features,
    golden_model,
    view_config,
    with_images,
)

SIZES = [(90, 60), (40, 100)]
EVERY = 4
"""Which tokens of a view the goldens hold: the first, the fifth, ..."""


def pictures_of(tensors):
    return [Image.fromarray(tensors[f"in/image{index}_u8"].numpy()) for index in range(2)]


def kept(logits, model):
    """What the original keeps: from the last image token on, which stands in for BOS."""
    return logits[:, model.config.image_lengths(SIZES)[0] :]


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_logits_follow_from_the_encoders_outputs(case):
    tensors = golden(case)
    model, features = golden_model(case, tensors), golden_features(case, tensors)
    views = view_config(case).count
    with torch.no_grad():
        tokens = model.image_tokens(features=features)
        blocks = tokens.unflatten(0, (2, views, -1))
        for view in range(views):
            torch.testing.assert_close(
                blocks[:, view, 1:-1:EVERY], tensors[f"out/view{view}"], atol=1e-4, rtol=0
            )
        assert torch.equal(blocks[..., 0, :], tensors["llma.start_img"][0].expand(2, views, -1))
        assert torch.equal(blocks[..., -1, :], tensors["llma.end_img"][0].expand(2, views, -1))
        ids = with_images(tensors["in/tokens"], model, SIZES)
        logits = model(ids, features=features).logits
        torch.testing.assert_close(kept(logits, model), tensors["out/logits"], atol=1e-4, rtol=0)
        text_only = model(tensors["in/tokens"]).logits
        torch.testing.assert_close(text_only, tensors["out/logits_text_only"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_loss_follow_from_pictures(case):
    tensors = golden(case)
    model = golden_model(case, tensors)
    squares, useful = load_squares(pictures_of(tensors), view_config(case))
    ids = with_images(tensors["in/tokens"], model, SIZES)
    lengths = model.config.image_lengths(SIZES)
    labels = tensors["in/labels"].masked_fill(tensors["in/labels"] == 0, -100)
    ahead = torch.full((2, lengths[0]), -100)
    labels = torch.cat([labels[:, :1], ahead, labels[:, 1:]], dim=1)
    with torch.no_grad():
        found = model(ids, squares, useful, labels=labels)
    torch.testing.assert_close(kept(found.logits, model), tensors["out/logits"], atol=2e-3, rtol=0)
    torch.testing.assert_close(found.loss[None], tensors["out/loss"], atol=2e-3, rtol=0)


@pytest.mark.parametrize("case", [case for case in CASES if case not in SPARSE])
def test_prompts_and_next_tokens_go_through_the_cache(case):
    tensors = golden(case)
    model, features = golden_model(case, tensors), golden_features(case, tensors)
    ids = with_images(tensors["in/tokens"][:, :5], model, SIZES)
    with torch.no_grad():
        prompt = model(ids, features=features, use_cache=True)
        after = model(tensors["in/tokens"][:, 5:6], past_key_values=prompt.past_key_values)
    torch.testing.assert_close(prompt.logits[:, -1], tensors["out/infer_logits_prompt5"], atol=1e-4, rtol=0)
    torch.testing.assert_close(after.logits[:, -1], tensors["out/infer_logits_next"], atol=1e-4, rtol=0)
