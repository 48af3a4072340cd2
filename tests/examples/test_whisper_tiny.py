"""The package's tensors under transformers' names make the same network."""

import io
import struct

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from llama_adapter import UserError

SMALL = {
    "vocab_size": 12,
    "d_model": 8,
    "num_mel_bins": 4,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 1,
}
PARTS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "ffn/layer_norm": ("final_layer_norm",),
}


def packed_tensors(weights):
    """The weights as the package holds them."""
    for side, layers in (("encoder", 2), ("decoder", 1)):
        for layer in range(layers):
            before = f"model.{side}.layers.{layer}"
            for theirs, ours in PARTS.items():
                if f"{before}.{ours[0]}.weight" not in weights:
                    continue
                for kind in ("weight", "bias"):
                    tensors = [weights.get(f"{before}.{name}.{kind}", torch.zeros(8)) for name in ours]
                    last = {"weight": "gamma", "bias": "beta"}[kind] if "norm" in theirs else kind
                    yield f"{side}/layer_{layer}/{theirs}/{last}", torch.cat(tensors)
        for kind, last in (("weight", "gamma"), ("bias", "beta")):
            yield f"{side}/layer_norm/{last}", weights[f"model.{side}.layer_norm.{kind}"]
        yield f"{side}/position_encodings/encodings", weights[f"model.{side}.embed_positions.weight"]
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            yield f"encoder/{name}/{kind}", weights[f"model.encoder.{name}.{kind}"]
    yield "decoder/embeddings/weight", weights["model.decoder.embed_tokens.weight"]


def file_of(tensors, version=6):
    """A file in the package's format; the first entry is a setting."""
    written = [("encoder/num_heads", struct.pack("h", 2), (), 2)]
    written += [(name, t.half().numpy().tobytes(), t.shape, 4) for name, t in tensors]
    file = io.BytesIO()
    file.write(struct.pack("I", version) + _text("WhisperSpec") + struct.pack("II", 3, len(written)))
    for name, content, shape, kind in written:
        file.write(_text(name) + struct.pack("B", len(shape)) + struct.pack(f"{len(shape)}I", *shape))
        file.write(struct.pack("<BI", kind, len(content)) + content)
    file.seek(0)
    return file


def _text(value):
    return struct.pack("H", len(value) + 1) + value.encode() + b"\0"


def test_every_tensor_comes_back(example):
    whisper = example("whisper_tiny")
    torch.manual_seed(0)
    weights = WhisperForConditionalGeneration(WhisperConfig(**SMALL)).half().float().state_dict()
    read = {
        ours: part
        for name, tensor in whisper.tensors(file_of(packed_tensors(weights)))
        for ours, part in whisper.renamed(name, tensor)
    }
    assert set(read) == set(weights) - {"proj_out.weight"}
    for name, tensor in read.items():
        assert torch.equal(tensor, weights[name]), name


def test_another_version(example):
    whisper = example("whisper_tiny")
    with pytest.raises(UserError, match="has version 5 of CTranslate2's format"):
        list(whisper.tensors(file_of([], version=5)))
