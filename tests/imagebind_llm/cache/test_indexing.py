"""Indexes of every kind find what exact search finds, survive a kill, and may be moved."""

import json
import shutil

import pytest
import torch
from torch.nn.functional import normalize

from imagebind_llm import CacheConfig, VisualCache
from imagebind_llm.cache import indexing
from imagebind_llm.cache.build import ReindexConfig, index
from imagebind_llm.cache.indexing import IndexConfig, recall_of
from llama_adapter import UserError
from tests.imagebind_llm.cache.caches import contents, make_cache, random_features

ROWS = 600
KINDS = ["ivf_sq8", "ivf_pq", "hnsw"]
SMALL = {"lists": 16, "pq_bytes": 8, "links": 8, "queries": 64, "piece_rows": 250}


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("exact"), random_features(ROWS), kind="exact")


@pytest.fixture
def cache(exact, tmp_path):
    return shutil.copytree(exact, tmp_path / "copy")


def reindex(cache, **changes):
    index(ReindexConfig(cache=str(cache), index=IndexConfig(**SMALL | changes)))
    return json.loads((cache / "index" / "index.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_they_find_what_exact_search_finds(kind, cache, exact, tmp_path):
    record = reindex(cache, kind=kind, recall=0.9)
    assert record["recall"] >= 0.9
    moved = shutil.move(cache, tmp_path / "moved")
    queries = normalize(random_features(50, seed=1), dim=-1)
    wanted = VisualCache.open(exact).search(queries)
    found = VisualCache.open(moved).search(queries)
    assert recall_of(found[1], wanted[1]) > 0.8
    same = found[1] == wanted[1]
    torch.testing.assert_close(found[0][same], wanted[0][same])
    assert torch.equal(found[2][same], wanted[2][same])
    everything = VisualCache.open(moved, CacheConfig(probes=10_000, candidates=ROWS)).search(queries)
    torch.testing.assert_close(everything, wanted)


@pytest.mark.parametrize(("kind", "steps"), [("ivf_sq8", 1), ("ivf_sq8", 4), ("ivf_sq8", 5), ("ivf_pq", 2)])
def test_a_stopped_build_goes_on_and_gives_the_same_bytes(kind, steps, cache, monkeypatch):
    reindex(cache, kind=kind)
    wanted = contents(cache / "index")
    shutil.rmtree(cache / "index")
    write, written = indexing._Work._write, []

    def stopped(self, built, path):
        if len(written) == steps - 1:
            path.with_suffix(".tmp").write_bytes(b"half of it")
            raise KeyboardInterrupt
        written.append(path)
        write(self, built, path)

    with monkeypatch.context() as patch:
        patch.setattr(indexing._Work, "_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            reindex(cache, kind=kind)
    with pytest.raises(UserError, match="has no index yet"):
        VisualCache.open(cache)
    again = []
    monkeypatch.setattr(
        indexing._Work, "_write", lambda self, built, path: (again.append(path), write(self, built, path))
    )
    reindex(cache, kind=kind)
    assert not set(written) & set(again)
    assert contents(cache / "index") == wanted


def test_few_probes_are_extended_until_there_are_enough(cache):
    reindex(cache, kind="ivf_sq8", lists=200, recall=0.01)
    found = VisualCache.open(cache, CacheConfig(probes=1, top_k=40)).search(random_features(20, seed=2))
    assert (found[1] >= 0).all()
    assert all(len(set(rows)) == 40 for rows in found[1].tolist())


def test_the_same_index_is_not_built_twice(cache, monkeypatch):
    first = reindex(cache, kind="ivf_sq8", recall=0.3)
    monkeypatch.delattr(indexing._Work, "inverted_file")
    assert reindex(cache, kind="ivf_sq8", recall=0.3) == first
    assert reindex(cache, kind="ivf_sq8", recall=1.0)["probes"] > first["probes"]
    with pytest.raises(AttributeError):
        reindex(cache, kind="ivf_sq8", seed=1)


def test_a_few_lists_are_visited_in_any_case(cache):
    assert reindex(cache, kind="ivf_sq8", lists=64, recall=0.01)["probes"] == 4
    assert reindex(cache, kind="ivf_sq8", lists=3, recall=0.01)["probes"] == 3


def test_more_recall_takes_more_probes(cache):
    probes = [reindex(cache, kind="ivf_sq8", recall=recall)["probes"] for recall in (0.3, 0.8, 1.0)]
    assert probes == sorted(probes)
    assert probes[0] < probes[-1]


def test_the_kind_follows_the_size(cache, monkeypatch):
    assert reindex(cache, kind="auto", lists=None)["kind"] == "exact"
    monkeypatch.setattr(indexing, "_EXACT_UP_TO", 100)
    record = reindex(cache, kind="auto", lists=None)
    assert (record["kind"], record["lists"]) == ("ivf_sq8", 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "ivf_sq8", "lists": ROWS + 1}, "lists of the index is 601, but there are 600 rows"),
        (
            {"kind": "ivf_pq", "pq_bytes": 5},
            "pq_bytes is 5, which does not divide the width 16. Use a divisor",
        ),
        ({"recall": 0.0}, "recall of the index is 0.0. Use a share"),
        ({"lists": 0}, "lists of the index is 0. Use at least 1"),
    ],
)
def test_settings_that_do_not_fit(change, said, cache):
    with pytest.raises(UserError, match=said):
        reindex(cache, **change)


def test_lists_that_are_gone_are_named(cache):
    reindex(cache, kind="ivf_sq8")
    (cache / "index" / "lists.ivfdata").write_bytes(b"short")
    with pytest.raises(UserError, match="lists.ivfdata' is not there or too short. Restore it"):
        VisualCache.open(cache)


def test_recall_leaves_out_the_row_that_asks():
    wanted = torch.tensor([[0, 5, 6], [1, 7, 8]])
    found = torch.tensor([[0, 5, 9], [1, 9, 9]])
    assert recall_of(found, wanted) == pytest.approx(0.5)
    assert recall_of(found, wanted, torch.tensor([0, 1])) == pytest.approx(0.25)


def test_product_codes_need_rows_and_take_an_eighth_of_the_width(cache, tmp_path):
    assert reindex(cache, kind="ivf_pq", pq_bytes=None)["bytes_per_row"] == 2
    few = make_cache(tmp_path / "few", random_features(100))
    with pytest.raises(UserError, match="ivf_pq needs 256 rows to train on, but there are 100. Use ivf_sq8"):
        reindex(few, kind="ivf_pq")
