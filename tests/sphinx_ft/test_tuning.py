"""SPHINX from a configuration: training on pixels or kept features, answering, scoring, refusals."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from llama_adapter import cli
from llama_adapter.data import DataConfig, SourceConfig, Turn
from llama_adapter.data.lengths import row_lengths
from llama_adapter.errors import UserError
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.generation.config import SamplingConfig, SessionConfig
from llama_adapter.generation.session import Session
from llama_adapter.media import MediaItem, Mix
from llama_adapter.models import BaseModelConfig
from llama_adapter.multimodal.whole import is_whole
from llama_adapter.planning.config import PlanConfig
from llama_adapter.planning.estimate import estimate
from llama_adapter.training import TrainConfig, TrainingConfig, build_trainer, train
from sphinx_ft import EncoderConfig, SphinxForConditionalGeneration, TokenConfig, ViewConfig
from sphinx_ft.encoders.registry import make_encoder
from sphinx_ft.tuning import SphinxTuning
from tests.sphinx_ft.tiny import CLIP, CONVNEXT, DINOV2, QFORMER, picture, tiny_model
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer
from tests.training.counted_runs import planned, trained

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"wide": (80, 40), "tall": (20, 60), "square": (50, 50)}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Encoders with weights in files of their own."""
    folder = tmp_path_factory.mktemp("encoders")
    made = []
    for one in (QFORMER, CLIP, CONVNEXT):
        fields = {name: value for name, value in vars(one).items() if name != "weights"}
        made.append(EncoderConfig(**fields, weights=encoder_file(one, folder)))
    return made


@pytest.fixture
def records(tmp_path):
    """A wide picture, none, two pictures."""
    for name, size in SIZES.items():
        picture(*size).save(tmp_path / f"{name}.png")
    rows = []
    for number, names in enumerate([["wide"], [], ["tall", "square"], ["square"]]):
        marks = "<image>\n" * len(names)
        turns = [
            {"from": "human", "value": f"{marks}What is {number}?"},
            {"from": "gpt", "value": f"It is {number}."},
        ]
        rows.append({"conversations": turns, "image": [str(tmp_path / f"{name}.png") for name in names]})
    path = tmp_path / "items.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def config(tmp_path, tiny_base, encoders, records):
    """Makes the config of a small run."""

    def make(tuning=None, data=None, **training):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "learning_rate": 3e-3,
            "logging_steps": 1.0,
            "save_strategy": "no",
            "use_cpu": True,
        }
        new = {
            "encoders": encoders,
            "views": ViewConfig(image_size=56, rows=2, columns=2, padding="end"),
            "tokens": TokenConfig(grid=2, skip="shared"),
        }
        return TrainConfig(
            base=BaseModelConfig(name_or_path=str(tiny_base)),
            tuning=tuning or SphinxTuning(**new),
            data=DataConfig(
                train=[SourceConfig(path=str(records), format="llava")],
                template="sphinx",
                cache_dir=str(tmp_path / "cache"),
                **{"feature_cache": str(tmp_path / "features"), **(data or {})},
            ),
            training=TrainingConfig(**{**settings, **training}),
        )

    return make


def encoder_file(one, folder):
    """The random weights of an encoder, in a file of its own."""
    torch.manual_seed(3)
    path = folder / f"{one.name}.safetensors"
    save_file(make_encoder(one).state_dict(), path)
    return str(path)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("places", ["after_bos", "placeholder"])
def test_trained_asked_and_scored(config, encoders, tmp_path, places):
    tuning = SphinxTuning(
        encoders=encoders,
        views=ViewConfig(image_size=56, rows=2, columns=2, padding="end"),
        tokens=TokenConfig(grid=2, skip="shared"),
        image_places=places,
    )
    train(config(tuning))
    found = losses(tmp_path / "run")
    assert found[-1] < found[0], found
    folder = tmp_path / "run" / "model"
    assert is_whole(str(folder))
    session = Session(SessionConfig(base=str(folder)))
    generator = session.generator()
    assert generator.template_name == "sphinx"
    wide, square = (str(tmp_path / f"{name}.png") for name in ("wide", "square"))
    both = Mix((MediaItem("image", wide), MediaItem("image", square)))
    turns, sampling = [Turn("user", "What is 0?")], SamplingConfig(max_new_tokens=4)
    together = generator.answer([turns] * 3, sampling, images=[wide, None, both])
    alone = [generator.answer([turns], sampling, images=[one])[0] for one in (wide, None, both)]
    assert together == alone
    lengths = session.model.config.image_lengths([SIZES["wide"], SIZES["square"]])
    count = generator.encode(turns, both).count(session.model.config.image_token_id)
    assert count == sum(lengths)
    scores = AnswerScorer(generator).log_likelihoods(
        [(turns, "It is 0."), (turns, "It is 7.")], images=[wide, wide]
    )
    prompt = generator.encode(turns, wide)
    ids, labels = AnswerScorer(generator).encode(turns, "It is 0.", wide)
    assert ids[: len(prompt)] == prompt
    assert sum(label != -100 for label in labels) == len(
        " It is 0."
    )  # the template sets answers off with a blank
    assert scores[0] < 0


