"""What all conditioners share: features in, levels joined, early fusion, what is refused."""

import pytest
import torch

from llama_adapter import UserError
from llama_adapter.adapters import prompt_context
from llama_adapter.adapters.prompts import PromptLayer
from llama_adapter.conditioning import base
from llama_adapter.conditioning.base import CONDITIONERS, join_levels, make_conditioner
from tests.adapters import tiny

SMALL = {
    "global_features": {"feature_width": 12},
    "visual_queries": {
        "feature_width": 12,
        "num_queries": 3,
        "width": 8,
        "depth": 2,
        "num_heads": 2,
        "mlp_width": 16,
    },
}
TOKENS = {"global_features": 1, "visual_queries": 5}


def small(kind, **options):
    torch.manual_seed(1)
    return make_conditioner({"kind": kind, "hidden_size": 64, **SMALL[kind], **options})


def features(kind, records=2):
    return torch.randn(records, TOKENS[kind], 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=sorted(CONDITIONERS))
def kind(request):
    return request.param


def test_gradients_reach_every_parameter_through_the_prompts(kind):
    model, conditioner = tiny.adapted(prompt_length=3, prompt_layers=[1, 3]), small(kind)
    with prompt_context(model, conditioner(features(kind))):
        model(tiny.ids()).logits.square().mean().backward()
    without = [n for n, p in conditioner.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@torch.no_grad()
def test_a_record_does_not_depend_on_its_batch(kind):
    conditioner, given = small(kind), features(kind, records=4)
    together = conditioner(given)
    for index in range(4):
        torch.testing.assert_close(together[index : index + 1], conditioner(given[index : index + 1]))
    assert not torch.allclose(together[0], together[1])


@torch.no_grad()
def test_half_precision_features_of_a_cache_are_taken(kind):
    conditioner, given = small(kind), features(kind).half()
    assert torch.equal(conditioner(given), conditioner(given.float()))
    assert conditioner.bfloat16()(given).dtype == torch.bfloat16


@torch.no_grad()
def test_levels_are_joined_by_their_width(kind):
    conditioner, given = small(kind), features(kind)
    assert torch.equal(conditioner([given[..., :5], given[..., 5:]]), conditioner(given))


@torch.no_grad()
def test_early_fusion_leaves_later_prompts_alone(kind):
    """Layers 0 and 1 see the image, the prompts of layer 3 are the same for all."""
    model = tiny.adapted(prompt_length=3, prompt_layers=[0, 1, 3])
    conditioner = small(kind, early_layers=2)
    added = conditioner(features(kind))
    assert sorted(added) == [0, 1]
    assert added[0] is added[1]
    assert torch.equal(added[0], small(kind)(features(kind)))
    layers = {m.layer_index: m.zero_init_gate for m in model.modules() if isinstance(m, PromptLayer)}
    with prompt_context(model, added):
        seen = model(tiny.ids()).logits
        for index in (0, 1):
            layers[index]["default"].value.zero_()
        blind = model(tiny.ids()).logits
    assert torch.equal(blind, model(tiny.ids()).logits)
    assert not torch.allclose(seen, blind, atol=1e-3)


def test_early_fusion_needs_prompts_in_the_early_layers(kind):
    model = tiny.adapted(prompt_length=3, prompt_layers=[1, 3])
    added = small(kind, early_layers=2)(features(kind))
    with (
        pytest.raises(UserError, match="name layer 0. Use layers with prompts"),
        prompt_context(model, added),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "sight"},
            r"Unknown conditioner 'sight'. Use one of \[.*'global_features', 'visual_queries'\]",
        ),
        ({"kind": "global_features", "feature_width": 3}, "hidden_size of .* is 0. Use at"),
        ({"kind": "global_features", "hidden_size": 1, "feature_width": 3, "depth": 2}, "depth.*Use the"),
        ({"kind": "visual_queries", "hidden_size": 8, "early_layers": 0}, "early_layers of .* is 0. Use at"),
        ({"kind": "visual_queries", "hidden_size": 8, "num_heads": 5}, "width=768 .* 5 heads. Set num_heads"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(UserError, match=message):
        make_conditioner(options)


def test_features_that_do_not_fit_are_named(kind):
    with pytest.raises(UserError, match="tokens of width 7, .* of width 12. Use the encoder settings"):
        small(kind)(features(kind)[..., :7])
    with pytest.raises(UserError, match=r"shapes \[\(2, 1, 3\), \(2, 2, 3\)\].*Use levels with the same"):
        join_levels([torch.zeros(2, 1, 3), torch.zeros(2, 2, 3)])
    with pytest.raises(UserError, match=r"shapes \[\], which"):
        join_levels([])


def test_several_tokens_are_no_global_feature():
    with pytest.raises(UserError, match="have 2 tokens of width 12, .* takes 1 of width 12"):
        small("global_features")(torch.zeros(1, 2, 12))


def test_a_new_conditioner_needs_one_registration(monkeypatch):
    monkeypatch.setattr(base, "CONDITIONERS", dict(CONDITIONERS))

    @base.register_conditioner("mean", base.ConditionerConfig)
    class Mean(base.Conditioner):
        def __init__(self, config):
            super().__init__(config)
            self.scale = torch.nn.Parameter(torch.ones(config.hidden_size))

        def vectors(self, features, mask):
            return features.mean((1, 2), keepdim=True) * self.scale

    made = make_conditioner(base.ConditionerConfig(kind="mean", hidden_size=4, feature_width=2))
    assert made(torch.ones(3, 2, 2)).shape == (3, 1, 4)
