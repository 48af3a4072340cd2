"""The model that lm-evaluation-harness finds under the name `llama-adapter`."""

import json
import os
import subprocess
import sys

import pytest
import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.generation import SamplingConfig
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base, write_notes

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install lm-eval")
harness = pytest.importorskip("llama_adapter.evaluation.lm_harness")
instance = pytest.importorskip("lm_eval.api.instance")
registry = pytest.importorskip("lm_eval.api.registry")

QUESTIONS = ["Which way?", "Which way is it, he asked."]


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    """A folder with an adapter that was trained on Alpaca prompts."""
    folder = tmp_path_factory.mktemp("adapter")
    base = load_base(BaseModelConfig(name_or_path=str(tiny_base)))
    model = attach_adapter(base, ZeroInitConfig(prompt_length=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "zero_init" in name and "gate" in name:
                parameter.fill_(1.0)
    model.save_pretrained(folder)
    write_notes(folder, AdapterNotes(template="alpaca", base=str(tiny_base)))
    return folder


def create(arguments, **additional):
    """As the harness's command line does it."""
    made = registry.get_model("llama-adapter").create_from_arg_string(
        arguments, {"batch_size": 2, "max_batch_size": None, "device": "cpu"} | additional
    )
    assert type(made).__name__ == "LlamaAdapterLM"
    return made


def requests(kind, arguments):
    return [
        instance.Instance(request_type=kind, doc={}, arguments=pair, idx=number)
        for number, pair in enumerate(arguments)
    ]


def test_likelihoods_are_those_of_evaluate(adapter, tiny_base):
    """The adapter names its base; prompts are written in its template."""
    lm = create(f"adapter={adapter}")
    prompts = [lm.apply_chat_template([{"role": "user", "content": text}]) for text in QUESTIONS]
    assert prompts[0].startswith("Below is an instruction")
    found = lm.loglikelihood(requests("loglikelihood", [(prompt, "north") for prompt in prompts]))
    scorer = AnswerScorer(lm.generator)
    expected = scorer.log_likelihoods([([Turn("user", text)], "north") for text in QUESTIONS])
    assert [value for value, _ in found] == pytest.approx(expected, rel=1e-4)
    base = create(f"base={tiny_base},template=alpaca")
    untouched = base.loglikelihood(requests("loglikelihood", [(prompt, "north") for prompt in prompts]))
    assert [value for value, _ in untouched] != pytest.approx(expected, rel=1e-2)


def test_answers_are_those_of_generate(adapter):
    lm = create(f"adapter={adapter},template=plain")
    options = {"until": [], "max_gen_toks": 6, "do_sample": False}
    found = lm.generate_until(requests("generate_until", [(text, options) for text in QUESTIONS]))
    assert found == lm.generator.generate(QUESTIONS, SamplingConfig(max_new_tokens=6))


def test_what_the_harness_asks_about_templates(adapter, tiny_base):
    lm = create(f"adapter={adapter}")
    assert lm.tokenizer_name.endswith("__alpaca")
    assert lm.chat_template() is None
    assert "alpaca" in lm.chat_template(True)
    assert lm.eot_token_id == lm.tokenizer.eos_token_id
    begun = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "The"}]
    asked = lm.apply_chat_template(begun[:1])
    assert lm.apply_chat_template(begun, add_generation_prompt=False) == f"{asked}The"
    with pytest.raises(UserError, match="use template chat for conversations. Use template=plain"):
        lm.apply_chat_template([*begun, begun[0]])
    chat = create(f"base={tiny_base}")
    assert chat.apply_chat_template(begun[:1]) == "<s>[user]Which?[assistant]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pretrained=x", "pretrained came with the model. Use base and adapter instead."),
        ("adapter=./none", "'none' does not exist"),
        ("device=cpu", "Add --base FOLDER"),
    ],
)
def test_wrong_arguments_are_said(arguments, said):
    with pytest.raises(UserError, match=said):
        create(arguments, device=None)


def test_its_command_line_runs_a_task(adapter, save, tmp_path, repository):
    """One that is defined beside a file here, so that nothing is downloaded."""
    rows = [{"q": text, "options": ["north", "south", "west"], "gold": n} for n, text in enumerate(QUESTIONS)]
    data = save("data.jsonl", rows)
    save(
        "tasks/ways.yaml",  # JSON is YAML
        {
            "task": "ways",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": data}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{q}}",
            "doc_to_choice": "{{options}}",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        },
    )
    words = ["--model", "llama-adapter", "--model_args", f"adapter={adapter}", "--tasks", "ways"]
    words += ["--include_path", str(tmp_path / "tasks"), "--device", "cpu", "--batch_size", "2"]
    words += ["--apply_chat_template", "--output_path", str(tmp_path / "out"), "--log_samples"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(repository), *filter(None, sys.path)])}
    environment |= {"HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "llama_adapter.evaluation.lm_harness", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (samples,) = (tmp_path / "out").rglob("samples_ways_*.jsonl")
    scorer = AnswerScorer(create(f"adapter={adapter}").generator)
    for line in map(json.loads, samples.read_text().splitlines()):
        turns = [Turn("user", line["doc"]["q"])]
        expected = scorer.log_likelihoods([(turns, option) for option in line["doc"]["options"]])
        assert [float(value) for (value, _), *_ in line["resps"]] == pytest.approx(expected, rel=1e-4)