def test_kept_features_train_as_pixels_do(config, encoders, tmp_path):
    """Stored in float16, so nearly the same."""
    found = []
    for images in ("live", "cached"):
        train(config(data={"images": images}, output_dir=str(tmp_path / images)))
        found.append(losses(tmp_path / images))
    assert found[1] == pytest.approx(found[0], rel=2e-3)


def test_encoders_run_once_for_each_picture(config, tmp_path, monkeypatch):
    seen = []
    original = SphinxForConditionalGeneration.image_tokens

    def watched(self, pixel_values=None, *others, **options):
        seen.append(pixel_values)
        return original(self, pixel_values, *others, **options)

    monkeypatch.setattr(SphinxForConditionalGeneration, "image_tokens", watched)
    train(config())
    assert seen
    assert all(pixels is None for pixels in seen)
    train(config(output_dir=str(tmp_path / "again")))  # finds the features of the first run
    assert len(list((tmp_path / "features").iterdir())) == 2  # the grids' channels, the Q-Former's tokens


@pytest.mark.parametrize("batching", ["tokens", "packed"])
def test_image_tokens_count_in_batches_by_tokens(config, tmp_path, batching):
    made = config(batching=batching, tokens_per_batch=260, checkpointing="none")
    trainer = build_trainer(made)
    lengths = row_lengths(trainer.train_dataset)
    for length, row in zip(lengths, trainer.train_dataset, strict=True):
        assert trainer.data_collator([row])["input_ids"].shape[1] == length
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert found[-1] < found[0]


def test_a_saved_model_goes_on(config, tmp_path):
    train(config())
    folder = tmp_path / "run" / "model"
    made = config(SphinxTuning(trainable="view_tokens"), output_dir=str(tmp_path / "second"))
    made.base = BaseModelConfig(name_or_path=str(folder), dtype="fp32")
    train(made)
    first, second = (
        SphinxForConditionalGeneration.from_pretrained(path)
        for path in (folder, tmp_path / "second" / "model")
    )
    moved = {
        name.split(".")[0]
        for name, value in second.named_parameters()
        if not torch.equal(value, first.state_dict()[name])
    }
    assert moved == {"view_tokens"}
    made.tuning = SphinxTuning(views=ViewConfig())
    with pytest.raises(UserError, match=r"\['views'\] under tuning are those of a new model"):
        build_trainer(made)


def test_from_files_and_the_command_line(config, encoders, tmp_path, tiny_base, records, capsys):
    settings = {
        "base": {"name_or_path": str(tiny_base)},
        "tuning": {
            "class_path": "sphinx_ft.SphinxTuning",
            "init_args": {
                "encoders": [
                    {"kind": "clip", "view_size": 28, "weights": one.weights, "settings": one.settings}
                    for one in encoders
                    if one.kind == "clip"
                ],
                "views": {"image_size": 28},
                "tokens": {"grid": 2},
            },
        },
        "data": {
            "train": [{"path": str(records), "format": "llava"}],
            "template": "sphinx",
            "cache_dir": str(tmp_path / "cache"),
        },
        "training": {"output_dir": str(tmp_path / "run"), "max_steps": 2, "use_cpu": True},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["validate-data", str(path)]) == 0
    assert cli.main(["train", str(path)]) == 0
    capsys.readouterr()
    image = str(tmp_path / "wide.png")
    asked = ["--base", str(tmp_path / "run" / "model"), "--prompt", "What?", "--max_new_tokens", "3"]
    assert cli.main(["generate", *asked, "--image", image, "--image", image]) == 0
    assert cli.main(["generate", *asked, "--audio", str(records)]) == 2
    assert "came to a SPHINX model" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("sphinx*.yaml")), ids=lambda path: path.name)
