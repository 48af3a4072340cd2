"""The part of official files that conditions prompts: which tensors it has, of which shapes, and their names.

It turns features of an image, or of another input, into what is added to the prompts. A layout names the
``OfficialConditioner`` of its files; here is that of V2, whose tensors keep their official names. A
conversion keeps all of them beside the adapter, where ``load_conditioner`` reads them.

Dimensions: H hidden size of the LLaMA.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.checkpoints.way_back import differing
from llama_adapter.conditioning import ConditionerConfig
from llama_adapter.conditioning.files import read_settings
from llama_adapter.conditioning.visual_queries import (
    PUBLISHED_HEADS,
    VisualQueries,
    VisualQueriesConfig,
)


@dataclass(frozen=True, kw_only=True)
class OfficialConditioner:
    """One kind of conditioner in official files."""

    shapes: Callable[[NamedTensors, int], dict[str, tuple[int, ...]]]
    """From a file's tensors, of which a few say depth and widths, and the hidden size H: the shape of every
    tensor, by its official name."""
    settings: Callable[[NamedTensors], ConditionerConfig | None]
    """From a file's tensors: the settings to write down; None where they are read off shapes again."""
    ours: Callable[[str], str] = str
    """Our name of a tensor."""
    official: Callable[[str], str] = str
    """Its official name, from ours; a name that no such tensor has stays."""
    assumed: Callable[[NamedTensors], ConditionerConfig | None] | None = None
    """From a file's tensors: the settings that a reader takes, if not ``settings``; None where none fit."""
    remarks: Callable[[NamedTensors], list[str]] = lambda tensors: []
    """From a file's tensors: sentences on settings that they do not show."""
    training: frozenset[str] = frozenset({"initial_scale"})
    """Settings that concern first values alone."""

    def differences(self, tensors: NamedTensors, folder: Path, num_layers: int) -> dict[str, str]:
        """Settings of a folder's conditioner that an official file does not show, as ``differing`` has them.

        Args:
            tensors: the file's.
            folder: of the adapter; without settings of a conditioner it came from such a file.
            num_layers: of the language model.
        """
        saved = read_settings(folder, "conditioner")
        if saved is None:
            return {}
        early = saved.get("early_layers")
        ours = dict(saved) | ({"early_layers": None} if early is not None and early >= num_layers else {})
        read = (self.assumed or self.settings)(tensors)
        found = differing(ours, {} if read is None else asdict(read))
        return {f"conditioner.{name}": text for name, text in found.items() if name not in self.training}


def conditioner_shapes(tensors: NamedTensors, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of V2's visual part.

    Args:
        tensors: A file's tensors; depth and widths are read off a few of them.
        hidden_size: Hidden size H of the LLaMA.
    """
    config = replace(VisualQueriesConfig.of_tensors(tensors, num_heads=1), hidden_size=hidden_size)
    with torch.device("meta"):
        wanted = VisualQueries(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in wanted.items()}


def _assumed(tensors: NamedTensors) -> ConditionerConfig | None:
    """The settings with the heads of all published files; None where blocks have no room for them."""
    width = VisualQueriesConfig.of_tensors(tensors, num_heads=1).width
    return VisualQueriesConfig.of_tensors(tensors) if width % PUBLISHED_HEADS == 0 else None


def _on_heads(tensors: NamedTensors) -> list[str]:
    """What to say of the one setting that files do not show."""
    if _assumed(tensors) is None:
        return [
            f"Careful: visual blocks of this width cannot have {PUBLISHED_HEADS} heads, as those of all "
            "published files. Give theirs to load_conditioner(folder, num_heads)."
        ]
    return [f"Taken for granted, as in all published files: {PUBLISHED_HEADS} heads in the visual blocks."]


VISUAL_QUERIES = OfficialConditioner(
    shapes=conditioner_shapes, settings=lambda tensors: None, assumed=_assumed, remarks=_on_heads
)
"""V2's."""
