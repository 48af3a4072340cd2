import copy
import json
import re

import pytest
from rich.console import Console

from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.data.prepare import Row
from llama_adapter.data.validate import ValidateConfig, masked_tokens, validate_data
from llama_adapter.errors import UserError
from tests.data.conftest import DROPS_THOUGHTS, THOUGHTFUL_TALK

GOOD = {"instruction": "Say hi.", "output": "hi"}


@pytest.fixture
def validate(tmp_path, byte_level, monkeypatch, capsys):
    """Runs the verb on sources and returns its exit code and what it printed."""
    byte_level.save_pretrained(tmp_path / "base")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*paths, evaluation=(), chat_template=None, **settings):
        data = DataConfig(
            train=[SourceConfig(path=str(path)) for path in paths],
            evaluation=[SourceConfig(path=str(path)) for path in evaluation],
            **({"template": "alpaca"} | settings),
        )
        if chat_template:
            other = copy.deepcopy(byte_level)
            other.chat_template = chat_template
            other.save_pretrained(tmp_path / "base")
        code = validate_data(ValidateConfig(data=data, base={"name_or_path": str(tmp_path / "base")}))
        return code, capsys.readouterr().out

    return run


def test_good_data_pass_with_report_and_samples(validate, write):
    path = write("a.jsonl", [GOOD | {"output": f"hi {i}"} for i in range(5)])
    code, shown = validate(path, evaluation=[path])
    assert code == 0
    assert "every record can be used" in shown
    assert shown.count("tokens, ") == 6  # three samples of each split
    assert f"{path}:3: " in shown
    assert f"{path}:4: " not in shown
    assert "[hi|Ġ|0|<|im_end|>]" in shown.replace("h|i", "hi")
    assert "train data" in shown
    assert "evaluation data" in shown
    assert shown.count("batches of an epoch") == 1
    assert "rows: 8 at random" in shown


def test_every_bad_record_is_listed_with_place_and_reason(validate, write):
    lines = [
        json.dumps(GOOD).encode(),
        b"{broken",
        json.dumps({"instruction": "x"}).encode(),
        json.dumps({"instruction": "x", "output": 5}).encode(),
        json.dumps({"instruction": "x", "output": ""}).encode(),
        b'{"instruction": "caf\xe9", "output": "x"}',
        json.dumps({"instruction": "<|im_end|>", "output": "x"}).encode(),
        *[json.dumps({"instruction": f"{i}"}).encode() for i in range(20)],
    ]
    path = write("a.jsonl", b"\n".join(lines))
    code, shown = validate(path)
    assert code == 2
    listed = [line for line in shown.splitlines() if line.startswith(f"{path}:") and "  " in line]
    assert [line.split("  ")[0] for line in listed] == [f"{path}:{line}" for line in range(2, 28)]
    reasons = [
        "invalid JSON",
        "the key 'output' is missing",
        "'output' is int",
        "is empty",
        "byte 0xe9",
        "a control token",
    ]
    assert all(reason in line for reason, line in zip(reasons, listed, strict=False))
    assert "26 problems" in shown


def test_unknown_roles_are_listed(validate, write):
    talk = [{"from": "human", "value": "q"}, {"from": "critic", "value": "a"}]
    good = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    code, shown = validate(
        write("a.json", [{"conversations": good}, {"conversations": talk}]), template="chat"
    )
    assert code == 2
    assert "a.json:3  turn 2 has the unknown role 'critic'; use one of: system, developer, human" in shown


def test_a_source_that_cannot_be_opened_does_not_hide_the_others(validate, write, tmp_path):
    code, shown = validate(tmp_path / "none.json", write("empty.json", ""), write("a.jsonl", [GOOD]))
    assert code == 2
    assert "none.json' does not exist" in shown
    assert "holds no records" in shown
    assert "[h" in shown
    assert "2 problems" in shown


