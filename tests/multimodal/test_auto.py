"""transformers' Auto classes load a saved folder, in any order of imports, and nothing is loaded before."""

import subprocess
import sys

import pytest

from tests.multimodal.seeing import make_folder

LOAD = """
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
config = AutoConfig.from_pretrained(folder)
assert config.model_type == "image_conditioned" and config.conditioner["kind"] == "visual_queries"
model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
processor = AutoProcessor.from_pretrained(folder)
assert type(model).__name__ == "ImageConditionedModel", type(model)
assert type(processor).__name__ == "ImageConditionedProcessor", type(processor)
from PIL import Image
messages = [{"role": "user", "content": [
    {"type": "image", "image": Image.new("RGB", (20, 20))}, {"type": "text", "text": "What?"}]}]
inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
from peft import PeftModel
from transformers import AutoModelForCausalLM
PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)  # its text side
"""
BEFORE = {
    "first": "import llama_adapter, sys; assert 'torch' not in sys.modules\n",
    "after": "import transformers.models.auto.modeling_auto, peft, llama_adapter\n",
    "within": "import llama_adapter.models\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("seeing"))


@pytest.mark.parametrize(
    "order", ["first", *(pytest.param(name, marks=pytest.mark.slow) for name in ("after", "within"))]
)
def test_a_folder_is_loaded_by_its_name(folder, order, repository):
    names = f"folder, base = {str(folder)!r}, {str(folder.parent / 'base')!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", BEFORE[order] + names + LOAD],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
