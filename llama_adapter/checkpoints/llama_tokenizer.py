"""tokenizer.model -> tokenizer files that transformers reads.

Up to LLaMA 2, and for InternLM2, it is a SentencePiece model; since LLaMA 3 a tiktoken table.
"""

import json
import shutil
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_adapter.checkpoints.tiktoken_table import is_table, llama_3_tokenizer
from llama_adapter.errors import UserError

_SAMPLE = "  The 3 quick foxes:\n\n### Response: naïve 東京 \t x = [1.5, 'y'];"


def write_tokenizer(source: Path, folder: Path, long_context: bool = False) -> str:
    """Convert a tokenizer, if there is one.

    Args:
        source: Folder of the official files.
        folder: Folder of the converted model.
        long_context: Whether the model is a LLaMA 3.1 or later, whose table goes with other special tokens.

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
    if is_table(path):
        tokenizer = llama_3_tokenizer(path, long_context)
        note = f"Tokenizer: {len(tokenizer)} tokens of a tiktoken table, special tokens of LLaMA "
        note += "3.1." if long_context else "3."
    else:
        pieces = _read_pieces(path)
        tokenizer = _from_pieces(path, pieces, folder)
        _compare(tokenizer, pieces, path)
        note = f"Tokenizer: {pieces.GetPieceSize()} SentencePiece tokens."
    tokenizer.save_pretrained(folder)
    shutil.copyfile(path, folder / "tokenizer.model")
    return note


def _read_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Open a SentencePiece model.

    Raises:
        UserError: It is none.
    """
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.Load(str(path))
    except RuntimeError as error:
        raise UserError(
            f"{str(path)!r} is no SentencePiece model and no tiktoken table. Use a fresh copy, "
            "or move it away and convert without it."
        ) from error
    return pieces


def _from_pieces(
    path: Path, pieces: sentencepiece.SentencePieceProcessor, folder: Path
) -> PreTrainedTokenizerFast:
    """Let transformers convert the pieces, and mark spaces as SentencePiece does.

    transformers' own LLaMA tokenizer swallows one of several leading spaces. Plain fast tokenizers keep the
    rule that they are saved with: a mark for each space, and one before the text if the pieces say so.
    """
    special = {
        "bos_token": pieces.IdToPiece(pieces.bos_id()),
        "eos_token": pieces.IdToPiece(pieces.eos_id()),
        "unk_token": pieces.IdToPiece(pieces.unk_id()),
    }
    shutil.copyfile(path, folder / "tokenizer.model")
    settings = special | {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.pre_tokenizer = None
    marks: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if pieces.Encode("a", out_type=str)[0].startswith("▁"):
        marks.insert(0, normalizers.Prepend("▁"))
    else:  # then nothing is to be taken off the front again
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    backend.normalizer = normalizers.Sequence(marks)
    return PreTrainedTokenizerFast(tokenizer_object=_rename(backend, path.parent), **special)


def _rename(backend: Tokenizer, source: Path) -> Tokenizer:
    """Give pieces the names in tokenizer_config.json: InternLM2's chat tokens were unused pieces."""
    path = source / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = {
        int(index): token["content"] for index, token in settings.get("added_tokens_decoder", {}).items()
    }
    old = {index: backend.id_to_token(index) for index in named}
    changed = {index: name for index, name in named.items() if old[index] is not None and old[index] != name}
    if not changed:
        return backend
    content = json.loads(backend.to_str())
    for index, name in changed.items():
        content["model"]["vocab"][name] = content["model"]["vocab"].pop(old[index])
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] != index]
    renamed = Tokenizer.from_str(json.dumps(content))
    renamed.add_special_tokens(list(changed.values()))
    return renamed


def _compare(
    tokenizer: PreTrainedTokenizerFast, pieces: sentencepiece.SentencePieceProcessor, path: Path
) -> None:
    """Refuse a converted tokenizer that gives other tokens.

    Raises:
        UserError: Shows both.
    """
    ours = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    theirs = pieces.Encode(_SAMPLE)
    if ours != theirs:
        raise UserError(
            f"The tokenizer of {str(path)!r} would give {ours[:8]} where the original gives {theirs[:8]}. "
            "Move tokenizer.model away and convert without it."
        )
