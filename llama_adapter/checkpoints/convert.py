"""The `convert` verb: official checkpoint files <-> Hugging Face models and PEFT adapters.

Unusual: importing this file loads no torch; a kind's module is imported when that kind runs. A new kind is a
new module and a line in ``KINDS``.
"""

import difflib
import importlib
from dataclasses import dataclass
from typing import Literal

from llama_adapter.errors import UserError
from llama_adapter.limits import Count, Positive


@dataclass(frozen=True)
class Kind:
    """One official format and where both directions live."""

    forward: str
    """`module:function` from the official format to ours."""
    reverse: str
    """`module:function` back."""


_HERE = "llama_adapter.checkpoints"
_IMAGEBIND = "imagebind_llm.imagebind.convert"
_SPHINX = "sphinx_ft.official_files"
_ADAPTER = Kind(f"{_HERE}.adapter_import:to_peft", f"{_HERE}.adapter_export:to_official")

KINDS = {
    "meta-llama": Kind(f"{_HERE}.meta_llama:to_hf", f"{_HERE}.meta_llama:to_official"),
    "mixtral": Kind(f"{_HERE}.mixtral:to_hf", f"{_HERE}.mixtral:to_official"),
    "internlm2": Kind(f"{_HERE}.internlm2:to_hf", f"{_HERE}.internlm2:to_official"),
    "adapter-v1": _ADAPTER,
    "adapter-v2": _ADAPTER,
    "adapter-v2-chat": _ADAPTER,
    "imagebind-llm": _ADAPTER,
    "imagebind": Kind(f"{_IMAGEBIND}:to_ours", f"{_IMAGEBIND}:to_official"),
    "sphinx": Kind(f"{_SPHINX}:to_ours", f"{_SPHINX}:to_official"),
}
"""Value of ``kind`` -> its functions, which take the settings and return an exit code."""


@dataclass(kw_only=True)
class ConvertConfig:
    """Convert official checkpoint files into Hugging Face models or PEFT adapters, or back.

    Raises:
        UserError: the kind is unknown, or a size is not positive.
    """

    kind: str
    """Official format: meta-llama, mixtral, internlm2, adapter-v1, adapter-v2, adapter-v2-chat,
    imagebind-llm, imagebind, sphinx."""

    checkpoint: str
    """What to convert: a folder for language models, a file for others; with `reverse`, our folder."""

    output: str
    """Where to write; must not exist yet."""

    base: str | None = None
    """Hugging Face folder of the LLaMA that an adapter belongs to. For imagebind and sphinx: a folder with
    the config.json of a model of other sizes than the published one; for sphinx also of a language model."""

    encoder: str | None = None
    """For imagebind-llm: our folder of the ImageBind model, written down for `generate`."""

    reverse: bool = False
    """Write the official layout from ours."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the result; `auto` keeps what the checkpoint has."""

    gate_activation: Literal["tanh", "identity"] | None = None
    """For adapter-v1: what gates go through. The default, tanh, is how the official code trains; `identity`
    reproduces the official V1 inference code."""

    prompt_length: Count | None = None
    """For adapter-v1: prompts per layer, where the file leaves it open; the published file has 10."""

    keep_end_token: bool = True
    """For imagebind: texts that are too long keep their end token. `false` reproduces the code before
    November 2025, which lost it."""

    variant: str | None = None
    """For sphinx: the released model whose files these are, such as sphinx-v2-1k; by default the one that
    their meta.json names."""

    official_shards: Count | None = None
    """For sphinx, with `reverse`: number of tensor-parallel files to write; by default as many as were read,
    or one."""

    max_shard_gb: Positive = 1.0
    """For models: largest file of the result in GB; never over half of the largest official file, so that a
    conversion needs little memory."""

    verify: bool = True
    """Compare checksums first; reads every file once more."""

    overwrite: bool = False
    """Replace what is at `output`."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.kind not in KINDS:
            near = difflib.get_close_matches(self.kind, KINDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Use one of {list(KINDS)}."
            raise UserError(f"kind is {self.kind!r}, which is unknown. {hint}")
        if self.encoder is not None and self.kind != "imagebind-llm":
            raise UserError(
                f"encoder is {self.encoder!r}, but files of --kind {self.kind} have none. Leave it out."
            )
        self._check_sphinx()
        if self.max_shard_gb <= 0:
            raise UserError(f"max_shard_gb is {self.max_shard_gb}. Use a size above 0.")

    def _check_sphinx(self) -> None:
        """Refuse what other kinds do not know."""
        for name in ("variant", "official_shards"):
            if (value := getattr(self, name)) is not None and self.kind != "sphinx":
                raise UserError(f"{name} is {value!r}, but --kind {self.kind} has none. Leave it out.")
        if self.official_shards is not None and (self.official_shards < 1 or not self.reverse):
            raise UserError(
                f"official_shards is {self.official_shards}. Use a number above 0, with --reverse true."
            )


def convert(config: ConvertConfig) -> int:
    """The `convert` verb.

    Returns:
        The exit code.

    Raises:
        UserError: a file is damaged or does not fit.
    """
    kind = KINDS[config.kind]
    module, _, function = (kind.reverse if config.reverse else kind.forward).partition(":")
    return getattr(importlib.import_module(module), function)(config)
