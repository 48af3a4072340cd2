"""Meta's tokenizer.model -> tokenizer files that transformers reads."""

import json
import shutil
from pathlib import Path

import sentencepiece
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_adapter.errors import UserError

_SAMPLE = "  The 3 quick foxes:\n\n### Response: naïve 東京 \t x = [1.5, 'y'];"


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
        "bos_token": pieces.IdToPiece(pieces.bos_id()),
        "eos_token": pieces.IdToPiece(pieces.eos_id()),
        "unk_token": pieces.IdToPiece(pieces.unk_id()),
    }
    _save(folder, settings)
    ours = AutoTokenizer.from_pretrained(folder)(_SAMPLE, add_special_tokens=False)["input_ids"]
    theirs = pieces.Encode(_SAMPLE)
    if ours != theirs:
        raise UserError(
            f"The tokenizer of {str(path)!r} would give {ours[:8]} where the original gives {theirs[:8]}. "
            "Move tokenizer.model away and convert without it."
        )
    return f"Tokenizer: {pieces.GetPieceSize()} SentencePiece tokens."


def _save(folder: Path, settings: dict[str, str]) -> None:
    """Let transformers convert the pieces, and mark spaces as SentencePiece does.

    transformers' own LLaMA tokenizer swallows one of several leading spaces. Plain fast tokenizers keep the
    rule that they are saved with: a mark before the text, and one for each space.
    """
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(settings | {"add_bos_token": True}), encoding="utf-8")
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = {name: value for name, value in settings.items() if name != "tokenizer_class"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
