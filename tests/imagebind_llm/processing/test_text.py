"""Token ids against the original tokenizer's."""

import torch

from imagebind_llm.processing.text import tokenize
from tests.imagebind_llm.tiny import golden

TEXTS = [
    "A dog.",
    "A car",
    "A bird",
    "a photo of  a\n cat & dog",
    "It's 3 o'clock — déjà vu! 😀 <b>&amp;</b>",
    "",
    " ".join(["word"] * 100),
    "The quick brown fox jumps over the lazy dog, while 12345 penguins' umbrellas aren't "
    "supercalifragilisticexpialidocious.",
]


def test_ids_are_the_originals():
    tensors = golden("imagebind_text_bpe")
    assert torch.equal(tokenize(TEXTS), tensors["out/ids"])
    assert torch.equal(tokenize(TEXTS, keep_end_token=False), tensors["out/ids_before_eos_fix"])
    assert torch.equal(tokenize(TEXTS).argmax(1), tensors["out/pool_index"])
