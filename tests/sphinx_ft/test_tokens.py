"""Numbers of tokens: those of docs/sources/sphinx.md#variants, and those that the model makes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from sphinx_ft.pictures import load_squares
from sphinx_ft.tokens import TokenConfig
from sphinx_ft.variants import VARIANTS, variant_config
from sphinx_ft.views import ViewConfig
from tests.sphinx_ft.tiny import MIX, picture, tiny_model

PUBLISHED = {
    "sphinx": 291,
    "sphinx-1k": 1455,
    "sphinx-v2-1k": 1455,
    "sphinx-1k-pooled": 687,
    "sphinx-2k": 2910,
    "sphinx-tiny": 259,
    "sphinx-tiny-1k": 1295,
    "sphinx-moe": 291,
    "sphinx-moe-1k": 1455,
}
"""Tokens of an image, by docs/sources/sphinx.md#variants."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_released_variants_have_the_published_number_of_tokens(name):
    assert variant_config(name).image_lengths([(300, 200), (10, 1000)]) == [PUBLISHED[name]] * 2


def test_variants_with_skip_tokens_have_fewer_for_long_pictures():
    for name in VARIANTS.keys() - PUBLISHED.keys():
        assert variant_config(name).image_lengths([(100, 100), (200, 100)]) == [1295, 3 * 259 + 2]


@given(
    width=st.integers(1, 99),
    height=st.integers(1, 99),
    tokens=st.builds(
        TokenConfig,
        grid=st.just(2),
        pool_sub_images=st.booleans(),
        skip=st.sampled_from(["never", "shared", "per_place"]),
        skip_marks=st.booleans(),
    ),
    padding=st.sampled_from(["centred", "end"]),
)
@settings(max_examples=15, deadline=None)
def test_the_model_makes_as_many_tokens_as_are_counted(width, height, tokens, padding):
    views = ViewConfig(image_size=56, rows=2, columns=2, padding=padding)
    model = tiny_model((MIX[0], MIX[1]), views, tokens)
    squares, useful = load_squares([picture(width, height)], views)
    with torch.no_grad():
        found = model.image_tokens(squares, useful)
    assert [len(found)] == model.config.image_lengths([(width, height)])


def test_refuses_to_halve_an_odd_grid():
    with pytest.raises(UserError, match="grid of 7 cannot be halved"):
        TokenConfig(grid=7, pool_sub_images=True)
