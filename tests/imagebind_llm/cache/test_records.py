"""A record comes back as it was; a damaged one is refused by name."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebind_llm.cache.records import EncoderRecord, IndexRecord, Manifest, read_record, write_record
from imagebind_llm.cache.visual_cache import read_manifest
from llama_adapter import UserError

ENCODER = EncoderRecord(name="a", weights="1", space="2", transform="3")
MANIFEST = Manifest(
    format=1,
    dimension=4,
    metric="inner_product",
    items=9,
    source="5",
    block=32,
    shards=1,
    encoder=ENCODER,
    root="/x",
)


@pytest.mark.parametrize("encoder", [ENCODER, None])
def test_it_comes_back(encoder, tmp_path):
    path = tmp_path / "cache.json"
    manifest = Manifest(**asdict(MANIFEST) | {"encoder": encoder})
    write_record(path, manifest)
    assert read_record(path, Manifest) == manifest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimension": "4"}, "dimension='4', which cannot be"),
        ({"items": -1}, "items=-1, which cannot be"),
        ({"encoder": "a"}, "encoder='a', which cannot be"),
        ({"encoder": {"name": "a"}}, "holds .'name'., not the fields"),
        ({"more": 1}, "not the fields"),
        ({"format": 2}, "has the format 2; this program knows 1. Build it again"),
    ],
)
def test_a_changed_one_is_refused(change, said, tmp_path):
    (tmp_path / "cache.json").write_text(json.dumps(asdict(MANIFEST) | change))
    with pytest.raises(UserError, match=said):
        read_manifest(tmp_path)


@given(st.data())
def test_a_cut_one_is_refused(data):
    import tempfile
    from pathlib import Path

    text = json.dumps(asdict(MANIFEST))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cache.json").write_text(text[: data.draw(st.integers(0, len(text) - 1))])
        with pytest.raises(
            UserError, match="cache.json' is damaged: .*Restore it, or build into a new folder"
        ):
            read_manifest(Path(folder))


def test_what_is_not_there_or_no_mapping(tmp_path):
    with pytest.raises(UserError, match="cache.json' is not there. Build the cache with"):
        read_manifest(tmp_path)
    (tmp_path / "index.json").write_text("[1]")
    with pytest.raises(UserError, match="holds list, not the fields"):
        read_record(tmp_path / "index.json", IndexRecord)
