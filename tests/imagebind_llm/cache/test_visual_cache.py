"""The cache finds what brute force finds, and blends by the published formula."""

import json
import tempfile
from pathlib import Path

import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from imagebind_llm import CacheConfig, VisualCache
from imagebind_llm.cache.records import EncoderRecord
from llama_adapter import UserError
from tests.imagebind_llm.cache.caches import WIDTH, make_cache, random_features, stored

RECORD = EncoderRecord(name="a", weights="1" * 64, space="2" * 64, transform="3" * 64)


@pytest.fixture(scope="module")
def features():
    return random_features(400)


@pytest.fixture(scope="module")
def folder(features, tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache"), features)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 60), width=st.integers(1, 20), queries=st.integers(1, 5), k=st.integers(1, 12))
def test_search_is_brute_force(rows, width, queries, k):
    kept = random_features(rows, width, seed=rows)
    asking = 3 * random_features(queries, width, seed=99)
    with tempfile.TemporaryDirectory() as root:
        cache = VisualCache.open(make_cache(Path(root), kept))
        similarities, numbers, found = cache.search(asking, k)
    wanted = asking @ stored(kept).T
    torch.testing.assert_close(similarities, wanted.topk(min(k, rows)).values)
    torch.testing.assert_close(wanted.gather(1, numbers), similarities)
    assert torch.equal(found, stored(kept)[numbers])
    assert all(len(set(line)) == min(k, rows) for line in numbers.tolist())


@pytest.mark.parametrize(
    ("temperature", "weight", "top_k"), [(20.0, 0.5, 10), (5.0, 0.2, 3), (100.0, 1.0, 1)]
)
def test_blend_is_the_formula(folder, features, temperature, weight, top_k):
    cache = VisualCache.open(folder, CacheConfig(temperature=temperature, weight=weight, top_k=top_k))
    mixes = 0.7 * normalize(random_features(6, seed=1), dim=-1)
    for mix, blend in zip(mixes, cache.blend(mixes), strict=True):
        best, rows = (stored(features) @ mix).topk(top_k)
        shares = torch.exp(temperature * best) / torch.exp(temperature * best).sum()
        near = normalize((shares[:, None] * stored(features)[rows]).sum(0), dim=0)
        torch.testing.assert_close(blend, normalize(weight * near + (1 - weight) * mix, dim=0))


def test_a_batch_is_its_rows(folder):
    cache = VisualCache.open(folder)
    mixes = random_features(7, seed=2)
    torch.testing.assert_close(cache.blend(mixes), torch.cat([cache.blend(mix[None]) for mix in mixes]))


def test_weight_0_leaves_the_direction_and_1_the_nearest(folder, features):
    mixes = random_features(5, seed=3)
    alone = VisualCache.open(folder, CacheConfig(weight=0.0)).blend(mixes)
    torch.testing.assert_close(alone, normalize(mixes, dim=-1))
    nearest = VisualCache.open(folder, CacheConfig(weight=1.0, top_k=1)).blend(mixes)
    rows = (mixes @ stored(features).T).argmax(1)
    torch.testing.assert_close(nearest, normalize(stored(features)[rows], dim=-1))


def test_a_high_temperature_trusts_the_nearest_alone(folder):
    mixes = random_features(5, seed=4)
    hot = VisualCache.open(folder, CacheConfig(temperature=1e5)).blend(mixes)
    torch.testing.assert_close(hot, VisualCache.open(folder, CacheConfig(top_k=1)).blend(mixes))


def test_copies_of_a_row_count_as_one(tmp_path, features):
    few = features[:4]
    once = make_cache(tmp_path / "once", few)
    copies = make_cache(tmp_path / "copies", few.repeat(3, 1))
    mixes = random_features(5, seed=5)
    a = VisualCache.open(once, CacheConfig(top_k=2)).blend(mixes)
    b = VisualCache.open(copies, CacheConfig(top_k=6))
    torch.testing.assert_close(a, b.blend(mixes))
    rows = b.search(mixes)[1]
    assert torch.equal(rows[:, :3], rows[:, :3].sort().values)  # equal ones in their order


def test_types_and_devices_come_back(folder):
    cache = VisualCache.open(folder)
    mix = random_features(2, seed=6)
    blend = cache.blend(mix.bfloat16())
    assert blend.dtype == torch.bfloat16
    torch.testing.assert_close(blend.float(), cache.blend(mix.bfloat16().float()), atol=5e-3, rtol=0)
    assert cache.search(mix.half())[0].dtype == torch.float32


def test_names_and_sizes(folder):
    cache = VisualCache.open(folder)
    assert (len(cache), cache.dimension, cache.encoder) == (400, WIDTH, None)
    assert [cache.name(row) for row in (0, 7, 399)] == [f"features.npy:{row}" for row in (0, 7, 399)]


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        (torch.ones(2, 3), r"width 16; .*shape \(2, 3\). Use \(records, 16\)"),
        (torch.full((1, WIDTH), torch.nan), "not finite. Check the input"),
    ],
)
def test_what_cannot_ask(folder, asking, said):
    with pytest.raises(UserError, match=said):
        VisualCache.open(folder).search(asking)


