"""Chat and pictures in, the model's inputs out."""

import pytest
import torch

from llama_adapter.errors import UserError
from sphinx_ft.processor import SphinxProcessor
from tests.sphinx_ft.tiny import picture, tiny_config
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer

WIDE, TALL = picture(80, 40), picture(20, 60)


def processor(template="chat", **options):
    return SphinxProcessor(byte_tokenizer(CHAT_TEMPLATE), tiny_config(**options), template)


def chat(*parts):
    content = [
        {"type": "text", "text": one} if isinstance(one, str) else {"type": "image", "image": one}
        for one in parts
    ]
    return [{"role": "user", "content": content}]


def shown(row, made):
    """A row as text, ``#`` for a run of image tokens."""
    text, tokenizer = "", made.tokenizer
    for token in row.tolist():
        if token == made.config.image_token_id:
            text += "" if text.endswith("#") else "#"
        elif token > 2:
            text += tokenizer.decode([token])
    return text


def test_conversations_become_rows_with_images_where_the_text_says():
    made = processor(image_places="placeholder")
    batch = made.apply_chat_template(
        [chat("one ", WIDE, " and ", TALL, "?"), chat("none")], tokenize=True, return_dict=True
    )
    assert [shown(row, made) for row in batch["input_ids"]] == [
        "[user]one # and #?[assistant]",
        "[user]none[assistant]",
    ]
    assert batch["pixel_values"].shape == (2, 3, 56, 56)
    assert batch["useful_views"].sum(dim=1).tolist() == [3, 3]
    lengths = made.config.image_lengths([WIDE.size, TALL.size])
    assert (batch["input_ids"] == made.config.image_token_id).sum(dim=1).tolist() == [sum(lengths), 0]
    assert batch["attention_mask"].sum(dim=1)[1] == 1 + len("[user]none[assistant]")
    assert batch["input_ids"][1, 0] == 0  # padding on the left


def test_images_follow_the_begin_token_as_published():
    made = processor()
    batch = made.apply_chat_template(chat("see ", WIDE), tokenize=True)
    assert shown(batch["input_ids"][0], made) == "#[user]see [assistant]"
    assert batch["input_ids"][0, 0] == 1


def test_a_chat_without_tokenizing_is_its_text():
    assert processor().apply_chat_template(chat("a", WIDE)) == "<s>[user]a<image>[assistant]"


def test_folder_gives_the_same_processor(tmp_path):
    made = processor(image_places="placeholder")
    made.save_pretrained(tmp_path)
    again = SphinxProcessor.from_pretrained(tmp_path)
    assert again.template == "chat"
    for key, value in made.apply_chat_template(chat("a", WIDE), tokenize=True).items():
        assert torch.equal(value, again.apply_chat_template(chat("a", WIDE), tokenize=True)[key]), key
    assert SphinxProcessor.from_pretrained(tmp_path, template="plain").template == "plain"


def test_refuses_what_it_cannot_do():
    made = processor(image_places="placeholder")
    with pytest.raises(UserError, match="2 entries of images came for 1 texts"):
        made([WIDE, TALL], "a<image>")
    with pytest.raises(UserError, match="0 placeholders, but 1 images"):
        made([WIDE], "a")
    with pytest.raises(UserError, match="does not end with the user's turn"):
        made.apply_chat_template([{"role": "assistant", "content": "a"}])
    with pytest.raises(UserError, match="add_generation_prompt=False"):
        made.apply_chat_template(chat("a"), add_generation_prompt=False)
    with pytest.raises(UserError, match="The options {'truncation': True}"):
        made(None, "a", truncation=True)
