"""What skip tokens save, in tokens and work."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sphinx_ft.encoders.registry import make_encoder
from sphinx_ft.savings import savings, view_flops
from sphinx_ft.tokens import TokenConfig
from tests.sphinx_ft.tiny import MIX, tiny_config


@pytest.fixture
def plain_attention():
    """Attention as single products, which torch's counter sees; it overlooks some fused kernels."""
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.usefixtures("plain_attention")
@pytest.mark.parametrize("config", MIX, ids=lambda config: config.name)
def test_work_of_a_view_is_that_of_a_real_pass(config):
    encoder = make_encoder(config).eval().requires_grad_(False)
    side = config.input_size or config.view_size
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, side, side))
    assert view_flops(config) == counter.get_total_flops() > 0


def test_totals_follow_from_the_sizes():
    found = savings(tiny_config(), [(80, 40), (50, 50)])
    work = sum(view_flops(one) for one in MIX)
    assert (found.images, found.views, found.encoded_views) == (2, 10, 8)
    assert (found.tokens, found.kept_tokens) == (100, 3 * 10 + 2 + 50)
    assert (found.flops, found.kept_flops) == (10 * work, 8 * work)
    assert "8 of 10 views encoded, 82 of 100 tokens (-18.0%)" in str(found)
    nothing = savings(tiny_config(tokens=TokenConfig(grid=2)), [(80, 40)])
    assert nothing.kept_tokens == nothing.tokens
    assert nothing.kept_flops == nothing.flops
    assert savings(tiny_config(), []).tokens == 0
