"""Rows with pictures become batches, and the core's loss over labelled positions trains on them."""

import pytest
import torch

from llama_adapter.data.collator import PaddingCollator
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.trainer import Trainer
from sphinx_ft.collator import SphinxCollator
from sphinx_ft.trainable import set_trainable
from tests.sphinx_ft.tiny import picture, tiny_model

IGNORE = -100


@pytest.fixture
def rows(tmp_path):
    """A wide picture, none, two pictures."""
    for name, size in {"wide": (80, 40), "tall": (20, 60), "square": (50, 50)}.items():
        picture(*size).save(tmp_path / f"{name}.png")
    media = [["wide"], [], ["tall", "square"]]
    return [
        {
            "input_ids": [1, 10, 11, 12 + index],
            "labels": [IGNORE, IGNORE, 11, 12 + index],
            "media": [str(tmp_path / f"{name}.png") for name in names],
            "record_id": f"row {index}",
        }
        for index, names in enumerate(media)
    ]


def collator_of(model):
    return SphinxCollator(PaddingCollator(0), model.config, bos_token_id=1)


def test_batches_have_pixels_places_and_the_labels_of_the_text(rows):
    model = tiny_model()
    batch = collator_of(model)(rows)
    lengths = model.config.image_lengths([(80, 40), (20, 60), (50, 50)])
    assert (batch["input_ids"] == model.config.image_token_id).sum(dim=1).tolist() == [
        lengths[0],
        0,
        lengths[1] + lengths[2],
    ]
    assert batch["pixel_values"].shape == (3, 3, 56, 56)
    assert batch["useful_views"].sum(dim=1).tolist() == [3, 3, 5]
    assert (batch["labels"] != IGNORE).sum(dim=1).tolist() == [2, 2, 2]
    assert "media" not in batch
    assert "pixel_values" not in collator_of(model)(rows[1:2])


def test_the_loss_is_that_of_the_rows_alone(rows):
    model = tiny_model()
    collate = collator_of(model)

    def loss(chosen):
        batch = {name: value for name, value in collate(chosen).items() if isinstance(value, torch.Tensor)}
        with torch.no_grad():
            return model(**batch).loss

    alone = torch.stack([loss([row]) for row in rows])
    torch.testing.assert_close(loss(rows), alone.mean())


def test_the_one_trainer_trains_it(rows, tmp_path):
    model = tiny_model()
    set_trainable(model, "all_but_encoders")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    args = TrainingConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=8,
        learning_rate=3e-3,
        per_device_train_batch_size=3,
        logging_steps=1,
    )
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=collator_of(model))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2, losses
    moved = {
        name.split(".")[0]
        for name, weight in model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert moved == {"language_model", "view_tokens"}
