"""Texts, conversations and images become a model's inputs as the adapter was trained."""

import base64

import pytest
import torch
from PIL import Image

from llama_adapter import UserError
from llama_adapter.multimodal import ImageConditionedProcessor
from tests.multimodal.seeing import TEMPLATE, make_folder
from tests.vision.tiny_encoders import draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("seeing"))


@pytest.fixture
def processor(folder):
    return ImageConditionedProcessor.from_pretrained(folder)


def asked(image, text="What is it?"):
    return [{"role": "user", "content": [{"type": "image", "path": image}, {"type": "text", "text": text}]}]


def test_conversations_are_written_in_the_adapters_template(processor, tmp_path):
    (path,) = draw(tmp_path, 1)
    assert processor.template == TEMPLATE
    text = processor.apply_chat_template(asked(path))
    assert text.startswith("Below is an instruction")
    assert "What is it?" in text
    assert "<image>" not in text
    batch = processor.apply_chat_template([asked(path), [{"role": "user", "content": "A?"}]], tokenize=True)
    assert batch["pixel_values"].shape[0] == 1
    assert batch["has_image"].tolist() == [True, False]
    short = batch["attention_mask"].sum(1)
    assert batch["attention_mask"][1, : short[0] - short[1]].sum() == 0  # padded on the left
    (answer, _) = processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert answer == text
    right = processor(text=["a", "abc"], padding_side="right")
    assert right["attention_mask"][0, -1] == 0


def test_images_come_in_any_form(processor, tmp_path):
    (path,) = draw(tmp_path, 1)
    encoded = "data:image/png;base64," + base64.b64encode((tmp_path / "0.png").read_bytes()).decode()
    with Image.open(path) as opened:
        picture = opened.copy()
    forms = [path, tmp_path / "0.png", picture, encoded, f"file://{path}"]
    pixels = processor(images=forms, text=["a"] * len(forms))["pixel_values"]
    assert all(torch.equal(one, pixels[0]) for one in pixels)
    assert torch.equal(processor(images=path, text="a")["pixel_values"][0], pixels[0])


def test_several_images_are_refused_or_averaged(folder, processor, tmp_path):
    paths = draw(tmp_path, 3)
    with pytest.raises(UserError, match="Row 0 has 2 images. Use one per row, or several_images='average'"):
        processor(images=[paths[:2]], text=["a"])
    averaging = ImageConditionedProcessor.from_pretrained(folder, several_images="average")
    batch = averaging(images=[paths[:2], None, paths[2]], text=["a"] * 3)
    assert batch["has_image"].tolist() == [2, 0, 1]
    assert len(batch["pixel_values"]) == 3


def test_it_comes_back_from_files(processor, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    processor.several_images = "average"
    processor.save_pretrained(tmp_path / "copy")
    again = ImageConditionedProcessor.from_pretrained(tmp_path / "copy")
    assert (again.several_images, again.template, again.vision) == ("average", TEMPLATE, processor.vision)
    assert torch.equal(again(text="abc")["input_ids"], processor(text="abc")["input_ids"])


def test_what_does_not_go_is_refused(processor, tmp_path):
    (path,) = draw(tmp_path, 1)
    with pytest.raises(UserError, match="1 entries of images came for 2 texts"):
        processor(images=[path], text=["a", "b"])
    with pytest.raises(UserError, match="does not end with the user's turn"):
        processor.apply_chat_template([{"role": "assistant", "content": "a"}])
    with pytest.raises(UserError, match="has no image. Add it under"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    blind = ImageConditionedProcessor(processor.tokenizer, template="plain")
    with pytest.raises(UserError, match="name no image encoder"):
        blind(images=path, text="a")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad.png' cannot be read as an image"):
        processor(images=str(tmp_path / "bad.png"), text="a")


def test_an_unknown_way_with_several_images_is_refused(folder):
    with pytest.raises(UserError, match="several_images is 'all'. Use 'refuse' or 'average'"):
        ImageConditionedProcessor.from_pretrained(folder, several_images="all")
