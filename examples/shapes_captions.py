"""Captions of drawn shapes: an adapter that learns to see, with every caption checked word for word.

Command:   python examples/shapes_captions.py
Hardware:  2 CPU cores and 4 GB of memory, or any GPU
Time:      17 minutes of training and 3 of captions on two busy cores
Expected:  runs/shapes/results.json, a table of scores before and after, and a sheet of pictures with captions

Thousands of small pictures are drawn, each with five exact captions; the files are COCO's annotation files.
SmolLM2-135M-Instruct and EfficientNet-Lite0 stay frozen; what is trained is the prompts, their gates, and the
conditioner between the two. Scores are those of `evaluate coco-caption`, and how often number, colours,
shapes, sizes and places are all named rightly: on new scenes, and on scenes with pairs of colour and shape
that training has never shown.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0 import DEFAULT_FILE, TIMM_NAME, ensure_weights
from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track
from rich.table import Table
from shapes import Scene, agreement, draw, draw_scenes

from llama_adapter import ZeroInitConfig
from llama_adapter.conditioning import VisualQueriesConfig
from llama_adapter.data import DataConfig, SourceConfig, Turn
from llama_adapter.evaluation.captions.scores import score_captions
from llama_adapter.evaluation.captions.task import INSTRUCTION
from llama_adapter.generation import Generator, SamplingConfig
from llama_adapter.models import BaseModelConfig, load_base, load_tokenizer
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.training import TrainConfig, TrainingConfig, train
from llama_adapter.training.groups import GroupConfig
from llama_adapter.vision import VisionConfig, load_encoder


@dataclass(kw_only=True)
class Study:
    """The settings of the run."""

    base: str = "models/SmolLM2-135M-Instruct"
    """Folder or hub name of the frozen model."""
    weights: Path = DEFAULT_FILE
    """The encoder's weights; made from the installed package where missing."""
    training_scenes: int = 3000
    """Pictures to train on."""
    test_scenes: int = 200
    """Pictures in each of the two tests."""
    most_things: int = 2
    """Shapes in a picture at most, from 1 to 3."""
    epochs: float = 5.0
    """Passes over the training pictures."""
    rows_per_step: int = 16
    """Pictures in one step."""
    learning_rate: float = 1e-3
    """Peak rate of the conditioner."""
    prompt_rate: float = 8e-3
    """Peak rate of the prompts."""
    gate_rate: float = 2e-2
    """Peak rate of the gates: what is seen is felt only where they are open."""
    prompts: int = 10
    """Prompts per layer, and queries that look at the picture."""
    width: int = 192
    """Width of the conditioner's blocks."""
    depth: int = 2
    """Blocks of the conditioner."""
    initial_scale: float = 0.2
    """Scale of what the conditioner adds to the prompts, at the start: near that of the base's embeddings."""
    level: int = -1
    """Stage of the encoder whose places are looked at: 7 x 7 behind the last one, 14 x 14 in stage 3."""
    beams: int = 3
    """Beams of the second way to write captions."""
    seed: int = 0
    """Of first weights and order; the pictures are always the same."""
    output_dir: Path = Path("runs/shapes")
    """Pictures, annotation files, adapter, captions and results."""


@dataclass(frozen=True)
class Test:
    """Pictures that are held out."""

    scenes: Mapping[str, Scene]
    """By the picture's id."""
    pictures: Mapping[str, str]
    """Id -> file."""


