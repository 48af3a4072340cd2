"""Hashes: equal for equal things, different for different ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llama_adapter.data.identity import (
    canonical_json,
    content_key,
    encoder_identity,
    json_digest,
    weights_digest,
)
from llama_adapter.errors import UserError

SETTINGS = st.dictionaries(
    st.text(max_size=3), st.integers() | st.lists(st.booleans()), min_size=1, max_size=4
)


@given(SETTINGS)
def test_the_order_of_settings_does_not_matter(settings):
    assert json_digest(dict(reversed(settings.items()))) == json_digest(settings)


@given(SETTINGS, SETTINGS)
def test_other_settings_have_another_text(one, other):
    assert (canonical_json(one) == canonical_json(other)) == (one == other and str(one) == str(other)) or (
        one == other  # False == 0 in Python, not in JSON
    )


@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(UserError, match="cannot be part of a cache's identity.*Use numbers"):
        canonical_json(value)


def test_a_file_is_known_by_its_content(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"picture")
    second.write_bytes(b"picture")
    assert content_key(first) == content_key(str(second)) == content_key(b"picture")
    second.write_bytes(b"picturf")
    assert content_key(second) != content_key(first)
    with pytest.raises(UserError, match="'.*missing' cannot be read: .*Use the path of an existing file"):
        content_key(tmp_path / "missing")


def test_a_record_is_known_by_its_values():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1}) != content_key({"a": 1, "b": 3})
    assert content_key({"a": 1}) != content_key(b'{"a":1}')


@pytest.mark.parametrize("change", ["value", "dtype", "shape", "name"])
def test_weights_are_known_by_name_type_shape_and_value(change):
    tensor = torch.arange(6.0)
    changed = {
        "value": ("w", tensor + torch.eye(6)[3] * 1e-6),
        "dtype": ("w", tensor.double()),
        "shape": ("w", tensor.view(2, 3)),
        "name": ("v", tensor),
    }[change]
    assert weights_digest([("w", tensor)]) == weights_digest([("w", tensor.clone())])
    assert weights_digest([changed]) != weights_digest([("w", tensor)])


def test_weights_in_any_order_and_memory_layout():
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3, dtype=torch.int64)}
    turned = {"b": tensors["b"], "a": tensors["a"].t().contiguous().t()}
    assert weights_digest(tensors.items()) == weights_digest(turned.items())


def test_weights_without_values_are_refused():
    with pytest.raises(UserError, match="weight 'w' has no values here.*Load the whole model"):
        weights_digest([("w", torch.empty(1, device="meta"))])


def test_an_encoder_is_known_by_class_settings_and_weights():
    torch.manual_seed(0)
    encoder = nn.Linear(2, 2)
    before = encoder_identity(encoder, {"size": 2})
    assert encoder_identity(encoder, {"size": 2, "transformers_version": "9"}) == before
    assert encoder_identity(encoder, {"size": 3}) != before
    with torch.no_grad():
        encoder.weight[0, 0] += 1e-6
    assert encoder_identity(encoder, {"size": 2}) != before
