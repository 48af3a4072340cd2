"""Runs with images, whole: from pictures and records to a model that sees the same in another object."""

import json
from dataclasses import replace

import pytest
import torch

from llama_adapter import ZeroInitConfig, arguments
from llama_adapter.conditioning import VisualQueriesConfig, load_conditioner
from llama_adapter.data import SourceConfig
from llama_adapter.errors import UserError
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.training import TrainConfig, build_trainer, train
from llama_adapter.training import checkpoint as files
from tests.training.image_runs import CONDITIONERS, image_config


@pytest.fixture
def config(tmp_path, chat_base_dir):
    def make(kind="visual_queries", **settings):
        return image_config(tmp_path, chat_base_dir, kind, **settings)

    return make


def losses_of(trainer):
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def trained(trainer):
    return {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


def loss_of_each_record(trainer, rows):
    """Summed losses of records, one at a time and padded, with gradients summed up."""
    return [float(trainer.compute_loss(trainer.model, trainer.data_collator([row])).detach()) for row in rows]


@pytest.mark.parametrize("kind", sorted(CONDITIONERS))
def test_a_run_leaves_a_model_that_sees_the_same_elsewhere(config, kind, tmp_path, capsys):
    settings = config(kind, eval_on_start=True)
    assert train(settings) == 0
    folder = tmp_path / "run" / "adapter"
    assert files.defect(folder) is None
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    evaluations = [record["eval_loss"] for record in log if "eval_loss" in record]
    assert evaluations[0] != evaluations[-1]
    model = ImageConditionedModel.from_pretrained(folder, settings.base)
    assert model.encoder is not None
    again = build_trainer(config(kind, data={"images": "live"}, output_dir=str(tmp_path / "again")))
    again.model = model
    assert again.evaluate()["eval_loss"] == pytest.approx(evaluations[-1], rel=2e-4)  # features are in fp16
    printed = " ".join(capsys.readouterr().out.split())
    assert "trainable parts" in printed
    assert "conditioner" in printed
    assert "--image FILE --prompt" in printed
    assert "ImageConditionedModel.from_pretrained" in (folder / "README.md").read_text()


def test_settings_of_images_are_written_down(config, tmp_path):
    train(config(max_steps=1, save_strategy="no"))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["vision"]["kind"] == "transformers"
    assert run["conditioner"]["depth"] == 1
    assert run["data"]["media"] == "attach"


def test_features_are_computed_once(config, monkeypatch):
    from llama_adapter.vision import VisionEncoder

    first = build_trainer(config())
    assert first.unwrapped.encoder is None
    monkeypatch.setattr(VisionEncoder, "encode", lambda *_: pytest.fail("computed again"))
    build_trainer(config())


def test_sizes_that_were_left_out_come_from_the_parts(config):
    conditioner = build_trainer(config()).unwrapped.conditioner
    assert conditioner.config == VisualQueriesConfig(
        hidden_size=16, feature_width=12, num_queries=3, width=8, depth=1, num_heads=2, mlp_width=16
    )


def test_placeholders_are_not_in_the_text(config):
    rows = build_trainer(config()).train_dataset
    assert [bool(row["media"]) for row in rows] == [False, True, True] * 3
    lengths = {bool(row["media"]): len(row["input_ids"]) - sum(x >= 0 for x in row["labels"]) for row in rows}
    assert lengths[True] == lengths[False]


@pytest.mark.parametrize("images", ["cached", "live"])
def test_a_batch_is_its_records_alone(config, images):
    made = build_trainer(config(data={"images": images}))
    made.model.eval()
    rows = [made.train_dataset[index] for index in range(6)]
    sums = []
    with torch.no_grad():
        for collate, parts in [
            (made.data_collator, [[row] for row in rows]),
            (made.data_collator, [rows]),
            (made.packing_collator, [rows]),
        ]:
            losses = [made.token_losses(made.model, collate(part))[1] for part in parts]
            sums.append(sorted(torch.cat(losses).tolist()))
    assert sums[1] == pytest.approx(sums[0], rel=1e-6)
    assert sums[2] == pytest.approx(sums[0], rel=1e-6)
    with torch.no_grad():
        blind = made.token_losses(made.model, made.data_collator([row | {"media": []} for row in rows]))[1]
    assert sorted(blind.tolist()) != pytest.approx(sums[0], rel=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"batching": "tokens", "tokens_per_batch": 700},
        {"batching": "packed", "tokens_per_batch": 700},
        {"checkpointing": "layer"},
        {"activation_checkpointing": True},
        {"label_smoothing_factor": 0.1},
        {"bf16": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_way_to_run_it(config, settings, tmp_path):
    made = build_trainer(config(save_strategy="no", **settings))
    before = {name: value.clone() for name, value in trained(made).items()}
    made.train()
    assert all(torch.isfinite(torch.tensor(losses_of(made))))
    moved = {name.split(".")[0] for name, value in trained(made).items() if not value.equal(before[name])}
    assert moved == {"language_model", "conditioner"}


def test_checkpointing_changes_nothing(config):
    results = []
    for policy in ("none", "layer"):
        made = build_trainer(config(save_strategy="no", checkpointing=policy))
        made.train()
        results.append((losses_of(made), trained(made)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][name]) for name, value in results[0][1].items())


def test_resumed_equals_never_stopped_to_the_last_bit(config, tmp_path):
    straight = build_trainer(config())
    straight.train()
    resumed = build_trainer(config())
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert losses_of(resumed) == losses_of(straight)
    want = trained(straight)
    assert all(torch.equal(value, want[name]) for name, value in trained(resumed).items())


def test_checkpoints_hold_both_parts_and_no_others(config, tmp_path):
    build_trainer(config()).train()
    folder = tmp_path / "run" / "checkpoint-4"
    assert files.defect(folder) is None
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "conditioner.safetensors", "config.json"} <= names
    assert "model.safetensors" not in names


