"""lm-evaluation-harness on an adapted model, through its Hugging Face wrapper."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from llama_adapter import ZeroInitConfig

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install lm-eval")
huggingface = pytest.importorskip("lm_eval.models.huggingface")
instance = pytest.importorskip("lm_eval.api.instance")

PAGE = Path(__file__).parents[2] / "docs" / "peft.md"
CONTEXTS = ["The capital of France is", "Water boils at", "Name the colour of the sky. The"]
ANSWERS = [" Paris.", " one hundred degrees.", " sky is blue."]


@pytest.fixture
def adapted(tiny_llama, stir):
    return stir(get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM", preset="v2"))).eval()


def wrap(model, tokenizer, **options):
    return huggingface.HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", **options)


def requests(kind, arguments):
    return [
        instance.Instance(request_type=kind, doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(arguments)
    ]


def score(model, tokenizer, context, answer):
    """Log-likelihood of the answer by the model's plain forward pass."""
    prefix = tokenizer(context, add_special_tokens=False)["input_ids"]
    ids = tokenizer(context + answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logp[i - 1, ids[i]].item() for i in range(len(prefix), len(ids)))


def test_loglikelihood_sees_the_adapter(adapted, tiny_llama, tokenizer):
    lm = wrap(adapted, tokenizer, batch_size=2)
    found = lm.loglikelihood(requests("loglikelihood", list(zip(CONTEXTS, ANSWERS, strict=True))))
    expected = [score(adapted, tokenizer, *pair) for pair in zip(CONTEXTS, ANSWERS, strict=True)]
    assert [value for value, _ in found] == pytest.approx(expected, rel=1e-4)
    base = [score(tiny_llama(), tokenizer, *pair) for pair in zip(CONTEXTS, ANSWERS, strict=True)]
    assert expected != pytest.approx(base, rel=1e-2)


def test_generate_until_sees_the_adapter(adapted, tokenizer):
    lm = wrap(adapted, tokenizer, batch_size=2)
    options = {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}
    found = lm.generate_until(requests("generate_until", [(context, options) for context in CONTEXTS]))
    for context, text in zip(CONTEXTS, found, strict=True):
        inputs = tokenizer(context, return_tensors="pt", add_special_tokens=False)
        tokens = adapted.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=6,
            do_sample=False,
        )
        new = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == new.split("\n\n")[0]


def test_base_and_adapter_by_their_folders(adapted, llama_dir, tokenizer, tmp_path):
    """What its command line does for ``--model_args pretrained=BASE,peft=ADAPTER``."""
    adapted.save_pretrained(tmp_path)
    lm = huggingface.HFLM(pretrained=str(llama_dir), peft=str(tmp_path), device="cpu", batch_size=2)
    found = lm.loglikelihood(requests("loglikelihood", [(CONTEXTS[0], ANSWERS[0])]))
    assert found[0][0] == pytest.approx(score(adapted, tokenizer, CONTEXTS[0], ANSWERS[0]), rel=1e-4)


@pytest.mark.slow  # the harness imports for half a minute
def test_its_command_line_through_a_line_that_imports_the_method(
    adapted, llama_dir, run_python, tmp_path, tokenizer
):
    """As docs/peft.md writes it, with a task that lies in a file here."""
    adapted.save_pretrained(tmp_path / "adapter")
    rows = [{"context": c, "options": ANSWERS, "gold": n} for n, c in enumerate(CONTEXTS)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "endings",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "endings.yaml").write_text(json.dumps(task))  # JSON is YAML
    line = re.search(r'python -c "(import llama_adapter; from lm_eval.*?)"', PAGE.read_text())[1]
    words = ["--model", "hf", "--model_args", f"pretrained={llama_dir},peft={tmp_path / 'adapter'}"]
    words += ["--tasks", "endings", "--include_path", tmp_path / "tasks", "--device", "cpu"]
    run_python("-c", line, *words, "--log_samples", "--output_path", tmp_path / "out")
    (samples,) = (tmp_path / "out").rglob("samples_endings_*.jsonl")
    for row in map(json.loads, samples.read_text().splitlines()):
        expected = [score(adapted, tokenizer, row["doc"]["context"], answer) for answer in ANSWERS]
        assert [float(value) for (value, _), *_ in row["resps"]] == pytest.approx(expected, rel=1e-3)
