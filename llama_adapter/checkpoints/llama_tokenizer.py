"""Meta's tokenizer.model -> tokenizer files that transformers reads."""

import json
import shutil
from pathlib import Path

import sentencepiece
from transformers import AutoTokenizer

from llama_adapter.errors import UserError

_SAMPLE = "The 3 quick foxes:\n\n### Response: naïve 東京 \t x = [1.5, 'y'];"


def write_tokenizer(source: Path, folder: Path) -> str:
    """Convert a tokenizer, if there is one.

    Args:
        source: Folder of the official files.
        folder: Folder of the converted model.

    Returns:
        A sentence on what was done.

    Raises:
        UserError: The converted tokenizer gives other tokens than the original.
    """
    path = source / "tokenizer.model"
    if not path.is_file():
        return (
            f"No tokenizer.model in {source}: the model has no tokenizer; put its files beside config.json."
        )
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.Load(str(path))
    except RuntimeError:
        return (
            f"{path} is no SentencePiece model (LLaMA 3 has another format), so no tokenizer was written; "
            "put the tokenizer files of the model's Hugging Face page beside config.json."
        )
    shutil.copyfile(path, folder / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "bos_token": pieces.IdToPiece(pieces.bos_id()),
        "eos_token": pieces.IdToPiece(pieces.eos_id()),
        "unk_token": pieces.IdToPiece(pieces.unk_id()),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    ours = AutoTokenizer.from_pretrained(folder)(_SAMPLE, add_special_tokens=False)["input_ids"]
    theirs = pieces.Encode(_SAMPLE)
    if ours != theirs:
        raise UserError(
            f"The tokenizer of {str(path)!r} would give {ours[:8]} where the original gives {theirs[:8]}. "
            "Move tokenizer.model away and convert without it."
        )
    return f"Tokenizer: {pieces.GetPieceSize()} SentencePiece tokens."
