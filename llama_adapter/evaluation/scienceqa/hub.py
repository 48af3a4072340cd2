"""The Hugging Face version of ScienceQA: a saved folder, Parquet files, or the hub.

Pictures stay encoded; only whether there is one matters here. `datasets` is loaded when this is used. It does
not know what a question is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError


def hub_rows(source: str, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split.

    Args:
        source: folder of `save_to_disk`, folder or file of Parquet, or a hub name.
        split: `train`, `validation` (or `val`) or `test`.

    Raises:
        UserError: there is no such data set or split.
    """
    import datasets

    name = {"val": "validation"}.get(split, split)
    try:
        table = _load(source, name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{source!r} cannot be read as ScienceQA's {name!r} split: {str(error).splitlines()[0]} "
            "Use problems.json, a .jsonl file, Parquet, or a folder made by save_to_disk."
        ) from error
    if isinstance(table, dict):
        if name not in table:
            raise UserError(f"{source!r} has no split {name!r}. Use one of {sorted(table)}.")
        table = table[name]
    if "image" in table.column_names and isinstance(table.features["image"], datasets.Image):
        table = table.cast_column("image", datasets.Image(decode=False))
    yield from table


def _load(source: str, split: str) -> Any:
    """A data set, or several by split."""
    import datasets

    path = Path(source).expanduser()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    files = [path] if path.suffix == ".parquet" else sorted(path.rglob(f"{split}*.parquet"))
    if path.exists():
        if not files:
            raise UserError(f"{source!r} holds no {split}*.parquet. Choose a folder with Parquet files.")
        return datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    if source.startswith((".", "/", "~")) or source.endswith((".json", ".jsonl")):
        raise UserError(f"{source!r} does not exist. Check the path.")
    return datasets.load_dataset(source, split=split)
