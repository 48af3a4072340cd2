"""Whether the tokens of a tokenizer have rows in a model's embeddings.

Embeddings with more rows than tokens are common (they are padded for speed) and harmless; a token without a
row ends in an index error in the middle of a run, on a GPU in one that does not say where.
"""

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llama_adapter.errors import UserError


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many rows a tokenizer needs: its largest id and one more, added tokens included."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PretrainedConfig | PreTrainedModel) -> None:
    """Refuse a tokenizer that is larger than a model's embeddings.

    Args:
        tokenizer: the tokenizer.
        model: the model, or its configuration while it is not loaded.

    Raises:
        UserError: there are tokens without a row.
    """
    if isinstance(model, PretrainedConfig):
        rows = getattr(model.get_text_config(), "vocab_size", None)
    else:
        weight: Any = model.get_input_embeddings().weight
        rows = weight.shape[0]
    needed = vocabulary_size(tokenizer)
    if rows is None or needed <= rows:
        return
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    named = ", ".join(repr(token) for _, token in beyond[:3]) + (", ..." if len(beyond) > 3 else "")
    raise UserError(
        f"The tokenizer {tokenizer.name_or_path!r} has {needed} tokens, the base model's embeddings {rows} "
        f"rows: {needed} > {rows}, without a row are {named}. Use the tokenizer that belongs to the "
        f"weights, or enlarge the model once: model.resize_token_embeddings({needed}), then "
        "model.save_pretrained(FOLDER)."
    )
