"""The comparison in small runs from the problems' files to the table, and every figure comes from its run."""

import json

import pytest
import torch
from peft import AdaptionPromptConfig, LoraConfig
from safetensors.torch import load_file

from benchmarks.method_comparison import __main__ as program
from benchmarks.method_comparison.experiment import load_experiment
from benchmarks.method_comparison.measure import Problems, measure
from benchmarks.method_comparison.problems import TEST_FILE, TRAIN_FILE, read_problems
from benchmarks.method_comparison.table import BEGIN, END, markdown
from llama_adapter import ZeroInitConfig

ADAPTERS = {
    "zero_init": ZeroInitConfig(prompt_length=3, prompt_layers=2),
    "adaptionprompt": AdaptionPromptConfig(adapter_len=3, adapter_layers=2),
    "lora": LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    "base": None,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gsm8k")
    for name, first in ((TRAIN_FILE, 0), (TEST_FILE, 100)):
        rows = [
            {"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}.\n#### {2 * n}"}
            for n in range(first, first + 12)
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    folders = {}
    for method, adapter in ADAPTERS.items():
        folder = tmp_path_factory.mktemp("experiments") / method / "tiny"
        folder.mkdir(parents=True)
        settings = {"dtype": "float32", "batch_size": 2, "eval_steps": 1, "max_seq_length": 128}
        if adapter is None:
            settings["max_steps"] = 0
        else:
            adapter.save_pretrained(str(folder))
        settings |= {"generation_kwargs": {"max_new_tokens": 3}, "optimizer_kwargs": {"lr": 0.01}}
        (folder / "training_params.json").write_text(json.dumps(settings))
        folders[method] = folder
    return folders


def run(data, base, folders, results, *more):
    page = results.parent / "page.md"
    page.write_text(f"# Page\n{BEGIN}\nold\n{END}\nafter\n")
    options = {"--data": data, "--base": base, "--results": results, "--page": page, "--threads": 1}
    words = [str(word) for pair in options.items() for word in pair]
    words += ["--steps", "2", "--eval-items", "3", "--answer-items", "2", *more]
    code = program.main([*words, *(str(folder) for folder in folders)])
    return (
        code,
        {path.name: json.loads(path.read_text()) for path in results.glob("*.json")},
        page.read_text(),
    )


def test_from_files_to_the_table(data, tiny_base, experiments, tmp_path):
    code, results, page = run(data, tiny_base, experiments.values(), tmp_path / "results")
    assert code == 0
    assert results.keys() == {f"{method}--tiny.json" for method in ADAPTERS}
    for method in ADAPTERS:
        result = results[f"{method}--tiny.json"]
        assert result.keys() == {"run_info", "train_info", "meta_info"}
        info = result["train_info"]
        *windows, last = info["metrics"]
        assert last["test answer nll items"] == 3
        assert 0 <= last["test accuracy"] <= 1
        if method == "base":
            assert (windows, info["train_time"], info["num_trainable_params"]) == ([], 0, 0)
            continue
        assert [window["step"] for window in windows] == [1, 2]
        assert last["train loss"] == windows[-1]["train loss"]
        assert info["train_time"] == pytest.approx(sum(window["train time"] for window in windows))
        assert info["num_trainable_params"] > 0
        assert info["file_size"] > 4 * info["num_trainable_params"]
        # every method starts from the base model, on the same records
        first = results["lora--tiny.json"]["train_info"]["metrics"][0]["train loss"]
        assert windows[0]["train loss"] == pytest.approx(first, rel=1e-5)
    assert page.startswith("# Page\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert markdown(list(results.values())) in page
    assert all(f"| {method}/tiny |" in page for method in ADAPTERS)


def test_the_same_seed_gives_the_same_result(data, tiny_base, experiments, tmp_path):
    folders = [experiments["zero_init"]]
    _, first, _ = run(data, tiny_base, folders, tmp_path / "first")
    _, second, _ = run(data, tiny_base, folders, tmp_path / "second")
    names = ("train loss", "test answer nll", "test accuracy")
    for one, other in zip(
        *(r["zero_init--tiny.json"]["train_info"]["metrics"] for r in (first, second)), strict=True
    ):
        assert {k: v for k, v in one.items() if k in names} == {k: v for k, v in other.items() if k in names}


def test_training_changes_the_answers_likelihood_and_the_base_stays(data, tiny_base, experiments):
    train = read_problems(data / TRAIN_FILE)
    problems = Problems(train=train, test=train, asked=train[:1])
    weights = load_file(tiny_base / "model.safetensors")

    def nll(method, steps):
        experiment = load_experiment(experiments[method], max_steps=steps, model_id=str(tiny_base))
        return measure(experiment, problems, lambda count: None).metrics[-1]["test answer nll"]

    assert nll("lora", 30) < nll("base", None) - 0.05
    assert all(
        torch.equal(tensor, weights[name])
        for name, tensor in load_file(tiny_base / "model.safetensors").items()
    )


def test_without_data_it_says_so_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLAMA_ADAPTER_SHARED", str(tmp_path))
    assert program.main(["--results", str(tmp_path / "results")]) == 0
    shown = capsys.readouterr().out
    assert "Skipped: there is no" in shown
    assert "LLAMA_ADAPTER_SHARED" in shown
    assert not (tmp_path / "results").exists()


def test_data_that_were_named_must_be_there(tmp_path, capsys):
    assert program.main(["--data", str(tmp_path), "--results", str(tmp_path / "results")]) == 2
    assert TRAIN_FILE in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps", "--eval-items", "--answer-items"])
def test_numbers_below_one_are_refused(option, data, tmp_path, capsys):
    assert program.main([option, "0", "--data", str(data), "--results", str(tmp_path / "results")]) == 2
    assert f"{option} is 0. Use 1 or more." in capsys.readouterr().err


def test_the_page_of_the_documentation_shows_the_stored_results(repository):
    page = (repository / "docs/method-comparison.md").read_text()
    assert markdown(program.read()) in page
