"""Takes a model's template along with its files, so that other programs ask and stop as ours do.

``generate`` stops at the template's end token, at the tokenizer's and at those the model declares. Other
programs know the last alone: so all of them are written into ``generation_config.json``. They ask in the form
of the tokenizer's chat template: so a template of ours that can be said in Jinja becomes it.
"""

import copy
import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_adapter.data.encoding import Encoder
from llama_adapter.data.template_base import Template
from llama_adapter.data.templates import load_template
from llama_adapter.file_formats.json_file import read_object

GENERATION_FILE = "generation_config.json"


def default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template where nothing was recorded: the tokenizer's own, or plain text."""
    return "chat" if tokenizer.chat_template else "plain"


def save_template(
    folder: str | Path, tokenizer: PreTrainedTokenizerBase, name: str | None = None, asks: bool = True
) -> list[str]:
    """Write into the folder of a model where its answers end and how it is asked.

    Args:
        folder: of a saved model; its tokenizer's files are written anew.
        tokenizer: the model's.
        name: of the template it was trained with; None for what ``generate`` takes where nothing is recorded.
        asks: whether programs ask by the tokenizer; those that see may have a processor for it.

    Returns:
        Sentences on what was written.

    Raises:
        UserError: there is no such template, or the tokenizer lacks what it needs.
    """
    name = name or default_template(tokenizer)
    template = load_template(name, tokenizer)
    said = [_save_ends(Path(folder), tokenizer, template)]
    if name == "chat" or not asks:
        return said
    jinja = template.jinja(_begin_token(tokenizer) if template.add_special_tokens else "")
    if jinja is None:
        return [*said, f"The template {name} cannot be said in Jinja: other programs must ask in its form."]
    told = copy.deepcopy(tokenizer)
    told.chat_template = jinja
    told.save_pretrained(str(folder))
    return [*said, f"The tokenizer's chat template is the template {name} now, for programs that ask by it."]


def _save_ends(folder: Path, tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """Write all end tokens into ``generation_config.json``; what else it says stays."""
    path = folder / GENERATION_FILE
    settings = read_object(path) if path.is_file() else {}
    declared = settings.get("eos_token_id")
    end = tokenizer.get_vocab().get(template.end_token)
    ends = [end, tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])]
    settings["eos_token_id"] = [token for token in dict.fromkeys(ends) if token is not None]
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if end is None:
        return (
            f"Answers end with the text {template.end_token!r}, which is no single token: give it to other "
            "programs as a stop string."
        )
    return (
        f"Answers end at {tokenizer.convert_ids_to_tokens(settings['eos_token_id'])}, in {GENERATION_FILE}."
    )


def _begin_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer puts in front of a text by itself; empty where it puts nothing."""
    begin = Encoder(tokenizer).begin_id
    return "" if begin is None else str(tokenizer.convert_ids_to_tokens(begin))
