"""The presets of the 7B models that see, for two steps each on a model of 7B's shape with fewer layers.

Command:   python examples/reduced_7b.py
           python examples/reduced_7b.py --presets '[v2_joint_7b]' --dtype float32
Hardware:  2 CPU cores and 8 GB of memory
Time:      see docs/reproduction.md; most of it is the image encoder's and the model's first pass
Expected:  runs/reduced-7b/results.json and a table: the losses, memory, what was saved

Every preset is given to `llama-adapter train` as a user would, in a folder that holds data where the preset
looks for them: drawn pictures with captions, questions and instructions in the official layouts. What differs
is said by the options that are printed: the base and the image encoder have the published sizes and random
weights, the base has two layers, and epochs are short.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from shapes import Scene, draw, draw_scenes
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llama_adapter.errors import UserError

EXAMPLES = Path(__file__).parent.resolve()
PRESETS = (
    "v1_scienceqa_7b",
    "v1_coco_caption_7b",
    "v2_stage1_7b",
    "v2_stage2_7b",
    "v2_joint_7b",
    "v21_7b",
)
"""In this order, since the second stages start from the first one's adapter."""
PICTURES = 6

_SMALLER = {
    "v1_scienceqa_7b": ["--adapter.prompt_layers=2"],
    "v1_coco_caption_7b": ["--adapter.prompt_layers=2"],
    "v2_stage1_7b": ["--training.gradient_accumulation_steps=3", "--training.epoch_parts=5"],
    "v2_joint_7b": [
        "--adapter.prompt_layers=[0,1]",
        "--conditioner.early_layers=1",
        '--groups=[{"parts":["prompt[0:1]","gate[0:1]","conditioner"],"records":"images"},'
        '{"parts":["prompt[1:]","gate[1:]","norm","bias","output_scale"],"records":"text"}]',
    ],
}
"""What a model of two layers lacks, and what a few records are too few for."""


