"""What every test gets: its own folder, no network, fixed seeds, an environment that comes out unchanged."""

import os

# Before any Hugging Face import: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import contextlib
import random
from collections import Counter
from pathlib import Path

import jaxtyping
import pytest

# Annotations are checked at every call; an int is a float, as for mypy. Not by jaxtyping's own pytest option,
# which takes one package only when the checker has settings.
jaxtyping.install_import_hook(
    ["llama_adapter", "imagebind_llm", "sphinx_ft"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_terminal_summary(terminalreporter):
    """Say how many checks did not run, and why: a green line alone would hide them."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in reports
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} checks did not run: {reason}")


# Libraries write these themselves when they are imported or when training arguments are created.
_LIBRARY_VARIABLES = (
    "ACCELERATE_",
    "FSDP_",
    "KINETO_",
    "KMP_",
    "MPL",
    "PYTEST_CURRENT_TEST",
    "TF2_",
    "TF_CPP_",
    "TORCHINDUCTOR_",
    "TORCH_NCCL_",
    "TRITON_",
    "WANDB_",
)


@pytest.fixture(autouse=True)
def isolated(tmp_path):
    """Gives the test its own folder and fixed seeds; fails it when it leaves environment variables behind."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    before = dict(os.environ)
    with contextlib.chdir(tmp_path):
        yield  # without the monkeypatch fixture, which would otherwise be undone only after the check below
    after = {name: value for name, value in os.environ.items() if not name.startswith(_LIBRARY_VARIABLES)}
    leaked = sorted(name for name, value in after.items() if before.get(name) != value)
    os.environ.clear()
    os.environ.update(before)
    assert not leaked, (
        f"the test left environment variables behind: {leaked}; set them with monkeypatch.setenv"
    )


@pytest.fixture(scope="session")
def repository():
    """The folder of pyproject.toml."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data():
    """Real data beside the checkout (or at LLAMA_ADAPTER_SHARED); the test is skipped without it."""
    root = Path(os.environ.get("LLAMA_ADAPTER_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not root.is_dir():
        pytest.skip("real data not found; set LLAMA_ADAPTER_SHARED to the folder that holds data/")
    return root


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A folder that from_pretrained reads: a tiny random LLaMA, a byte tokenizer with a chat template."""
    from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama

    folder = tmp_path_factory.mktemp("tiny-llama")
    tiny_llama().save_pretrained(folder)
    byte_tokenizer(CHAT_TEMPLATE).save_pretrained(folder)
    return folder
