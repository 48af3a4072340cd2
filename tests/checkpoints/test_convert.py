"""The verb finds its kinds."""

import importlib
import subprocess
import sys

import pytest

from llama_adapter.checkpoints.convert import KINDS, ConvertConfig
from llama_adapter.errors import UserError


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_both_directions(name):
    for target in (KINDS[name].forward, KINDS[name].reverse):
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'adapter-v2-chat'"):
        ConvertConfig(kind="adapter-v2-chatt", checkpoint="x", output="y")
    with pytest.raises(UserError, match="Use one of"):
        ConvertConfig(kind="gguf", checkpoint="x", output="y")


def test_a_file_of_no_size_is_refused():
    with pytest.raises(UserError, match="max_shard_gb is 0"):
        ConvertConfig(kind="meta-llama", checkpoint="x", output="y", max_shard_gb=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mixtral", "variant": "sphinx"}, "variant is 'sphinx', but --kind mixtral has none"),
        ({"kind": "imagebind", "official_shards": 2}, "official_shards is 2, but --kind imagebind has none"),
        ({"kind": "sphinx", "official_shards": 2}, "official_shards is 2. Use .* with --reverse true"),
        ({"kind": "sphinx", "official_shards": 0, "reverse": True}, "Use a number above 0"),
    ],
)
def test_options_of_one_kind_are_refused_elsewhere(options, message):
    with pytest.raises(UserError, match=message):
        ConvertConfig(checkpoint="x", output="y", **options)


def test_the_options_are_listed_without_torch():
    code = "import llama_adapter.checkpoints.convert, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