def main(study: Study) -> None:
    """Draw, train, write captions before and after, score them and show them."""
    console = Console()
    tests = prepare(study)
    ensure_weights(study.weights)
    said = {"before": {name: blind(test, study) for name, test in tests.items()}}
    train(training_run(study))
    base = BaseModelConfig(name_or_path=study.base, dtype="bfloat16")
    model = ImageConditionedModel.from_pretrained(study.output_dir / "adapter", base, encoder=None)
    for kind, beams in (("greedy", 1), ("beam", study.beams)):
        said[kind] = {name: look(model, test, study, beams) for name, test in tests.items()}
    results = {
        kind: {name: score(captions, tests[name]) for name, captions in per_test.items()}
        for kind, per_test in said.items()
    }
    for kind, per_test in said.items():
        for name, captions in per_test.items():
            rows = [{"image_id": key, "caption": text} for key, text in captions.items()]
            write(study.output_dir / f"{name}.{kind}.json", rows)
    write(study.output_dir / "results.json", results)
    show(results, console)
    for name, test in tests.items():
        draw_sheet(test, said["before"][name], said["greedy"][name], study.output_dir / f"{name}.png")


def prepare(study: Study) -> dict[str, Test]:
    """Draw all pictures and write the files that training and scoring read."""
    most = study.most_things
    training = draw_scenes(study.training_scenes, seed=0, most=most)
    known = set(training)
    new = [scene for scene in draw_scenes(4 * study.test_scenes, seed=1, most=most) if scene not in known]
    files = draw_all(training, "train", study)
    records = [
        {"image": str(file.resolve()), "caption": scene.captions}
        for file, scene in zip(files, training, strict=True)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (study.output_dir / "train.jsonl").write_text(lines, encoding="utf-8")
    unseen = draw_scenes(study.test_scenes, seed=2, unseen=True, most=most)
    tests = {"new": new[: study.test_scenes], "unseen": unseen}
    return {name: make_test(name, scenes, study) for name, scenes in tests.items()}


def make_test(name: str, scenes: Sequence[Scene], study: Study) -> Test:
    """Draw pictures to test on, with a COCO annotation file beside them."""
    files = draw_all(scenes, name, study)
    rows = list(enumerate(zip(files, scenes, strict=True), start=1))
    write(
        study.output_dir / f"{name}.references.json",
        {
            "images": [{"id": key, "file_name": f"{name}/{file.name}"} for key, (file, _) in rows],
            "annotations": [
                {"id": 10 * key + number, "image_id": key, "caption": caption}
                for key, (_, scene) in rows
                for number, caption in enumerate(scene.captions)
            ],
        },
    )
    return Test(
        {str(key): scene for key, (_, scene) in rows}, {str(key): str(file) for key, (file, _) in rows}
    )


def draw_all(scenes: Sequence[Scene], name: str, study: Study) -> list[Path]:
    """Draw pictures into a folder of their own."""
    folder = study.output_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05}.png" for number in range(len(scenes))]
    for number, file in enumerate(track(files, f"drawing {name}")):
        draw(scenes[number], seed=number).save(file)
    return files


def training_run(study: Study) -> TrainConfig:
    """Prompts in all layers; queries that look at all places of the encoder's map."""
    return TrainConfig(
        base=BaseModelConfig(name_or_path=study.base, dtype="bfloat16"),
        adapter=ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=study.prompts, prompt_init_std=0.3),
        vision=encoder(study),
        conditioner=VisualQueriesConfig(
            width=study.width,
            depth=study.depth,
            num_heads=study.width // 32,
            mlp_width=4 * study.width,
            initial_scale=study.initial_scale,
        ),
        data=DataConfig(
            train=[SourceConfig(path=str(study.output_dir / "train.jsonl"))],
            template="plain",
            feature_cache=str(study.output_dir / "features"),
        ),
        groups=[
            GroupConfig(parts=["prompt"], learning_rate=study.prompt_rate),
            GroupConfig(parts=["gate"], learning_rate=study.gate_rate),
            GroupConfig(parts=["conditioner"]),
        ],
        training=TrainingConfig(
            output_dir=str(study.output_dir),
            overwrite_output_dir=True,
            learning_rate=study.learning_rate,
            weight_decay=0.02,
            adam_beta2=0.95,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            num_train_epochs=study.epochs,
            per_device_train_batch_size=study.rows_per_step,
            save_strategy="no",
            logging_steps=20,
            seed=study.seed,
        ),
    )