def test_every_example_runs_in_small(file, tmp_path, tiny_base, encoders, records):
    content = yaml.safe_load(file.read_text())
    tuning = content["tuning"]["init_args"]
    content["base"] = {"name_or_path": str(tiny_base)}
    if "encoders" in tuning:
        small = {one.kind: one for one in (*encoders, DINOV2)}
        files = {one.kind: one.weights or encoder_file(one, tmp_path) for one in small.values()}
        tuning["encoders"] = [
            {**vars(small[one["kind"]]), "weights": files[one["kind"]]} for one in tuning["encoders"]
        ]
        tuning["views"] |= {"image_size": 56}
        tuning["tokens"] = tuning.get("tokens", {}) | {"grid": 2}
    else:
        folder = tmp_path / "sphinx"
        tiny_model().save_pretrained(folder)
        byte_tokenizer(CHAT_TEMPLATE).save_pretrained(folder)
        content["base"] = {"name_or_path": str(folder)}
    sources = [{"path": str(records), "format": "llava", "type": "dialog"}]
    content["data"] |= {"train": sources, "cache_dir": str(tmp_path / "cache")}
    content["training"] |= {"output_dir": str(tmp_path / "run"), "use_cpu": True, "save_strategy": "no"}
    content["training"] |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    del content["training"]["fsdp"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    assert cli.main(["train", str(path)]) == 0
    assert is_whole(str(tmp_path / "run" / "model"))


def test_empty_models_are_those_of_a_run(config, tmp_path):
    made = config()
    with torch.device("meta"):
        empty = made.tuning.empty_model(made.base, made.data)
    trained = {name: weight.shape for name, weight in empty.named_parameters() if weight.requires_grad}
    model = build_trainer(made).model
    assert trained == {n: weight.shape for n, weight in model.named_parameters() if weight.requires_grad}


def test_a_run_is_planned_with_its_images_as_tokens(config):
    made = config()
    trainer = build_trainer(made)
    parts = {"base": made.base, "tuning": made.tuning, "data": made.data, "training": made.training}
    found = estimate(PlanConfig(**parts, gpu="a100-80gb", num_gpus=2))
    assert found.statistics.longest == max(row_lengths(trainer.train_dataset))
    assert not any("int8" in choice.precision for choice in found.choices)
    trained = [weight.numel() for weight in trainer.model.parameters() if weight.requires_grad]
    assert found.trainable == sum(trained)
    images = sum(len(media) for media in trainer.train_dataset["media"])
    assert 0 < found.load.images <= images
    assert found.features_before.images == found.load.images
    assert found.features_before.flops > 0


@pytest.mark.parametrize("images", ["cached", "live"])
@pytest.mark.parametrize("skip", ["never", "shared"])
def test_a_run_takes_the_operations_that_were_planned(config, images, skip, encoders):
    views = ViewConfig(image_size=56, rows=2, columns=2, padding="end")
    tuning = SphinxTuning(encoders=encoders, views=views, tokens=TokenConfig(grid=2, skip=skip))
    settings = {"per_device_train_batch_size": 1, "checkpointing": "none", "max_steps": 8}
    made = config(tuning, {"images": images}, **settings)
    whole = tuning.planned_images(made.base, made.data).tokens

    def sums(batch):
        ids = batch["input_ids"]
        seen = int((ids >= 259).sum()) / whole  # ids beyond the tokenizer's are those of images
        return {
            "padded": ids.numel(),
            "squares": ids.numel() * ids.shape[1],
            "labelled": int((batch["labels"] >= 0).sum()),
            "blind_rows": 0 if seen else 1,
            "seeing_records": 1 if seen else 0,
            "images": seen,
        }

    flops = planned(made).flops
    steps, batches = trained(made, sums)
    assert {batch["images"] > 1 for batch in batches} == {True, False}
    exact = skip == "never" or images == "cached"
    predicted = [flops.of(**batch) for batch in batches]
    assert predicted == pytest.approx(steps, rel=0.005 if exact else 0.1)


def test_what_cannot_be_is_refused(config, encoders, tmp_path, tiny_base):
    with pytest.raises(UserError, match=r"of which \['clip'\] have no weights"):
        build_trainer(config(SphinxTuning(encoders=[CLIP])))
    with pytest.raises(UserError, match=r"needs tuning.encoders, which is \[\]"):
        build_trainer(config(SphinxTuning()))
    dropping = [EncoderConfig(**{**vars(encoders[0]), "dropout": True})]
    with pytest.raises(UserError, match="has dropout=True"):
        build_trainer(config(SphinxTuning(encoders=dropping, views=ViewConfig(image_size=28))))
    folder = tmp_path / "saved"
    tiny_model().save_pretrained(folder)
    byte_tokenizer(CHAT_TEMPLATE).save_pretrained(folder)
    with pytest.raises(UserError, match="sees by itself, and adapters came"):
        Session(SessionConfig(base=str(folder), adapter=["somewhere"]))
