"""What a model consists of for its trainer: a language model with an adapter, and what goes with it.

An image-conditioned model also has a conditioner, which trains and is saved beside the adapter. This is the
only place that tells the two kinds of model apart; the rest asks for parts. It does not run them.
"""

from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from pathlib import Path

from peft import PeftModel
from torch import nn

from llama_adapter.conditioning import Conditioner, load_conditioner, save_conditioner
from llama_adapter.conditioning.files import read_settings
from llama_adapter.errors import UserError
from llama_adapter.models import parameter_counts
from llama_adapter.multimodal import ImageConditionedModel, save_encoder_settings
from llama_adapter.vision import VisionConfig

CONDITIONER = "conditioner"
"""Name of the part that brings images into prompts."""

_METHOD_PREFIX = "zero_init_"


@dataclass(frozen=True)
class TrainedParts:
    """The parts of a model."""

    language_model: nn.Module
    """What turns tokens into logits; has ``config`` and ``get_output_embeddings``."""
    conditioner: Conditioner | None = None
    """What turns features of images into conditions of its prompts, if there is one."""
    encoder: VisionConfig | None = None
    """What the features come from."""

    @classmethod
    def of(cls, model: nn.Module) -> "TrainedParts":
        """The parts of a model without wrappers."""
        if isinstance(model, ImageConditionedModel):
            return cls(model.language_model, model.conditioner, model.encoder_config)
        return cls(model)

    @property
    def adapter(self) -> PeftModel | None:
        """The language model, if PEFT saves and loads what was trained in it."""
        return self.language_model if isinstance(self.language_model, PeftModel) else None

    @property
    def adapter_names(self) -> set[str]:
        """Names of the adapters."""
        return set() if self.adapter is None else set(self.adapter.peft_config)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the parts that can train, by their names inside the part."""
        yield from self.language_model.named_parameters()
        if self.conditioner is not None:
            yield from self.conditioner.named_parameters(CONDITIONER)

    def trainable(self) -> dict[str, int]:
        """Number of trainable parameters of each part that has some."""
        parts = {"adapter": self.language_model, "conditioner": self.conditioner}
        counts = {name: parameter_counts(part)[0] for name, part in parts.items() if part is not None}
        return {name: count for name, count in counts.items() if count}

    def save_beside(self, folder: Path) -> None:
        """Write what belongs to a saved adapter into its folder."""
        if self.conditioner is not None:
            save_conditioner(self.conditioner, folder)
        if self.encoder is not None:
            save_encoder_settings(self.encoder, folder)

    def load_beside(self, folder: Path) -> None:
        """Read what ``save_beside`` wrote into the parts that are there.

        Raises:
            UserError: a file is missing or does not fit.
        """
        if self.conditioner is not None:
            self.conditioner.load_state_dict(load_conditioner(folder).state_dict())

    def check_same_beside(self, folder: Path) -> None:
        """Compare the conditioner of a checkpoint with the one that is to be trained on.

        Raises:
            UserError: they differ, or only one of the two is there.
        """
        saved = read_settings(folder, "conditioner") or {}
        wanted = {} if self.conditioner is None else asdict(self.conditioner.config)
        differing = [
            f"{name}: {saved.get(name)!r} there, {wanted.get(name)!r} here"
            for name in sorted(saved.keys() | wanted.keys())
            if saved.get(name) != wanted.get(name)
        ]
        if differing:
            raise UserError(
                f"The checkpoint {folder} holds another conditioner ({'; '.join(differing)}). "
                "Use the settings it was trained with, or choose another output_dir."
            )


def part_of(name: str, adapters: Set[str]) -> str | None:
    """The part of an adapter that a parameter belongs to, or the conditioner; None for the base.

    Args:
        name: path of the parameter.
        adapters: names of the adapters; without any, parts are the modules that a model consists of.
    """
    path = name.split(".")
    before = next((place for place, word in enumerate(path) if word in adapters and place > 0), None)
    if before is not None:
        return path[before - 1].removeprefix(_METHOD_PREFIX)
    return path[0] if not adapters or path[0] == CONDITIONER else None
