"""LLaMA 3's tokenizer.model: a table of byte sequences and ranks, special tokens not included.

The special tokens follow the table in an order fixed by Meta's code; most of the 256 are reserved.
Source: the special tokens of the releases.
"""

import base64
from pathlib import Path

from tokenizers import processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"
_SPECIAL_TOKENS = 256
_NAMED = {0: _BEGIN, 1: _END, 6: "<|start_header_id|>", 7: "<|end_header_id|>", 9: "<|eot_id|>"}
_NAMED_SINCE_3_1 = {4: "<|finetune_right_pad_id|>", 8: "<|eom_id|>", 10: "<|python_tag|>"}


class _TableConverter(TikTokenConverter):
    """transformers' converter, without the package that it wants for reading a text file."""

    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        """Byte sequence -> rank."""
        lines = Path(tiktoken_url).read_text(encoding="ascii").splitlines()
        pairs = (line.split() for line in lines if line)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}


def is_table(path: Path) -> bool:
    """Whether a file begins with a byte sequence in base64 and its rank."""
    with path.open("rb") as file:
        words = file.readline(4096).split()
    try:
        return len(words) == 2 and words[1].isdigit() and bool(base64.b64decode(words[0], validate=True))
    except ValueError:
        return False


def llama_3_tokenizer(path: Path, long_context: bool) -> PreTrainedTokenizerFast:
    """The tokenizer of LLaMA 3, which begins texts with its start token.

    Args:
        path: The table.
        long_context: Whether it belongs to LLaMA 3.1 or later, which use more of the reserved tokens.
    """
    special = _special_tokens(_NAMED | _NAMED_SINCE_3_1 if long_context else _NAMED)
    backend = _TableConverter(vocab_file=str(path), extra_special_tokens=special).converted()
    start = (_BEGIN, backend.token_to_id(_BEGIN))
    template = processors.TemplateProcessing(
        single=f"{_BEGIN} $A", pair=f"{_BEGIN} $A {_BEGIN}:1 $B:1", special_tokens=[start]
    )
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=_BEGIN, eos_token=_END)


def _special_tokens(named: dict[int, str]) -> list[str]:
    """All special tokens in order; those without a name are numbered on their own."""
    tokens: list[str] = []
    for index in range(_SPECIAL_TOKENS):
        reserved = index - sum(position < index for position in named)
        tokens.append(named.get(index, f"<|reserved_special_token_{reserved}|>"))
    return tokens