def encoder(study: Study) -> VisionConfig:
    """The frozen encoder; no place says where it is, but the border of the picture leaks into all of them."""
    return VisionConfig(kind="timm", name_or_path=TIMM_NAME, weights=str(study.weights), levels=[study.level])


def blind(test: Test, study: Study) -> dict[str, str]:
    """What the base model says before training: it sees nothing, so the same of every picture."""
    base = BaseModelConfig(name_or_path=study.base, dtype="bfloat16")
    generator = Generator(load_base(base), load_tokenizer(base))
    (said,) = generator.generate([INSTRUCTION], SamplingConfig(max_new_tokens=40))
    return dict.fromkeys(test.scenes, " ".join(said.split()))


def look(model: ImageConditionedModel, test: Test, study: Study, beams: int) -> dict[str, str]:
    """The model's captions of all pictures."""
    tokenizer = load_tokenizer(BaseModelConfig(name_or_path=study.base))
    generator = Generator(model.language_model, tokenizer, "plain")
    prompt = torch.tensor([generator.encode([Turn("user", INSTRUCTION)])])
    table = load_encoder(encoder(study)).features(list(test.pictures.values()), study.output_dir / "features")
    keys, captions = list(test.pictures), {}
    for start in track(range(0, len(keys), 20), f"captions, {beams} beams"):
        batch = keys[start : start + 20]
        rows = prompt.repeat(len(batch), 1)
        output = model.generate(
            rows,
            features=torch.stack([table[test.pictures[key]] for key in batch]),
            attention_mask=torch.ones_like(rows),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=40,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts = tokenizer.batch_decode(output[:, rows.shape[1] :], skip_special_tokens=True)
        captions |= dict(zip(batch, (" ".join(text.split()) for text in texts), strict=True))
    return captions


def score(captions: Mapping[str, str], test: Test) -> dict[str, float]:
    """Caption scores, and the share of captions that name each attribute rightly."""
    references = {key: scene.captions for key, scene in test.scenes.items()}
    found = score_captions(captions, references, java_scores=False).corpus
    right = [agreement(captions[key], scene) for key, scene in test.scenes.items()]
    return {**found, **{name: sum(one[name] for one in right) / len(right) for name in right[0]}}


def show(results: Mapping[str, Mapping[str, Mapping[str, float]]], console: Console) -> None:
    """Print all scores."""
    columns = [(kind, name) for kind, per_test in results.items() for name in per_test]
    table = Table("score", *(f"{name}: {kind}" for kind, name in columns))
    for measure in results["before"]["new"]:
        table.add_row(measure, *(f"{results[kind][name][measure]:.3f}" for kind, name in columns))
    console.print(table)


def draw_sheet(test: Test, before: Mapping[str, str], after: Mapping[str, str], path: Path) -> None:
    """Pictures with what was said of them before and after training, green where it is right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 4, figsize=(13, 7.4), layout="constrained")
    for axes, (key, scene) in zip(places.flat, test.scenes.items(), strict=False):
        axes.imshow(pyplot.imread(test.pictures[key]))
        axes.set(xticks=[], yticks=[])
        right = agreement(after[key], scene)["all"]
        axes.set_title(shown(after[key]), fontsize=10, color="#1a7f37" if right else "#c62828")
        axes.set_xlabel(
            f"reference: {shown(scene.captions[0])}\nbefore: {shown(before[key], 60)}", fontsize=8
        )
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def shown(text: str, longest: int = 120) -> str:
    """A text in lines that fit a picture, without what a font may lack."""
    plain = "".join(one if one.isascii() and one.isprintable() and one != "$" else "?" for one in text)
    return textwrap.fill(textwrap.shorten(plain, longest), 38)


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(auto_cli(Study, as_positional=False))
