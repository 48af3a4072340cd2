"""FLOPs that are planned for a run with images, beside those of the run itself."""

import pytest

from llama_adapter.data import SourceConfig
from tests.training.counted_runs import planned, trained
from tests.training.image_runs import image_config, write_records

SIGHTED = (1, 5, 6, 9)
"""Few of sixteen, so that batches of two hold two images, one or none."""


def sums(batch):
    """What a batch is for the planner's polynomial."""
    records = len(batch["record_id"])
    rows, length = batch["input_ids"].shape
    seen = batch["has_image"] if "has_image" in batch else batch.get("feature_mask")
    images = 0 if seen is None else int(seen.reshape(len(seen), -1).any(1).sum())
    return {
        "padded": rows * length,
        "squares": rows * length**2,
        "labelled": int((batch["labels"] >= 0).sum()),
        "blind_rows": 0 if images else rows,
        "seeing_records": records if images else 0,
        "images": images,
    }


@pytest.mark.parametrize(
    ("kind", "images"),
    [("global_features", "cached"), ("visual_queries", "cached"), ("visual_queries", "live")],
)
def test_a_run_with_images_takes_what_was_planned(kind, images, tmp_path, chat_base_dir):
    path = write_records(tmp_path, 16, sighted=SIGHTED)
    config = image_config(
        tmp_path,
        chat_base_dir,
        kind,
        data={"images": images, "evaluation": [], "train": [SourceConfig(path=str(path))]},
        max_steps=8,
        save_strategy="no",
        checkpointing="none",
    )
    flops = planned(config).flops
    steps, batches = trained(config, sums)
    assert {batch["images"] for batch in batches} >= {0, 1}
    predicted = [flops.of(**batch) for batch in batches]
    assert predicted == pytest.approx(steps, rel=0.02)
    # what is left is the same in every batch, with images or without: one position of the output embedding
    more = [mine - counted for mine, counted in zip(predicted, steps, strict=True)]
    assert more == pytest.approx([more[0]] * len(more), abs=10)
