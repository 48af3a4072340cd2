"""What the converter must know of a family of models with official files.

`meta_llama.py`, `mixtral.py` and `internlm2.py` describe one each; packages built on the core have others.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from llama_adapter.checkpoints.llama_tokenizer import write_tokenizer
from llama_adapter.checkpoints.stored import Stored

if TYPE_CHECKING:
    from llama_adapter.checkpoints.model_files import OfficialModel

CONSOLIDATED = re.compile(r"consolidated(\.\d+(-of-\d+\.model)?)?\.(pth|pt|safetensors)")
"""Meta's, Mistral's and LLaMA2-Accessory's files of weights; not the optimiser's beside them."""

CAUSAL_HINT = 'llama-adapter generate --base {output} --prompt "Once upon a time"'
"""What to do with a converted language model."""


def language_tokenizer(source: Path, folder: Path, config: Any) -> str:
    """Convert a language model's tokenizer; see ``write_tokenizer``.

    Args:
        source: Folder of the official files.
        folder: Folder of the converted model.
        config: Of the model.
    """
    scaled = config.rope_parameters["rope_type"] == "llama3"
    return write_tokenizer(source, folder, long_context=scaled)


@dataclass(frozen=True)
class Habits:
    """How files of a model that never was official are written."""

    file: str = "consolidated.00.pth"
    """Name of the one file."""
    container: str = ""
    """Key under which it keeps its tensors; empty for its top level."""
    prefix: str = ""
    """In front of every name."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models."""

    model_type: str
    """What transformers calls the result."""
    architecture: str
    """The class of the result."""
    files: re.Pattern[str]
    """Names of the files with weights."""
    owner: str
    """Whose files these are, for messages."""
    settings: tuple[str, ...]
    """Files with settings; the first that is there is the model's, the others are kept."""
    settings_needed: bool = True
    """Whether one of them must be there."""
    config: Callable[["OfficialModel"], PreTrainedConfig]
    """The model's config from its files."""
    stored: Callable[[Any, Collection[str]], list[Stored]]
    """Tensors of the official files, from the config and the names in the files (empty if there are none)."""
    params: Callable[[Any], dict[str, dict[str, Any]]]
    """Settings files of a model that never was official, by name, from its config."""
    prefix: str = ""
    """In front of names, if all of them have it."""
    computed: Mapping[str, str] = field(default_factory=dict)
    """Tensors that ours has no place for, as patterns of whole names -> why."""
    habits: Habits = field(default_factory=Habits)
    """How files are written where there is no example."""
    layout: Callable[[Sequence[Stored], int], dict[str, Any]] | None = None
    """How so many files share the tensors; None where their number cannot be chosen."""
    beside: Callable[[Path, Path, Any], str] = language_tokenizer
    """Writes what else the result needs, from both folders and the config; returns a sentence on it."""
    hint: str = CAUSAL_HINT
    """What to do with the result, at ``{output}``."""

    def unused(self, name: str) -> str | None:
        """Why ours has no place for an official tensor; None if it has, or if the tensor is unknown."""
        return next((why for pattern, why in self.computed.items() if re.fullmatch(pattern, name)), None)
