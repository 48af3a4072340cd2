"""What an official file has and our format has no place for, kept in one file beside the result.

A conversion writes it, the way back reads it; nothing else does. It is a safetensors file: left-over tensors
under their official names, and the facts of the layout as JSON in its metadata.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import reading
from llama_adapter.file_formats.safetensors_file import opened

SIDECAR_FILE = "official.safetensors"
_FORMAT = 1


@dataclass(kw_only=True)
class Sidecar:
    """Facts and tensors for the way back."""

    layout: dict[str, Any]
    """Facts about the official file, as JSON values; each kind of file has its own."""
    tensors: NamedTensors = field(default_factory=dict)
    """Tensors that the result does not hold, under their official names."""

    def write(self, folder: str | Path) -> None:
        """Write the file into ``folder``."""
        metadata = {"format": str(_FORMAT), "layout": json.dumps(self.layout)}
        save_file(self.tensors, Path(folder) / SIDECAR_FILE, metadata=metadata)

    @classmethod
    def read(cls, folder: str | Path) -> "Sidecar | None":
        """The sidecar of a folder; None where there is none.

        Raises:
            UserError: The file is damaged, or of a later format.
        """
        path = Path(folder) / SIDECAR_FILE
        if not path.is_file():
            return None
        advice = "Delete it, or convert again."
        with opened(path, advice) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if metadata.get("format") != str(_FORMAT):
            raise UserError(
                f"{str(path)!r} has format {metadata.get('format')!r}, this version reads {_FORMAT}. "
                "Install a newer one (`pip install -U llama-adapter`)."
            )
        with reading(path, "file of a conversion", advice):
            layout = json.loads(metadata["layout"])
        return cls(layout=layout, tensors=tensors)
