import json
import shlex

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from llama_adapter.cli import main
from llama_adapter.demo import base_model
from llama_adapter.demo.base_model import WeightSource
from llama_adapter.demo.pipeline import choose_dtype, gate_magnitudes, write_items
from llama_adapter.demo.run import DemoConfig, demo
from llama_adapter.demo.task import NEW_PHRASING, SEEN_PHRASING, make_task
from llama_adapter.errors import UserError


@pytest.fixture(scope="module")
def ran(tiny_base, tmp_path_factory):
    """A demo on a tiny random model: the folder it wrote and what it printed is not needed twice."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    config = DemoConfig(
        base=str(tiny_base), output_dir=str(folder), steps=4, train_size=16, held_out_size=6, batch_size=2
    )
    assert demo(config) == 0
    return folder


@pytest.fixture(scope="module")
def results(ran):
    return json.loads((ran / "results.json").read_text(encoding="utf-8"))


def test_results_hold_what_was_measured(results):
    assert set(results["parts"]) == {SEEN_PHRASING, NEW_PHRASING}
    assert [part["items"] for part in results["parts"].values()] == [3, 3]
    assert 0 == results["exact_match_before"] <= results["exact_match_after"] <= 1
    assert (results["seed"], results["steps"], results["learning_rate"]) == (0, 4, 0.01)
    # 2 layers with 10 prompts of 32 and 4 gates each
    assert results["trainable_parameters"] == 2 * (10 * 32 + 4)
    assert results["total_parameters"] > results["trainable_parameters"]
    assert [point["step"] for point in results["loss"]] == [1, 2, 3, 4]
    assert results["tokens_per_second"] > 0
    assert results["peak_memory_gib"] > 0
    stages = results["seconds"]
    assert stages["total"] >= sum(seconds for stage, seconds in stages.items() if stage != "total")
    assert len(results["examples"]) == 3
    assert len({json.loads(example["right"])["action"] for example in results["examples"]}) == 3


def test_scores_follow_from_the_answers_in_the_file(results):
    for part, answers in results["held_out_answers"].items():
        right = [answer["after"].strip() == answer["right"] for answer in answers]
        assert results["parts"][part]["exact_match_after"] == sum(right) / len(right)


def test_before_is_the_untouched_base(results, tiny_base):
    from llama_adapter.demo.answers import ANSWER_SETTINGS
    from llama_adapter.generation import Generator
    from llama_adapter.models import BaseModelConfig, load_base, load_tokenizer

    base = BaseModelConfig(name_or_path=str(tiny_base), dtype=results["dtype"])
    generator = Generator(load_base(base), load_tokenizer(base), "chat")
    answers = results["held_out_answers"][NEW_PHRASING]
    assert generator.generate([answer["request"] for answer in answers], ANSWER_SETTINGS) == [
        answer["before"] for answer in answers
    ]


def test_the_saved_adapter_is_the_trained_one(ran, results, tiny_base):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), ran / "adapter")
    assert gate_magnitudes(model) == results["gates"]
    assert all(gate > 0 for heads in results["gates"] for gate in heads)
    assert results["adapter_bytes"] == (ran / "adapter" / "adapter_model.safetensors").stat().st_size


def test_picture_and_items_lie_beside_the_adapter(ran):
    assert (ran / "demo.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (ran / "data" / "train.jsonl").read_text().splitlines()]
    assert len(records) == 16
    assert not list(ran.glob("checkpoint-*"))


def test_printed_generate_commands_run(results, monkeypatch, capfd):
    lines = [line for line in results["commands"] if " generate " in line and "--interactive" not in line]
    once = [words[words.index("generate") :] for words in map(shlex.split, lines)]
    assert len(once) == 2
    for words in once:
        assert main([*words, "--max_new_tokens", "4"]) == 0
    with_adapter, base_alone = once
    assert "--adapter" in with_adapter
    assert "--adapter" not in base_alone


def test_same_seed_same_run_and_an_earlier_demo_is_replaced(ran, results, tiny_base):
    before = (ran / "adapter" / "adapter_model.safetensors").read_bytes()
    config = {name: results[name] for name in DemoConfig.__dataclass_fields__}
    assert demo(DemoConfig(**config)) == 0
    again = json.loads((ran / "results.json").read_text(encoding="utf-8"))
    assert again["loss"] == results["loss"]
    assert again["held_out_answers"] == results["held_out_answers"]
    assert (ran / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_records_are_chats_of_request_and_answer(tmp_path):
    task = make_task(3, 20, 10)
    path = write_items(task, tmp_path / "data")
    assert path == tmp_path / "data" / "train.jsonl"
    for name, items in {"train": task.train, **task.held_out}.items():
        lines = (tmp_path / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        chats = [[message["content"] for message in json.loads(line)["messages"]] for line in lines]
        assert chats == [[item.request, item.answer] for item in items]


def test_another_base_is_never_written(tmp_path):
    config = DemoConfig(base=str(tmp_path / "my-llama"), output_dir=str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"my-llama' does not exist"):
        demo(config)
    assert not (tmp_path / "my-llama").exists()


def test_the_default_base_is_written_where_it_is_missing(tmp_path, tiny_base, monkeypatch):
    source = WeightSource(name_or_path=str(tiny_base), label="package x 1")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: source)
    folder = tmp_path / "models" / "SmolLM2-135M-Instruct"
    config = DemoConfig(
        base=str(folder), output_dir=str(tmp_path / "out"), steps=1, train_size=8, held_out_size=2
    )
    assert demo(config) == 0
    assert (folder / "config.json").is_file()


def test_thread_count_is_the_one_asked_for(tiny_base, tmp_path):
    before = torch.get_num_threads()
    try:
        config = DemoConfig(
            base=str(tiny_base),
            output_dir=str(tmp_path / "out"),
            steps=1,
            train_size=8,
            held_out_size=2,
            threads=before + 1,
        )
        assert demo(config) == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("found", "chosen"), [({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32"), ({}, "float32")]
)
def test_the_precision_follows_the_processor_unless_it_is_given(monkeypatch, found, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert choose_dtype("auto") == chosen
    assert choose_dtype("float32") == "float32"