@dataclass(kw_only=True)
class Reduced:
    """The runs and the model."""

    presets: list[str] = field(default_factory=lambda: list(PRESETS))
    """Names of files in examples/, without their ending."""
    tokenizer: str = "models/SmolLM2-135M-Instruct"
    """Folder or hub name of the tokenizer; its vocabulary is the model's."""
    layers: int = 2
    """Layers of the base; 7B has 32."""
    hidden_size: int = 4096
    """Width of the base, 4096 as 7B has it; the heads have width 128."""
    encoder: str | None = None
    """open_clip's name of another image encoder, to try things out; by default the preset's ViT-L/14."""
    dtype: str = "bfloat16"
    """Precision of the base; float32 is faster on processors that do not multiply in bfloat16."""
    output_dir: Path = Path("runs/reduced-7b")
    """Model, data and runs."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.presets if name not in PRESETS]:
            raise UserError(f"presets names {unknown[0]!r}. Use some of {list(PRESETS)}.")


def main(reduced: Reduced) -> None:
    """Make what is missing, run the presets, show what came out."""
    console = Console()
    folder = reduced.output_dir.resolve()
    base = make_base(reduced, folder / "base")
    write_data(folder / "data")
    found = {}
    for name in reduced.presets:
        console.rule(name)
        found[name] = run(command(name, reduced, base), folder, folder / "runs" / run_folder(name), console)
        (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, console)


def make_base(reduced: Reduced, folder: Path) -> Path:
    """A LLaMA-7B with fewer layers and random weights, once per set of sizes."""
    tokenizer = AutoTokenizer.from_pretrained(reduced.tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=reduced.hidden_size,
        intermediate_size=reduced.hidden_size * 11008 // 4096,
        num_hidden_layers=reduced.layers,
        num_attention_heads=max(1, reduced.hidden_size // 128),
        num_key_value_heads=max(1, reduced.hidden_size // 128),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    settings = folder / "config.json"
    if not settings.is_file() or json.loads(settings.read_text())["hidden_size"] != config.hidden_size:
        torch.manual_seed(0)
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        model = model.to_empty(device="cpu").to(torch.bfloat16)
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
        for name, weight in model.named_parameters():
            torch.nn.init.ones_(weight) if "norm" in name else torch.nn.init.normal_(weight, std=0.02)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def write_data(folder: Path) -> None:
    """Pictures and records in the layouts, and at the places, that the presets name."""
    scenes = draw_scenes(PICTURES, seed=0, most=2)
    coco, instructions, questions, answers, captions, problems = [], [], [], [], [], {}
    for number, scene in enumerate(scenes):
        name, said = f"COCO_train2014_{number:012d}.jpg", list(scene.captions)
        for place in ("coco/train2014", f"scienceqa/images/train/{number}", f"scienceqa/images/val/{number}"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            picture = name if place.startswith("coco") else "image.png"
            draw(scene, number).save(folder / place / picture)
        captions.append(
            {
                "filename": name,
                "filepath": "train2014",
                "split": "train",
                "sentences": [{"raw": x} for x in said],
            }
        )
        coco.append({"image": name, "conversations": _asked(said[0])})
        known = {"question_id": 10 + number, "image_id": number}
        questions.append({"question": "How many shapes?", **known})
        answers.append({"answers": [{"answer": _word(len(scene.things)), "answer_id": 1}], **known})
        instructions.append(
            {"instruction": f"Write {number} in words.", "input": "", "output": _word(number)}
        )
        problems[str(number)] = _problem(scene, "val" if number % 3 == 2 else "train")
    _write(folder / "dataset_coco.json", {"images": captions})
    _write(folder / "llava_instruct_150k_single_turn.json", coco)
    _write(folder / "v2_OpenEnded_mscoco_train2014_questions.json", {"questions": questions})
    _write(folder / "v2_mscoco_train2014_annotations.json", {"annotations": answers})
    _write(folder / "alpaca_gpt4_data.json", instructions)
    _write(folder / "scienceqa/problems.json", problems)


def command(name: str, reduced: Reduced, base: Path) -> list[str]:
    """How a user would start two steps of a preset."""
    encoder = [f"--vision.name_or_path={reduced.encoder}"] if reduced.encoder else []
    if reduced.encoder and name.startswith("v1"):
        encoder.append("--vision.levels=[0,-1]")
    return [
        sys.executable,
        *("-m", "llama_adapter", "train", str(EXAMPLES / f"{name}.yaml")),
        f"--base.name_or_path={base}",
        f"--base.dtype={reduced.dtype}",
        "--vision.weights=null",
        *encoder,
        *_SMALLER.get(name, []),
        "--data.max_length=512",  # another tokenizer may cut the captions' prompts into more than 96 tokens
        "--training.num_train_epochs=2",
        "--training.per_device_train_batch_size=2",
        "--training.warmup_epochs=1",
        "--training.logging_steps=1",
        "--training.use_cpu=true",
        f"--training.bf16={str(reduced.dtype == 'bfloat16').lower()}",
        "--training.overwrite_output_dir=true",
    ]


def run(words: list[str], folder: Path, output: Path, console: Console) -> dict[str, Any]:
    """Run a command in a folder, and read what the run wrote down.

    Raises:
        UserError: it failed.
    """
    console.print(" ".join(["llama-adapter", *words[3:]]), markup=False, soft_wrap=True)
    paths = [str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        words, cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, check=False
    )
    if done.returncode:
        raise UserError(f"The run ended with {done.returncode}. What it printed stands above.")
    log = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "losses": [record["loss"] for record in log if "loss" in record],
        "peak_memory_gib": max(record.get("peak_memory_gib", 0.0) for record in log),
        "adapter_bytes": sum(file.stat().st_size for file in (output / "adapter").glob("*.safetensors")),
    }


def run_folder(name: str) -> str:
    """The last part of a preset's output folder."""
    return name.replace("_", "-")


def show(found: dict[str, dict[str, Any]], console: Console) -> None:
    """A row per preset."""
    table = Table("preset", "losses", "peak memory, GiB", "saved, MB")
    for name, row in found.items():
        losses = ", ".join(f"{loss:.3f}" for loss in row["losses"])
        table.add_row(name, losses, f"{row['peak_memory_gib']:.1f}", f"{row['adapter_bytes'] / 1e6:.1f}")
    console.print(table)


def _asked(answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": "<image>\nWhat is drawn?"}, {"from": "gpt", "value": answer}]


def _problem(scene: Scene, split: str) -> dict[str, Any]:
    """A question in the layout of the official problems.json."""
    return {
        "question": "How many shapes are in the picture?",
        "choices": ["one", "two"],
        "answer": len(scene.things) - 1,
        "hint": "",
        "image": "image.png",
        "task": "closed choice",
        "grade": "grade1",
        "subject": "natural science",
        "topic": "geometry",
        "category": "shapes",
        "skill": "count shapes",
        "lecture": "",
        "solution": "",
        "split": split,
    }


def _word(number: int) -> str:
    return ("zero", "one", "two", "three", "four", "five", "six")[number]


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(auto_cli(Reduced, as_positional=False))
