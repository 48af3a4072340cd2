"""Checks that need a process of their own: one child process answers them for all models at once.

``python -m tests.adapters.matrix.processes TASK FOLDER`` is the child; it writes
``FOLDER/answers.json``. torch.compile is among them because the type checks of the test run, which wrap every
function of the package, cannot be traced.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from transformers import Llama4ForCausalLM, Llama4TextConfig, Llama4VisionConfig, Llama4VisionModel

from tests.adapters.matrix.tiny_models import TINY_MODELS, TinyModel, output

REPOSITORY = Path(__file__).resolve().parents[3]
KNOWN_WARNING = "`is_gradient_checkpointing` is deprecated"  # transformers, of peft's call


_MODELS = list(TINY_MODELS)
_HALVES = {
    "compile-first-half": _MODELS[: len(_MODELS) // 2],
    "compile-second-half": _MODELS[len(_MODELS) // 2 :],
}
_shared: list[Path] = []


def share(folder: Path) -> None:
    """Name the folder that all workers of the test run have in common."""
    _shared.append(folder)


def reloads_in_a_fresh_process(subject: TinyModel) -> None:
    assert _answer("reload", subject.model_type) == "equal"


def compiled_training_never_recompiles(subject: TinyModel) -> None:
    """Two children take half of the models each, since tracing takes seconds per model."""
    half = next(name for name, models in _HALVES.items() if subject.model_type in models)
    assert _answer(half, subject.model_type) == "passed"


def inductor_training_never_recompiles(subject: TinyModel) -> None:
    assert _answer("inductor", subject.model_type) == "passed"


def bystanders_stay_untouched(subject: TinyModel) -> None:
    """An unadapted model of this type: same bits before the import, and after every type was adapted."""
    for implementation in subject.implementations:
        assert _answer("untouched", f"{subject.model_type} {implementation}") == "equal"


def bystander_answers() -> dict[str, str]:
    """Answers for models without a column: files with several eager functions."""
    return {name: answer for name, answer in _answers("untouched").items() if name.startswith("llama4")}


def _answer(task: str, name: str) -> str:
    answers = _answers(task)
    return answers.get("failure") or answers[name]


@functools.cache
def _answers(task: str) -> dict[str, str]:
    """Answers of one child, which the test run starts once however many workers ask."""
    folder = _shared[-1] / f"support-matrix-{task}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            _run(task, folder)
    return json.loads((folder / "answers.json").read_text())


def _run(task: str, folder: Path) -> None:
    if task == "reload":
        _save_all(folder)
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.adapters.matrix.processes", task, str(folder)],
        env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        (folder / "answers.json").write_text(json.dumps({"failure": done.stderr[-3000:]}))


@torch.no_grad()
def _save_all(folder: Path) -> None:
    subjects = importlib.import_module("tests.adapters.matrix.subjects")
    for name, subject in subjects.SUBJECTS.items():
        subject.base().save_pretrained(folder / name / "base")
        model = subject.adapt(subject.everything())
        model.save_pretrained(folder / name / "adapter")
        torch.save(output(model, subject.inputs()), folder / name / "wanted.pt")


@torch.no_grad()
def _reload(folder: Path) -> dict[str, str]:
    """The saved adapters on the saved bases, in a process that has seen neither."""
    peft = importlib.import_module("peft")
    importlib.import_module("llama_adapter")
    answers = {}
    for name, tiny in TINY_MODELS.items():
        base = tiny.auto().from_pretrained(
            folder / name / "base", attn_implementation=tiny.implementations[-1]
        )
        model = peft.PeftModel.from_pretrained(base, folder / name / "adapter").eval()
        wanted = torch.load(folder / name / "wanted.pt", weights_only=True)
        # loaded weights lie at other addresses, where a kernel may sum in another order
        answers[name] = _compare(output(model, tiny.inputs()), wanted, tolerance=2e-6)
    return answers


def _compile(backend: str, names: list[str]) -> dict[str, str]:
    """Compiled training of the models: what went wrong, or "passed"."""
    execution = importlib.import_module("tests.adapters.matrix.execution")
    subjects = importlib.import_module("tests.adapters.matrix.subjects").SUBJECTS
    answers = {}
    for name in names:
        try:
            execution.train_compiled(subjects[name], backend)
            answers[name] = "passed"
        except Exception:
            answers[name] = traceback.format_exc()[-3000:]
    return answers


@torch.no_grad()
def _untouched() -> dict[str, str]:
    """Outputs of unadapted models before the package's import, after LLaMA and after all were adapted."""
    before = _bystander_outputs()
    assert "llama_adapter" not in sys.modules
    subjects = importlib.import_module("tests.adapters.matrix.subjects").SUBJECTS
    _adapt(subjects, ["llama"])
    after_llama = _bystander_outputs()
    _adapt(subjects, list(subjects))
    after_all = _bystander_outputs()
    return {
        name: _compare(torch.stack([after_llama[name], after_all[name]]), torch.stack([wanted, wanted]))
        for name, wanted in before.items()
    }


def _adapt(subjects: dict[str, Any], names: list[str]) -> None:
    for name in names:
        for implementation in subjects[name].implementations:
            adapted = subjects[name].adapt(subjects[name].everything(), implementation)
            output(adapted, subjects[name].inputs())


def _bystander_outputs() -> dict[str, Tensor]:
    """Fresh unadapted models of every type, on every implementation."""
    outputs = {
        f"{name} {implementation}": output(tiny.base(implementation), tiny.inputs())
        for name, tiny in TINY_MODELS.items()
        for implementation in tiny.implementations
    }
    for implementation in ("eager", "sdpa"):
        ids = TINY_MODELS["llama"].inputs()["input_ids"]
        outputs[f"llama4 text {implementation}"] = _llama4_text(implementation)(ids).logits
        pixels = TINY_MODELS["vit"].inputs()["pixel_values"]
        outputs[f"llama4 vision {implementation}"] = _llama4_vision(implementation)(pixels).last_hidden_state
    return outputs


def _llama4_text(implementation: str) -> nn.Module:
    torch.manual_seed(0)
    config = Llama4TextConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        intermediate_size_mlp=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=2,
        pad_token_id=0,
        attn_implementation=implementation,
    )
    return Llama4ForCausalLM(config).eval()


def _llama4_vision(implementation: str) -> nn.Module:
    torch.manual_seed(0)
    config = Llama4VisionConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=4,
        vision_output_dim=16,
        projector_input_dim=16,
        projector_output_dim=16,
        attn_implementation=implementation,
    )
    return Llama4VisionModel(config).eval()


def _compare(got: Tensor, wanted: Tensor, tolerance: float = 0.0) -> str:
    difference = (got - wanted).abs().max()
    return "equal" if difference <= tolerance else f"differs by {difference:.2g}"


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", KNOWN_WARNING)
    task, target = sys.argv[1], Path(sys.argv[2])
    tasks = {
        "reload": lambda: _reload(target),
        "untouched": _untouched,
        **{half: functools.partial(_compile, "aot_eager", names) for half, names in _HALVES.items()},
        "inductor": lambda: _compile("inductor", ["llama", "bert"]),
    }
    found = tasks[task]()
    (target / "answers.json").write_text(json.dumps(found))