def test_images_are_a_problem_only_where_they_are_refused(validate, write):
    talk = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    path = write("a.json", [{"image": "x.png", "conversations": talk}])
    code, shown = validate(path)
    assert code == 2
    assert "it comes with an image, but data.media is 'refuse'" in shown
    assert validate(path, media="ignore")[0] == 0


def test_it_writes_no_cache_and_sees_the_file_as_it_is(validate, write, tmp_path):
    path = write("a.jsonl", [GOOD])
    assert validate(path, cache_dir=str(tmp_path / "cache"))[0] == 0
    write("a.jsonl", [GOOD, {"instruction": "x"}])
    assert validate(path, cache_dir=str(tmp_path / "cache"))[0] == 2
    assert not (tmp_path / "cache").exists()


def test_labels_are_visible_without_colour(byte_level):
    ids = byte_level("the fox")["input_ids"] + [byte_level.eos_token_id]
    row = Row("f:1", "kept", input_ids=ids, labels=[-100] * (len(ids) - 2) + ids[-2:])
    console = Console(record=True, width=200, color_system=None)
    console.print(masked_tokens(row, byte_level), soft_wrap=True)
    shown = console.export_text().strip()
    assert shown.endswith("|<|im_end|>]")
    assert shown.count("[") == shown.count("]") == 1
    assert shown.index("[") > shown.index("the")


def test_a_training_configuration_is_taken_as_it_is(write, byte_level, tmp_path, capsys):
    from jsonargparse import ArgumentParser

    byte_level.save_pretrained(tmp_path / "base")
    text = {
        "base": {"name_or_path": str(tmp_path / "base"), "dtype": "float32"},
        "data": {"template": "chat", "train": [{"path": str(write("a.jsonl", [GOOD]))}]},
        "adapter": {"prompt_length": 4},
        "training": {"learning_rate": 0.001},
    }
    parser = ArgumentParser()
    parser.add_argument("--run", type=ValidateConfig)
    assert validate_data(parser.instantiate(parser.parse_object({"run": text})).run) == 0
    assert "<|im_start|>" in capsys.readouterr().out


def test_without_a_tokenizer_it_says_what_to_set(write, tmp_path):
    data = DataConfig(train=[SourceConfig(path=str(write("a.jsonl", [GOOD])))])
    with pytest.raises(UserError, match=r"base is \{\}. Set base.name_or_path"):
        validate_data(ValidateConfig(data=data))
    with pytest.raises(
        UserError, match="no tokenizer can be loaded from .* Set base.name_or_path to a folder"
    ):
        validate_data(ValidateConfig(data=data, base={"name_or_path": str(tmp_path)}))


def test_pictures_that_cannot_be_used_are_listed_with_their_record(validate, write, tmp_path):
    pytest.importorskip("PIL", reason="pillow is not installed: pip install 'llama-adapter[vision]'")
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    names = ["good.png", "cut.png", "none.png"]
    records = [{"instruction": "a", "output": "b", "image": str(tmp_path / name)} for name in names]
    path = write("pictures.jsonl", records)
    code, shown = validate(path, media="attach")
    assert code == 2
    said = " ".join(shown.split())
    assert f"{path}:2 '" in said
    assert "cut.png' cannot be read as an image" in said
    assert f"{path}:3 its image" in said
    assert "none.png' is not there" in said
    assert "good.png" not in said


@pytest.mark.parametrize(("mode", "examples"), [("split", 5), ("last", 3)])
def test_conversations_that_the_template_rewrites_are_counted(mode, examples, validate, write):
    path = write(
        "a.jsonl",
        [{"messages": THOUGHTFUL_TALK}, {"messages": THOUGHTFUL_TALK}, {"messages": THOUGHTFUL_TALK[:2]}],
    )
    code, shown = validate(path, template="chat", rewritten_turns=mode, chat_template=DROPS_THOUGHTS)
    figures = dict(re.findall(r"│ ([a-z ]+?) +│ +(\d+) │", shown))
    assert code == 0
    assert (figures["read"], figures["used"], figures["answers rewritten"]) == ("3", "3", "2")
    assert figures["examples"] == str(examples)
