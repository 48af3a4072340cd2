"""What texts, conversations and files become for ImageBind-LLM."""

import base64
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from imagebind_llm import ImageBindLlm, ImageBindLlmProcessor
from llama_adapter import UserError


@pytest.fixture(scope="module")
def processor(trained):
    return AutoProcessor.from_pretrained(trained / "second" / "adapter")


def said(*parts):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


def test_auto_classes_know_it(trained, processor):
    assert type(processor) is ImageBindLlmProcessor
    model = AutoModelForImageTextToText.from_pretrained(trained / "second" / "adapter")
    assert type(model) is ImageBindLlm


def test_a_saved_processor_comes_back(processor, tmp_path, trained, rows):
    for file in ("adapter_config.json", "config.json"):
        (tmp_path / file).write_text((trained / "second" / "adapter" / file).read_text())
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is ImageBindLlmProcessor
    assert (again.template, again.vision) == (processor.template, processor.vision)
    assert again(rows, ["a"] * 4)["mixes"].rows == processor(rows, ["a"] * 4)["mixes"].rows


def test_parts_of_a_message_are_inputs(model, processor, rows):
    (_, picture, _), (_, sound, _) = rows[1]
    image = {"type": "image", "path": picture, "weight": 0.7}
    conversations = [said(image, {"type": "audio", "path": sound, "weight": 0.3}), said()]
    batch = processor.apply_chat_template(conversations, tokenize=True)
    texts = processor.apply_chat_template(conversations)
    wanted = processor([rows[1], None], texts)
    assert batch["mixes"].rows == wanted["mixes"].rows
    torch.testing.assert_close(model(**batch).logits, model(**wanted).logits, atol=0, rtol=0)


def test_a_picture_of_pillow_is_as_good_as_its_file(model, rows):
    (_, picture), *_ = rows[0]
    found, _ = model.embed([[("image", Image.open(picture))], rows[0]])
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)


def test_a_picture_inside_a_message(model, processor, rows):
    (_, picture), *_ = rows[0]
    content = base64.b64encode(Path(picture).read_bytes()).decode()
    inside = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}
    found, wanted = (
        model(**processor.apply_chat_template(said(part), tokenize=True)).logits
        for part in (inside, {"type": "image", "path": Path(picture)})
    )
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_a_file_is_read_once_for_all_rows(processor, rows):
    values = processor(rows, ["a"] * 4)["mixes"].values
    assert {tower: len(found) for tower, found in values.items()} == {
        "vision": 1,
        "audio": 1,
        "text": 1,
        "point": 1,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([("smell", "a")], "Unknown modality 'smell'. Use some of"),
        (["a.jpg"], "The input 'a.jpg' came. Use .modality, file or text"),
        ([("text", "a", "much")], "The weight of text 'a' is 'much'. Use a number"),
        ([("text", "a", float("nan"))], "The weight of text 'a' is nan"),
        ([("audio", "none.wav")], "none.wav"),
    ],
)
def test_inputs_that_are_none(processor, row, message):
    with pytest.raises(UserError, match=message):
        processor([row], ["a"])


def test_what_does_not_go_together(model, processor, rows):
    with pytest.raises(UserError, match="2 entries of images came for 1 texts"):
        processor([None, None], ["a"])
    with pytest.raises(UserError, match="has no audio. Add it under 'audio', 'path'"):
        processor.apply_chat_template(said({"type": "audio"}), tokenize=True)
    batch = processor(rows, ["a"] * 4)
    with pytest.raises(UserError, match="Inputs of 4 rows came to 1 rows of tokens"):
        model(batch["input_ids"][:1], mixes=batch["mixes"])
    with pytest.raises(UserError, match="4 rows of tokens together with embeddings"):
        model(batch["input_ids"], mixes=batch["mixes"], embeddings=torch.zeros(4, 16))


def test_an_adapter_without_an_encoder(processor, rows):
    blind = ImageBindLlmProcessor(processor.tokenizer, template=processor.template)
    assert "mixes" not in blind([None], ["a"])
    with pytest.raises(UserError, match="names no encoder .*convert it with --encoder"):
        blind(rows[:1], ["a"])
