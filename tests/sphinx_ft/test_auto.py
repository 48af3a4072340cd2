"""transformers' Auto classes load a SPHINX folder, and the package loads no torch before it is used."""

import subprocess
import sys

import pytest

from sphinx_ft.processor import SphinxProcessor
from tests.sphinx_ft.tiny import tiny_model
from tests.tiny import byte_tokenizer

LOAD = """
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
config = AutoConfig.from_pretrained(folder)
assert config.model_type == "sphinx" and len(config.encoder_configs) == 4
model = AutoModelForImageTextToText.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
assert type(model).__name__ == "SphinxForConditionalGeneration", type(model)
assert type(processor).__name__ == "SphinxProcessor", type(processor)
from PIL import Image
inputs = processor([Image.new("RGB", (20, 20))], "What?")
assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
"""


@pytest.mark.parametrize(
    "before",
    [
        "import sphinx_ft, sys; assert 'torch' not in sys.modules\n",
        pytest.param(
            "import transformers.models.auto.modeling_auto, sphinx_ft.model\n", marks=pytest.mark.slow
        ),
    ],
    ids=["first", "after"],
)
def test_a_folder_is_loaded_by_its_name(tmp_path, before, repository):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    SphinxProcessor(byte_tokenizer(), model.config, "plain").save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", before + f"folder = {str(tmp_path)!r}\n" + LOAD],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
