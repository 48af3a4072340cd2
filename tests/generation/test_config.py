"""Ranges of the sampling settings, and the one kind of input that must be chosen."""

import pytest

from llama_adapter.errors import UserError
from llama_adapter.generation import GenerateConfig, SamplingConfig


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0. Use 1 or more."),
        ({"temperature": -0.1}, r"temperature is -0.1. Use a number from 0 on."),
        ({"top_p": 0.0}, "top_p is 0.0. Use a share above 0 and up to 1."),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_a_value_out_of_range_is_refused(setting, said):
    with pytest.raises(UserError, match=said):
        SamplingConfig(**setting)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({}, "Got no prompt. Use one of --prompt, --prompt-file, --interactive."),
        ({"prompt": ["a"], "interactive": True}, "Got --prompt and --interactive."),
        ({"prompt_file": "q.txt", "prompt": ["a"]}, "Got --prompt and --prompt-file."),
        (
            {"interactive": True, "output": "a.jsonl"},
            "output is 'a.jsonl', but a chat is not written. Use --prompt",
        ),
        ({"prompt": ["a"], "temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_contradicting_input_is_refused(setting, said):
    with pytest.raises(UserError, match=said):
        GenerateConfig(base="b", **setting)
