"""What a model is shown beside a text: the items, and the names by which records carry them.

Loads neither torch nor a package that opens files. What becomes of an item is the business of the models'
own packages.
"""

from llama_adapter.media.files import as_file
from llama_adapter.media.item import (
    MODALITIES,
    MediaItem,
    Mix,
    Mixing,
    SeveralImages,
    as_shown,
    read_input,
    read_inputs,
)
from llama_adapter.media.names import (
    MARKS,
    FoundMedia,
    find_media,
    marks_in,
    names_media,
    part_media,
    part_modality,
)

__all__ = [
    "MARKS",
    "MODALITIES",
    "FoundMedia",
    "MediaItem",
    "Mix",
    "Mixing",
    "SeveralImages",
    "as_file",
    "as_shown",
    "find_media",
    "marks_in",
    "names_media",
    "part_media",
    "part_modality",
    "read_input",
    "read_inputs",
]
