import subprocess
import sys
from pathlib import Path

import pytest

from llama_adapter.demo import run
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


def test_options_are_known_without_loading_what_does_the_work():
    code = (
        "import sys, llama_adapter.demo.run as run;"
        "work = ('llama_adapter.training', 'llama_adapter.demo.');"
        "print([name for name in sys.modules if name.startswith(work)])"
    )
    root = str(Path(run.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['llama_adapter.demo.run']\n"