def test_the_best_model_has_its_own_conditioner(config, tmp_path):
    steps = {"eval_strategy": "steps", "eval_steps": 1.0, "save_steps": 1.0}
    made = build_trainer(config(load_best_model_at_end=True, learning_rate=0.3, **steps))
    made.train()
    best = made.state.best_model_checkpoint
    assert made.evaluate()["eval_loss"] == pytest.approx(made.state.best_metric, rel=1e-6)
    saved = load_conditioner(best).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in made.parts.conditioner.state_dict().items())


def test_another_conditioner_in_the_checkpoint_is_named(config, tmp_path):
    build_trainer(config()).train()
    other = replace(config(), conditioner=VisualQueriesConfig(width=8, depth=2, num_heads=2, mlp_width=16))
    with pytest.raises(UserError, match="another conditioner .depth: 1 there, 2 here.. Use the settings"):
        build_trainer(other).train(resume_from_checkpoint=True)


def test_a_loss_that_is_not_finite_names_its_records(config):
    made = build_trainer(config())
    with torch.no_grad():
        made.unwrapped.conditioner.visual_proj_norm.bias.fill_(float("nan"))
    with pytest.raises(UserError, match=r"The loss became nan in step 1 on 1 of 2 records: .*items.json:\d"):
        made.compute_loss(made.model, made.data_collator([made.train_dataset[0], made.train_dataset[1]]))


# What is refused


def refused(config, message, **changes):
    with pytest.raises(UserError, match=message):
        replace(config(), **changes)


def test_parts_that_need_others(config):
    refused(config, "belong together. Use both", vision=None)
    refused(config, "belong together. Use both", conditioner=None)
    refused(
        config,
        "the adapter has none. Set adapter.prompt_length",
        adapter=ZeroInitConfig(prompt_length=0, deltas=["bias"]),
    )
    data = replace(config().data, media="ignore")
    refused(config, "media='ignore' leaves out the images", data=data)


def test_a_size_that_does_not_fit_is_named(config):
    wrong = replace(config(), conditioner=VisualQueriesConfig(num_queries=4, width=8, num_heads=2))
    with pytest.raises(
        UserError, match="num_queries of the conditioner is 4, but .* 3 prompts. Leave it out"
    ):
        build_trainer(wrong)


def test_missing_images_stop_the_run_or_are_left_out(config, tmp_path):
    made = config()
    (tmp_path / "pictures" / "1.png").unlink()
    with pytest.raises(UserError, match=r"items.json:1: its image .*1.png' is not there"):
        build_trainer(made)
    assert len(build_trainer(config(data={"bad_records": "skip"})).train_dataset) == 8


def test_streamed_records_need_live_images(config, tmp_path):
    streamed = [SourceConfig(path=str(tmp_path / "items.json"), streaming=True)]
    data = {"train": streamed, "evaluation": []}
    with pytest.raises(UserError, match="are streamed. Set data.images=live"):
        build_trainer(config(data=data))
    made = build_trainer(config(data=data | {"images": "live"}, max_steps=2, save_strategy="no"))
    made.train()
    assert len(losses_of(made)) == 2


# The command line


def test_a_config_file_names_encoder_and_conditioner(tmp_path, capsys):
    text = """
base: {name_or_path: some/base}
adapter: {prompt_length: 4}
vision: {kind: transformers, name_or_path: some/clip, projection: true}
conditioner: {kind: visual_queries, depth: 2}
data: {train: [{path: items.json, media_folder: pictures}]}
training: {use_cpu: true}
"""
    (tmp_path / "run.yaml").write_text(text)
    file = str(tmp_path / "run.yaml")
    parsed = arguments.parse(TrainConfig, [file], "train")
    assert parsed.vision.projection
    assert parsed.conditioner == VisualQueriesConfig(depth=2)
    assert parsed.data.media == "attach"
    parsed = arguments.parse(TrainConfig, [file, "--vision.levels", "[0, 1]"], "train")
    assert parsed.vision.levels == [0, 1]
    other = file.replace("run", "other")
    (tmp_path / "other.yaml").write_text(text.replace("visual_queries, depth: 2", "global_features"))
    assert arguments.parse(TrainConfig, [other], "train").conditioner.kind == "global_features"
    with pytest.raises(UserError, match="depht"):
        arguments.parse(TrainConfig, [file, "--conditioner.depht", "3"], "train")
