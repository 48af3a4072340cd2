"""Benchmarks run, count what they say they count, and judge their intervals; speed itself is not tested."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import (
    adapters_per_row,
    batches,
    checkpointing,
    decoding,
    decoding_peft,
    loss_kernel,
    matmul_share,
    product_step,
    prompt_attention,
    steps,
    training_step,
    visual_cache,
    visual_cache_kinds,
    visual_cache_pictures,
)
from benchmarks.__main__ import main
from benchmarks.check import unreached
from benchmarks.page import render
from benchmarks.ratios import bootstrap, bootstrap_totals, compare
from benchmarks.results import Row, read, write
from benchmarks.synthetic_features import KINDS, SyntheticRows
from imagebind_llm.cache.indexing import IndexConfig
from tests.vision.tiny_encoders import config_of, draw


def row(value, low, high, target, at_most=False, limit=None):
    return Row(
        measure="m",
        against="a",
        value=value,
        low=low,
        high=high,
        pairs=7,
        target=target,
        at_most=at_most,
        limit=limit,
    )


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row(1.3, 1.2, 1.4, 1.15), "reached"),
        (row(1.3, 1.1, 1.4, 1.15), "inconclusive"),
        (row(1.0, 0.9, 1.1, 1.15), "missed"),
        (row(1.02, 1.0, 1.03, 1.04, at_most=True), "reached"),
        (row(1.02, 1.0, 1.05, 1.04, at_most=True), "inconclusive"),
        (row(1.08, 1.06, 1.1, 1.04, at_most=True), "missed"),
        (row(1.03, 1.01, 1.05, 1.04, at_most=True, limit=1.06), "reached"),
        (row(1.03, 1.01, 1.07, 1.04, at_most=True, limit=1.06), "inconclusive"),
        (row(1.05, 1.03, 1.06, 1.04, at_most=True, limit=1.06), "inconclusive"),
        (row(1.055, 1.045, 1.06, 1.04, at_most=True, limit=1.06), "missed"),
        (row(1.0, 0.9, 1.1, None), "reported"),
    ],
)
def test_verdicts(found, verdict):
    assert found.verdict == verdict
    assert bool(unreached([found])) == (verdict in {"missed", "inconclusive"})


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=30))
def test_the_interval_holds_the_median(ratios):
    ratio = bootstrap(ratios)
    assert min(ratios) <= ratio.low <= ratio.median <= ratio.high <= max(ratios)


@given(st.lists(st.tuples(st.floats(0.1, 9.0), st.floats(0.1, 9.0)), min_size=2, max_size=20))
def test_a_ratio_of_sums_lies_between_those_of_its_pieces(pieces):
    ours, theirs = zip(*pieces, strict=True)
    ratio = bootstrap_totals(ours, theirs)
    each = [b / a for a, b in pieces]
    assert min(each) * 0.999 <= ratio.low <= ratio.high <= max(each) * 1.001
    assert ratio.median == pytest.approx(sum(theirs) / sum(ours))


def test_pairs_are_added_until_decided():
    def burn():
        return sum(range(200_000))

    ratio, ours, theirs = compare(lambda: None, burn, target=2.0, minimum=3, maximum=50)
    assert ratio.pairs == 3
    assert ratio.low > 2.0
    assert theirs > ours


def test_the_peak_counts_what_is_held_at_once():
    def step():
        first = torch.ones(1000)
        second = torch.ones(2000)
        del first
        third = torch.ones(500)
        del second, third

    assert steps.peak_bytes(step) == pytest.approx(4 * 3000, abs=2000)


def test_all_ways_to_compute_the_loss_agree():
    shape = loss_kernel.Shape(name="tiny", hidden=8, vocabulary=300, positions=600)
    found = {name: kernel() for name, kernel in loss_kernel.kernels(shape).items()}
    for gradient in found.values():
        torch.testing.assert_close(gradient, found["all logits"], rtol=1e-6, atol=1e-6)


def test_every_benchmark_runs_and_fills_the_page(tiny_base, tmp_path):
    write("training_step", training_step.run(2, 2, tiny_base, rows=1, tokens=8), tmp_path)
    write("decoding", decoding.run(2, 2, tiny_base, new_tokens=2), tmp_path)
    write("decoding_peft", decoding_peft.run(2, 2, tiny_base, new_tokens=2), tmp_path)
    write(
        "product_step",
        product_step.run(2, 2, tiny_base, (((1, 8), torch.float32), ((2, 4), torch.bfloat16))),
        tmp_path,
    )
    write("matmul_share", matmul_share.run(2, 2, tiny_base, tokens=8, size=16), tmp_path)
    write("prompt_attention", prompt_attention.run(2, 2, lengths=(3,)), tmp_path)
    write("batches", batches.run(2, 2, tiny_base, records=9, longest=24), tmp_path)
    shape = loss_kernel.Shape(name="tiny", hidden=8, vocabulary=16, positions=6)
    write("loss_kernel", loss_kernel.run(2, 2, (shape,)), tmp_path)
    write("checkpointing", checkpointing.run(2, 2, tiny_base, rows=1, tokens=8), tmp_path)
    write("adapters_per_row", adapters_per_row.run(2, 2, tiny_base, new_tokens=3), tmp_path)
    index = IndexConfig(kind="ivf_sq8", lists=8, piece_rows=300)
    found = visual_cache.run(2, 2, tmp_path / "caches", 400, 32, index, queries=20, kinds=["hard"])
    write("visual_cache", found, tmp_path)
    found = visual_cache_kinds.run(2, 2, tmp_path / "kinds", 300, 32, [index], queries=9, kinds=["clustered"])
    write("visual_cache_kinds", found, tmp_path)
    draw(tmp_path / "drawn", 21)
    vision = config_of("test_convnext", tmp_path)
    folder, drawn = tmp_path / "pictures", tmp_path / "drawn"
    found = visual_cache_pictures.run(folder=folder, data=drawn, vision=vision, indexes=["ivf_sq8"])
    write("visual_cache_pictures", found, tmp_path)
    found = read(tmp_path)
    assert {name: len(rows) for name, (_, rows) in found.items()} == {
        "adapters_per_row": 1,
        "batches": 3,
        "checkpointing": 3,
        "decoding": 3,
        "decoding_peft": 2,
        "loss_kernel": len(loss_kernel.kernels(shape)) - 1,
        "matmul_share": 1,
        "product_step": 6,
        "prompt_attention": 2,
        "training_step": 4,
        "visual_cache": 8,
        "visual_cache_kinds": 1,
        "visual_cache_pictures": 2,
    }
    shares = {row.measure: row for row in found["visual_cache"][1]}
    assert shares["hard: recall of 10 neighbours"].value > 0.8
    assert shares["hard: cosine of the blended embedding"].value > 0.99
    assert shares["hard: resident memory of the process that asks: share"].value > 1
    page = render(found)
    assert all(
        name in page for name in ("peft AdaptionPrompt", "the bare base model", "## Decoding", "torch")
    )


def test_a_benchmark_that_lacks_something_says_so_and_lets_the_others_run(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("LLAMA_ADAPTER_LITGPT", raising=False)
    monkeypatch.setattr("benchmarks.__main__.PAGE", tmp_path / "page.md")
    assert main(["litgpt_adapter"]) == 2
    assert "litgpt_adapter was not run" in capsys.readouterr().out
    assert (tmp_path / "page.md").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_synthetic_features_are_the_same_whoever_makes_them(kind):
    rows = SyntheticRows(kind, 10_000, 64)
    blocks = [block.features for block in rows.blocks(0, 3)]
    assert [len(block) for block in blocks] == [4096, 4096, 1808]
    again = SyntheticRows(kind, 10_000, 64)
    assert torch.equal(next(again.blocks(2, 3)).features, blocks[2])
    assert not torch.equal(blocks[0][:100], blocks[1][:100])
    queries, stored = rows.queries(50), torch.nn.functional.normalize(torch.cat(blocks), dim=-1)
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(50))
    assert (queries @ stored.T).max() < 0.999
