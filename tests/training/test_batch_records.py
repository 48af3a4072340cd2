"""Which records a batch holds: the same ones however they are laid out, or a reason."""

import re
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import DynamicCache

from llama_adapter.training.batch_records import find_records, token_ids


class Decoder(nn.Module):
    """All that is asked of a decoder: its config."""

    class config:
        use_cache = False


def found(*args, decoder=None, **kwargs):
    return find_records(decoder or Decoder(), args, kwargs)


RECORDS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=9), min_size=1, max_size=6)


@given(RECORDS, st.integers(0, 4))
def test_padded_and_packed_rows_hold_the_same_records(records, extra):
    width = max(len(record) for record in records) + extra
    padded = torch.tensor([record + [0] * (width - len(record)) for record in records])
    mask = torch.tensor([[1] * len(record) + [0] * (width - len(record)) for record in records])
    rows = found(input_ids=padded, attention_mask=mask)
    packed = found(
        input_ids=torch.tensor([list(chain(*records))]),
        position_ids=torch.tensor([[place for record in records for place in range(len(record))]]),
    )
    assert [span.key for span in rows] == [span.key for span in packed]
    assert [(s.row, s.start, s.stop) for s in rows] == [(n, 0, len(r)) for n, r in enumerate(records)]
    assert [s.stop - s.start for s in packed] == [len(record) for record in records]
    keys = {tuple(record): span.key for record, span in zip(records, rows, strict=True)}
    assert len(set(keys.values())) == len(keys)


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])


def test_whole_rows_and_empty_ones():
    assert [span.stop for span in found(IDS)] == [4, 4]
    assert [span.row for span in found(IDS, attention_mask=torch.tensor([[0] * 4, [1] * 4]))] == [1]
    assert torch.equal(token_ids((IDS,), {}), token_ids((), {"input_ids": IDS}))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"inputs_embeds": torch.ones(1, 2, 3)}, "no input_ids"),
        ({"input_ids": IDS, "token_type_ids": IDS}, r"also \['token_type_ids'\]"),
        (
            {"input_ids": IDS, "attention_mask": (IDS > 0).flip(1).long()},
            "not one of rows padded on the right",
        ),
        ({"input_ids": IDS, "attention_mask": torch.ones(2, 1, 4, 4)}, r"shape \(2, 1, 4, 4\)"),
        ({"input_ids": IDS, "position_ids": torch.tensor([[1, 2, 3, 4]])}, "do not count from 0 in every"),
        ({"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 1, 2]])}, "do not count from 0 in every"),
        (
            {"input_ids": IDS, "attention_mask": IDS * 0 + 1, "position_ids": torch.tensor([[0, 1, 0, 1]])},
            "do not count from 0",
        ),
        (
            {"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 0, 1]]), "use_cache": True},
            "packed records meet use_cache=True",
        ),
    ],
)
def test_what_cannot_be_told_apart(inputs, reason):
    answer = found(**inputs)
    assert isinstance(answer, str)
    assert re.search(reason, answer)


def test_tokens_that_follow_others():
    cache = DynamicCache()
    assert isinstance(found(input_ids=IDS, past_key_values=cache), list)
    cache.update(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4), 0)
    assert found(input_ids=IDS, past_key_values=cache) == "Decoder got also ['past_key_values']"
    assert found(IDS, None) == "Decoder got 2 positional inputs"