def test_another_encoder_is_refused(folder, tmp_path):
    content = json.loads((folder / "cache.json").read_text())
    content["encoder"] = {"name": "b", "weights": "4" * 64, "space": "5" * 64, "transform": "6" * 64}
    copy = tmp_path / "cache"
    copy.mkdir()
    for file in folder.iterdir():
        if file.is_dir():
            (copy / file.name).symlink_to(file)
    (copy / "cache.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"built with 'b' \(weights 4{12}.*, but 'a' .*Use that encoder, or build"
    ):
        VisualCache.open(copy, encoder=RECORD)
    content["encoder"]["space"] = RECORD.space
    (copy / "cache.json").write_text(json.dumps(content))
    assert len(VisualCache.open(copy, encoder=RECORD)) == 400
    assert len(VisualCache.open(folder, encoder=RECORD)) == 400  # of unknown origin


def test_an_index_of_other_rows_is_refused(folder, tmp_path, features):
    other = make_cache(tmp_path, features[:50])
    (other / "index" / "index.json").write_bytes((folder / "index" / "index.json").read_bytes())
    with pytest.raises(UserError, match="made of 400 other rows than the 50 .*cache index --cache"):
        VisualCache.open(other)
    (other / "index" / "index.json").unlink()
    with pytest.raises(UserError, match="has no index yet. Run 'llama-adapter cache index"):
        VisualCache.open(other)
    assert len(VisualCache.open(other, CacheConfig(exact=True))) == 50


@pytest.mark.parametrize("change", [{"top_k": 0}, {"weight": 1.5}, {"probes": 0}, {"candidates": 0}])
def test_settings_out_of_range(change):
    with pytest.raises(UserError, match=f"{next(iter(change))} of the cache is"):
        CacheConfig(**change)


@pytest.mark.parametrize("kind", ["Flat", "IVF8,Flat", "IVF8,SQ8", "OPQ4_16,IVF8,PQ4x4", "HNSW8"])
@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_index_files_of_others_open(kind, metric, features, tmp_path):
    rows = normalize(features, dim=-1)
    index = faiss.index_factory(WIDTH, kind, metric)
    index.train(rows.numpy())
    index.add(rows.numpy())
    faiss.write_index(index, str(tmp_path / "knn.index"))
    cache = VisualCache.open(tmp_path / "knn.index", CacheConfig(probes=64))
    mixes = normalize(random_features(5, seed=7), dim=-1)
    similarities, numbers, found = cache.search(mixes)
    torch.testing.assert_close(similarities, torch.einsum("be,bke->bk", mixes, found))
    assert (similarities.diff(dim=1) <= 0).all()
    assert cache.name(3) == "row 3"
    if "PQ" not in kind:
        wanted = (mixes @ rows.T).topk(10).indices
        shared = (wanted[:, :, None] == numbers[:, None]).any(2).float().mean()
        assert shared > 0.9
        torch.testing.assert_close(found, rows[numbers], atol=0.02, rtol=0)
        torch.testing.assert_close(cache.blend(mixes), normalize(cache.blend(mixes), dim=-1))


def test_an_index_that_finds_too_few_says_so_with_minus_one(features, tmp_path):
    rows = normalize(features[:20], dim=-1)
    index = faiss.index_factory(WIDTH, "IVF10,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rows.numpy())
    index.add(rows.numpy())
    faiss.write_index(index, str(tmp_path / "knn.index"))
    similarities, numbers, found = VisualCache.open(tmp_path / "knn.index").search(rows[:1])
    lacking = numbers < 0
    assert lacking.any()
    assert (similarities[lacking] == -torch.inf).all()
    assert (found[lacking] == 0).all()
    blend = VisualCache.open(tmp_path / "knn.index").blend(rows[:1])
    assert blend.isfinite().all()


@pytest.mark.parametrize("content", [b"", b"IwFl damaged", b"no index at all"])
def test_a_damaged_index_file_is_named(content, tmp_path):
    (tmp_path / "knn.index").write_bytes(content)
    with pytest.raises(UserError, match="knn.index' cannot be read as an index of faiss: .*Restore the file"):
        VisualCache.open(tmp_path / "knn.index")


def test_an_index_without_rows_is_named(tmp_path):
    faiss.write_index(faiss.IndexFlatIP(16), str(tmp_path / "empty.index"))
    faiss.write_index(faiss.index_factory(16, "IVF4,Flat"), str(tmp_path / "untrained.index"))
    for name in ("empty.index", "untrained.index"):
        with pytest.raises(UserError, match=f"{name}' holds no rows. Use one that rows were added to"):
            VisualCache.open(tmp_path / name)


def test_an_index_of_other_rows_or_another_width_is_named(features, tmp_path):
    cache = make_cache(tmp_path, features, kind="ivf_sq8", lists=4)
    for rows, width in ((400, WIDTH // 2), (30, WIDTH)):
        index = faiss.IndexFlatIP(width)
        index.add(random_features(rows, width).numpy())
        faiss.write_index(index, str(cache / "index" / "knn.index"))
        message = f"knn.index' holds {rows} rows of width {width}, but the cache 400 of width {WIDTH}. Run"
        with pytest.raises(UserError, match=message):
            VisualCache.open(cache)


@pytest.mark.parametrize(
    ("name", "value"), [("dimension", 0), ("shards", 0), ("metric", "l2"), ("items", True), ("block", 1e999)]
)
def test_a_note_of_the_cache_that_cannot_be_is_named(features, tmp_path, name, value):
    cache = make_cache(tmp_path, features)
    note = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps(note | {name: value}))
    with pytest.raises(UserError, match=f"cache.json' (holds|has) .*{name}=.*, which cannot be. Restore"):
        VisualCache.open(cache)


def test_more_parts_than_any_folder_holds(features, tmp_path):
    cache = make_cache(tmp_path, features)
    note = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps(note | {"shards": 10**9}))
    with pytest.raises(
        UserError, match=r"1000000000 of 1000000000 parts .* are not complete: \['part-0001-of"
    ):
        VisualCache.open(cache)
