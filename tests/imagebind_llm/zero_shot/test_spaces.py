"""Which encoders a name opens, and what they embed."""

import json

import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer

from imagebind_llm.processing.processor import ImageBindProcessor
from imagebind_llm.zero_shot.spaces import DualEncoderSpace, ImageBindSpace, open_space
from llama_adapter import UserError
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.imagebind_llm.processing.test_processor import write_files
from tests.vision.tiny_encoders import SIZE, transformers_model

CPU = torch.device("cpu")


def test_imagebind_loads_only_the_towers_that_are_asked_for(tmp_path):
    tiny_model("vision", "text", "audio").save_pretrained(tmp_path)
    ImageBindProcessor().save_pretrained(tmp_path)
    space = open_space(str(tmp_path), CPU, ["video", "text"])
    assert list(space.modalities) == ["image", "video", "text"]
    with pytest.raises(UserError, match="does not embed 'depth', but audio, text. Use"):
        open_space(str(tmp_path), CPU, ["depth", "text", "audio"])


def test_records_of_a_batch_get_what_they_get_alone(tmp_path):
    files = write_files(tmp_path)
    space = ImageBindSpace(tiny_model(), ImageBindProcessor())
    mixed = [space.load("image", path) for path in files["vision"]]  # one clip and fifteen
    together = space.embed("image", mixed)
    alone = torch.cat([space.embed("video", [record]) for record in mixed])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    clouds = [space.load("point", path) for path in files["point"] * 2]
    assert space.embed("point", clouds).shape == (2, 16)


@pytest.fixture
def clip(tmp_path):
    """A folder with a tiny CLIP of ten tokens."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *"abcd", *(f"{letter}</w>" for letter in "abcd")]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, model_max_length=8)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE)
    CLIPProcessor(pictures, tokenizer).save_pretrained(tmp_path)
    model = transformers_model("clip")
    model.config.text_config.bos_token_id, model.config.text_config.eos_token_id = 0, 1
    model.save_pretrained(tmp_path)
    return tmp_path


def test_clip_embeds_pictures_and_texts(clip, tmp_path):
    files = write_files(tmp_path)
    space = open_space(str(clip), CPU, ["image", "text"])
    assert isinstance(space, DualEncoderSpace)
    assert list(space.modalities) == ["text", "image"]
    pictures = space.embed("image", [space.load("image", files["vision"][0])] * 2)
    texts = space.embed("text", ["a", "b c d a b c d a b c"])
    assert pictures.shape == texts.shape == (2, 12)
    assert not torch.allclose(texts[0], texts[1])
    torch.testing.assert_close(space.embed("text", ["a"]), texts[:1])
    with pytest.raises(UserError, match="does not embed 'audio'"):
        open_space(str(clip), CPU, ["audio", "text"])


def test_names_that_open_nothing(tmp_path):
    with pytest.raises(UserError, match="is no folder. Use a model's folder, or module:name"):
        open_space("nowhere", CPU, ["text"])
    with pytest.raises(UserError, match="cannot be imported"):
        open_space("json:nothing", CPU, ["text"])
    with pytest.raises(UserError, match="'os:sep' gives str. Use a Space"):
        open_space("os:sep", CPU, ["text"])
    with pytest.raises(UserError, match="no config.json to read"):
        open_space(str(tmp_path), CPU, ["text"])
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(UserError, match="cannot be loaded"):
        open_space(str(tmp_path), CPU, ["text"])
