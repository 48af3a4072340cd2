"""LLaMA2-Accessory's lists of data are read as they are."""

import json
import random

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from llama_adapter.data import DataConfig, Encoder, SourceConfig, build_datasets, load_template
from llama_adapter.data.accessory import expand_sources
from llama_adapter.data.encoding import IGNORE, answer_labels
from llama_adapter.data.formats import read_accessory
from llama_adapter.errors import UserError
from tests.sphinx_ft.golden_cases import GOLDEN

DIALOG = [
    {
        "image": f"{n}.jpg",
        "conversations": [{"from": "human", "value": " <image>\nHow many? "}, {"from": "gpt", "value": n}],
    }
    for n in range(10)
]
SINGLE = [{"instruction": "Say it " + "x" * n, "output": "yes"} for n in range(4)]


@pytest.fixture
def listed(write, tmp_path):
    dialogs, single = write("dialogs.json", DIALOG), write("single.jsonl", SINGLE)
    captions = write("captions.csv", "url\tcaption\na.jpg\ta cat, asleep\n")
    return write(
        "meta.yaml",
        f"""META:
  - path: {dialogs}
    type: image_text
    root: pictures/
    ratio: 0.5
  - path: {single}
    type: text
  - path: {captions}
    type: image_text
    preprocess: caption
""",
    )


def test_a_list_is_a_source_like_any_other(listed, byte_level, tmp_path):
    config = DataConfig(
        train=[SourceConfig(path=str(listed))],
        template="sphinx",
        media="keep",
        max_length=400,
        cache_dir=str(tmp_path / "cache"),
    )
    rows = build_datasets(config, byte_level).train
    chosen = random.Random(0).sample(range(10), 5)
    assert [row["media"] for row in rows][:5] == [[f"pictures/{n}.jpg"] for n in chosen]
    assert rows["type"] == ["image_text"] * 5 + ["text"] * 4 + ["image_text"]
    learned = [byte_level.decode([label for label in row["labels"] if label != -100]) for row in rows]
    assert learned[0] == f" {chosen[0]}\n###"
    assert learned[-1] == " a cat, asleep\n###"  # a csv file is separated by tabs
    assert rows["characters"][5] == len(SINGLE[0]["instruction"] + SINGLE[0]["output"])


def test_settings_of_the_list_go_to_its_files(listed):
    (first, *_) = expand_sources([SourceConfig(path=str(listed), rows=":3", media_name="{id}.jpg")])
    assert (first.rows, first.media_name, first.type) == (":3", "{id}.jpg", "image_text")


@pytest.mark.parametrize("number", range(3))
def test_single_turns_are_those_of_the_released_code(number, tmp_path):
    """Prompt, tokens and labels, the end token included; shortest first there."""
    tensors = load_file(GOLDEN / "sphinx_dialog_sampler_lr.safetensors")
    facts = json.loads((GOLDEN / "sphinx_dialog_sampler_lr.json").read_text())["facts"]["alpaca"][number]
    (tmp_path / "tokenizer.model").write_bytes(tensors["in/spm_model_bytes"].numpy().tobytes())
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    template, turns = load_template("alpaca", tokenizer), read_accessory(facts["item"], "x").turns
    assert template.render_prompt(turns[:-1]) == facts["prompt"]
    rendered = template.render(turns)
    (found,) = Encoder(tokenizer).encode([rendered], template.add_special_tokens)
    labels = [0 if label == IGNORE else label for label in answer_labels(found, rendered.answers)]
    rest = [0] * (200 - len(labels))
    assert found.ids + rest == tensors[f"out/alpaca{number}.input_ids"].tolist()
    assert labels + rest == tensors[f"out/alpaca{number}.labels"].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("META: []", "has no list META"),
        ("other: 1", "has no list META"),
        ("META: [3]", "entry 1 .* is 3"),
        ("META: [{path: a.json, colour: red}]", r"has \['colour'\]"),
        ("META: [{path: a.json, preprocess: x}]", "preprocess 'x'"),
        ("META: [{path: a.json, prompt_type: qg}]", "prompt_type 'qg'"),
        ("META: [", "cannot be read"),
    ],
)
def test_what_is_no_list_is_named(write, text, message):
    with pytest.raises(UserError, match=message):
        expand_sources([SourceConfig(path=str(write("meta.yml", text)))])


def test_a_weight_cannot_be_divided(listed):
    with pytest.raises(UserError, match="lists 3 files"):
        expand_sources([SourceConfig(path=str(listed), weight=1.0)])
