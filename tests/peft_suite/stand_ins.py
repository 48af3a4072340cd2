"""Tiny random models in folders named as the hub's, for a run without network: tests load them by name."""

from pathlib import Path

import torch
import transformers as hf

from tests.tiny import byte_tokenizer

_TEXT = {"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "max_position_embeddings": 128}
_GROUPED = {**_TEXT, **_HEADS, "num_key_value_heads": 2}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _opt() -> hf.PreTrainedModel:
    sizes = {name: value for name, value in (_TEXT | _HEADS).items() if name != "intermediate_size"}
    return hf.OPTForCausalLM(hf.OPTConfig(**sizes, ffn_dim=48, word_embed_proj_dim=32, **_IDS))


def _gpt2() -> hf.PreTrainedModel:
    sizes = {"vocab_size": 1024, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, **_IDS))


def _gptj() -> hf.PreTrainedModel:
    sizes = {"vocab_size": 1024, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return hf.GPTJForCausalLM(hf.GPTJConfig(**sizes, rotary_dim=4, tie_word_embeddings=False, **_IDS))


def _gemma3() -> hf.PreTrainedModel:
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GROUPED, head_dim=8, sliding_window=16, **_IDS))


def _t5() -> hf.PreTrainedModel:
    sizes = {"vocab_size": 1024, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, decoder_start_token_id=0))


def _decoder(name: str, **more: object) -> hf.PreTrainedModel:
    """A LLaMA-like model by the name of its family."""
    config = getattr(hf, f"{name}Config")(**_GROUPED, **_IDS, **more)
    return getattr(hf, f"{name}ForCausalLM")(config)


def _encoder(name: str, task: str = "Model") -> hf.PreTrainedModel:
    """A BERT-like model by the name of its family."""
    return getattr(hf, f"{name}{task}")(getattr(hf, f"{name}Config")(**_TEXT, **_HEADS, pad_token_id=0))


_INTERNAL = "peft-internal-testing/tiny-random-"
MODELS = {
    f"{_INTERNAL}OPTForCausalLM": _opt,
    f"{_INTERNAL}GPT2LMHeadModel": _gpt2,
    "hf-internal-testing/tiny-random-gpt2": _gpt2,
    f"{_INTERNAL}GPTJForCausalLM": _gptj,
    "trl-internal-testing/tiny-random-LlamaForCausalLM": lambda: _decoder("Llama"),
    "peft-internal-testing/tiny-dummy-qwen2": lambda: _decoder("Qwen2"),
    "trl-internal-testing/tiny-Qwen3ForCausalLM": lambda: _decoder("Qwen3", head_dim=8),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": _gemma3,
    "hf-internal-testing/tiny-random-MistralForCausalLM": lambda: _decoder("Mistral"),
    "peft-internal-testing/opt-125m": _opt,
    f"{_INTERNAL}t5": _t5,
    f"{_INTERNAL}BertForSequenceClassification": lambda: _encoder("Bert", "ForSequenceClassification"),
    f"{_INTERNAL}RobertaForSequenceClassification": lambda: _encoder("Roberta", "ForSequenceClassification"),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": lambda: hf.LlamaForSequenceClassification(
        hf.LlamaConfig(**_GROUPED, **_IDS)
    ),
    f"{_INTERNAL}BertModel": lambda: _encoder("Bert"),
    f"{_INTERNAL}RobertaModel": lambda: _encoder("Roberta"),
    f"{_INTERNAL}DebertaModel": lambda: _encoder("Deberta"),
    f"{_INTERNAL}DebertaV2Model": lambda: _encoder("DebertaV2"),
}
"""Name on the hub -> a random model of the same family."""


def write_stand_ins(folder: Path) -> None:
    """Write the models that are not there yet, each with a tokenizer."""
    tokenizer = byte_tokenizer()
    for name, make in MODELS.items():
        if not (folder / name / "tokenizer.json").is_file():
            torch.manual_seed(0)
            make().save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
