import subprocess
import sys

import pytest

from llama_adapter.demo.run import DemoConfig
from llama_adapter.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("prompt_length", 0),
        ("prompt_init_std", -0.1),
        ("train_size", 7),
        ("train_size", 5001),
        ("held_out_size", 1),
        ("threads", -1),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(UserError, match=rf"{name} is {value}. Use "):
        DemoConfig(**{name: value})


def test_options_are_known_without_loading_torch():
    code = "import sys, llama_adapter.demo.run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
