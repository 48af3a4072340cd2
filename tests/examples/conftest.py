"""The example files as modules."""

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports an example by its name, beside the others, as `python examples/NAME.py` does."""
    monkeypatch.syspath_prepend(EXAMPLES)
    before = set(sys.modules)
    yield importlib.import_module
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    for name in (set(sys.modules) - before) & names:
        del sys.modules[name]


@pytest.fixture(scope="session")
def random_encoder(tmp_path_factory):
    """A file of random weights for the studies' encoder."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'llama-adapter[vision]'")
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("encoder") / "lite.safetensors"
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), file)
    return file
