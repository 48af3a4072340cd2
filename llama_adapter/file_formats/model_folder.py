"""The files of a Hugging Face folder, looked at before a library reads them.

Libraries meet damage deep inside, in words of their own, or go on without the file. Here each file is known
by its name, so that the message can name it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.file_formats.json_file import read_object
from llama_adapter.file_formats.safetensors_file import read_shapes
from llama_adapter.file_formats.torch_file import check_torch_file

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def check_model_files(folder: str | Path) -> None:
    """Look at settings and weights of a model; a name on the hub has no files yet.

    Raises:
        UserError: one is damaged, or the index names a file that is not there.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        return
    check_settings(folder)
    for path in _weight_files(folder):
        (read_shapes if path.suffix == ".safetensors" else check_torch_file)(path)


def check_settings(folder: str | Path) -> None:
    """Look at the settings of a model.

    Raises:
        UserError: a file is damaged, or a setting of another type.
    """
    folder = Path(folder).expanduser()
    _check_settings(folder / "config.json", {"model_type": (str,), "architectures": (list, type(None))})
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
    _check_settings(folder / "generation_config.json", dict.fromkeys(tokens, (int, list, type(None))))


def check_tokenizer_files(folder: str | Path) -> None:
    """Look at the files of a tokenizer; a name on the hub has none yet.

    Raises:
        UserError: one is damaged.
    """
    for name in _TOKENIZER:
        _check_settings(
            Path(folder).expanduser() / name, {"model": (dict,), "chat_template": (str, list, dict)}
        )
    pieces = Path(folder).expanduser() / "tokenizer.model"
    if pieces.is_file() and not pieces.stat().st_size:
        raise UserError(f"{str(pieces)!r} is empty. Use a fresh copy.")


def check_adapter_files(folder: str | Path) -> None:
    """Look at settings and weights of a PEFT adapter.

    Raises:
        UserError: one is damaged, or there are no weights.
    """
    folder = Path(folder)
    _check_settings(folder / "adapter_config.json", {"peft_type": (str,)}, needed=("peft_type",))
    checks: Mapping[str, Callable[[Path], Any]] = {
        "adapter_model.safetensors": read_shapes,
        "adapter_model.bin": check_torch_file,
    }
    found = [name for name in checks if (folder / name).is_file()]
    if not found:
        raise UserError(
            f"The adapter folder {str(folder)!r} has no {' or '.join(checks)}. Use a complete copy of it."
        )
    checks[found[0]](folder / found[0])


def _check_settings(path: Path, types: Mapping[str, tuple[type, ...]], needed: tuple[str, ...] = ()) -> None:
    """Check a file of settings, where it is there, and the types of some of them.

    Raises:
        UserError: it is damaged, or a setting is of another type.
    """
    if not path.is_file():
        return
    content = read_object(path)
    if missing := [name for name in needed if name not in content]:
        raise UserError(f"{str(path)!r} has no {missing[0]!r}. Use the file that was saved with the weights.")
    for name, allowed in types.items():
        if name in content and (type(content[name]) is bool or not isinstance(content[name], allowed)):
            raise UserError(
                f"{str(path)!r} has {name}={content[name]!r}, a {type(content[name]).__name__}. "
                f"Use {' or '.join(kind.__name__ for kind in allowed if kind is not type(None))}."
            )


def _weight_files(folder: Path) -> Iterator[Path]:
    """The files that transformers would read, of the first kind that is there; those of an index, if any.

    Raises:
        UserError: the index is damaged, or names a file that is not there.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        whole, index = folder / f"{stem}.{suffix}", folder / f"{stem}.{suffix}.index.json"
        if whole.is_file():
            yield whole
            return
        if not index.is_file():
            continue
        names = read_object(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise UserError(f"{str(index)!r} has no weight_map of names to files. Use a fresh copy.")
        for name in sorted(set(names.values())):
            if not (folder / name).is_file():
                raise UserError(f"{str(index)!r} names {name!r}, which is not there. Use a complete copy.")
            yield folder / name
        return
