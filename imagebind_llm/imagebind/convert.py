"""`convert --kind imagebind`: the official ``imagebind_huge.pth`` <-> a folder for ``from_pretrained``.

Unusual: files of other sizes, or with a point encoder, are converted likewise; what a file does not say, such
as the number of heads, is the published model's, or what the config.json of ``--base`` says. Files differ
neither before nor after the fix of November 2025 to how long texts are cut: that is the processor's setting.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from imagebind_llm.imagebind.config import TOWER_CONFIGS, ImageBindConfig
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.imagebind.official_names import TEXT_MASK, official_tensors, text_mask
from imagebind_llm.processing.config import PROCESSOR_FILE, ProcessorConfig
from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.model_writer import write_model
from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.checkpoints.reading import CheckpointFile, read_checkpoint
from llama_adapter.checkpoints.report import ConversionReport, check_complete, summary
from llama_adapter.checkpoints.sidecar import Sidecar
from llama_adapter.checkpoints.way_back import check_way_back, differing
from llama_adapter.checkpoints.writing import new_file, new_folder
from llama_adapter.errors import UserError
from llama_adapter.file_formats.json_file import read_object
from llama_adapter.file_formats.safetensors_file import read_tensors

_OF_TRAINING = (".drop_path", ".head_dropout")
"""Settings that a pass outside training does not depend on."""
_ADVICE = (
    "Use the published file, or put a config.json with the sizes of this one into a folder and name it with "
    "--base."
)


def to_ours(config: ConvertConfig) -> int:
    """Convert an official file.

    Returns:
        The exit code.

    Raises:
        UserError: the file is damaged, lacks a tensor or holds unknown ones.
    """
    file = read_checkpoint(config.checkpoint, config.verify)
    settings = _settings(config, file)
    _check(file, settings)
    kept = {name: file.tensors[name].clone() for name in (TEXT_MASK,) if name in file.tensors}
    with new_folder(config.output, config.overwrite) as folder:
        _write_weights(folder, config, file, settings)
        settings.architectures = [ImageBindModel.__name__]
        settings.save_pretrained(folder)
        ProcessorConfig(keep_end_token=config.keep_end_token).save(folder)
        Sidecar(layout={"container": file.container, "names": list(file.tensors)}, tensors=kept).write(folder)
    report = ConversionReport(used=[name for name in file.tensors if name not in kept])
    if kept:
        report.set_aside["follows from the length of a text"] = list(kept)
    if file.beside:
        report.ignored["not the model's weights"] = sorted(file.beside)
    _print(report, config.output, settings)
    return 0


def _write_weights(
    folder: Path, config: ConvertConfig, file: CheckpointFile, settings: ImageBindConfig
) -> None:
    """Write our weights, one file after another; memory holds one of them."""
    names = official_tensors(shapes := _shapes(settings))
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype)
    plan = {
        ours: torch.empty(shape, dtype=dtype or file.tensors[names[ours].name].dtype, device="meta")
        for ours, shape in shapes.items()
    }
    settings.dtype = next(iter(plan.values())).dtype

    def make(wanted: Sequence[str]) -> NamedTensors:
        """The tensors of one output file, from the input mapped anew."""
        again = read_checkpoint(config.checkpoint, verify=False).tensors
        turned = {name: names[name].to_ours(again[names[name].name]) for name in wanted}
        return {name: tensor.to(plan[name].dtype).clone().contiguous() for name, tensor in turned.items()}

    write_model(folder, plan, make, int(config.max_shard_gb * 1e9))


def to_official(config: ConvertConfig) -> int:
    """Write an official file from a folder of ours.

    Returns:
        The exit code.

    Raises:
        UserError: the folder is none of ours, or lacks weights.
    """
    source = Path(config.checkpoint)
    settings = _read_config(source)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    remarks = _check_way_back(config, settings)
    tensors = _official_weights(source, settings, config.dtype)
    if "text" in settings.active:
        tensors[TEXT_MASK] = text_mask(settings.active["text"].length)  # type: ignore[attr-defined]
    sidecar = Sidecar.read(source) or Sidecar(layout={"container": "", "names": []})
    tensors |= sidecar.tensors
    listed = [name for name in sidecar.layout["names"] if name in tensors]
    ordered = {name: tensors[name].contiguous() for name in dict.fromkeys([*listed, *tensors])}
    container = sidecar.layout["container"]
    with new_file(config.output, config.overwrite) as path:
        torch.save({container: ordered} if container else ordered, path)
    console.print(f"Wrote {len(ordered)} tensors to {config.output}.")
    for remark in remarks:
        console.print(remark)
    return 0


def _check_way_back(config: ConvertConfig, settings: ImageBindConfig) -> list[str]:
    """Refuse settings that the file does not show and its reader would take for others.

    Args:
        config: whose ``base`` has the settings that the file will be read with; the published ones without.
        settings: of the model.

    Returns:
        Sentences on what the reader must be told.

    Raises:
        UserError: names the settings.
    """
    towers: Any = settings.towers
    active = {name: towers[name] for name in settings.active}
    described = ImageBindConfig(towers=dict.fromkeys(active, {})) if config.base is None else None
    if described is None:
        described = _read_config(Path(config.base or ""))
    read: Any = described.towers
    sizes = "embedding_size"
    found = differing(
        {"towers": active, sizes: settings.embedding_size},
        {"towers": {name: read.get(name) for name in active}, sizes: described.embedding_size},
    )
    if found and config.base is None and _other_shapes(settings, described):
        return [f"Sizes are not the published ones: read the file with --base {config.checkpoint}."]
    check_way_back(found, config.kind, aside=[name for name in found if name.endswith(_OF_TRAINING)])
    if not (Path(config.checkpoint) / PROCESSOR_FILE).is_file():
        return []
    processor = differing(asdict(ProcessorConfig.load(config.checkpoint)), asdict(ProcessorConfig()))
    if processor:
        return [f"Not in such files, how inputs are read: {'; '.join(processor.values())}."]
    return []


def _other_shapes(settings: ImageBindConfig, described: ImageBindConfig) -> bool:
    """Whether a reader with other settings would notice by the shapes of the tensors."""
    ours, read = _shapes(settings), _shapes(described)
    return any(read.get(name) != shape for name, shape in ours.items())


def _official_weights(source: Path, settings: ImageBindConfig, dtype: str) -> NamedTensors:
    """The weights of a folder in the official form.

    Raises:
        UserError: some are missing.
    """
    weights: NamedTensors = {}
    for path in sorted(source.glob("model*.safetensors")):
        weights |= read_tensors(path)
    shapes = _shapes(settings)
    check_complete(shapes, weights, str(source), "Use a folder that convert or save_pretrained wrote.")
    turned = {
        tensor.name: tensor.to_official(weights[name]) for name, tensor in official_tensors(shapes).items()
    }
    if dtype == "auto":
        return turned
    return {name: tensor.to(getattr(torch, dtype)) for name, tensor in turned.items()}


def _settings(config: ConvertConfig, file: CheckpointFile) -> ImageBindConfig:
    """The published settings of the modalities in the file, or those of ``--base``."""
    present = [
        name
        for name in TOWER_CONFIGS
        if any(key.startswith((f"modality_trunks.{name}.", f"{name}_trunk.")) for key in file.tensors)
    ]
    if not present:
        raise UserError(
            f"{config.checkpoint!r} holds no tower of ImageBind, but {summary(file.tensors)}. "
            "Use imagebind_huge.pth, or another --kind."
        )
    if config.base is None:
        return ImageBindConfig(towers={name: {} for name in present})
    described = _read_config(Path(config.base))
    absent = [name for name in present if name not in described.towers]  # type: ignore[operator]
    if absent:
        raise UserError(f"The config.json in {config.base!r} lacks towers {absent} of the file. {_ADVICE}")
    described.towers = {name: described.towers[name] for name in present}  # type: ignore[index]
    described.modalities = None
    return described


def _read_config(folder: Path) -> ImageBindConfig:
    """The settings in a folder.

    Raises:
        UserError: there are none, or they are another model's.
    """
    path = folder / "config.json"
    content = read_object(path, "Use a folder that convert or save_pretrained wrote.")
    if content.get("model_type") != ImageBindConfig.model_type:
        raise UserError(
            f"{str(path)!r} is that of a {content.get('model_type')!r} model. "
            "Use a folder of an ImageBind model."
        )
    config: ImageBindConfig = ImageBindConfig.from_dict(content)
    return config


def _shapes(settings: ImageBindConfig) -> dict[str, tuple[int, ...]]:
    """Our names and the shapes of the tensors."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in ImageBindModel(settings).state_dict().items()}


def _check(file: CheckpointFile, settings: ImageBindConfig) -> None:
    """Refuse a file that lacks tensors or holds unknown ones."""
    meta = {name: torch.empty(shape, device="meta") for name, shape in _shapes(settings).items()}
    wanted = {
        tensor.name: tuple(tensor.to_official(meta[name]).shape)
        for name, tensor in official_tensors(meta).items()
    }
    check_complete(wanted, file.tensors, str(file.path), _ADVICE)
    unknown = [name for name in file.tensors if name not in wanted and name != TEXT_MASK]
    if unknown:
        raise UserError(
            f"{str(file.path)!r} holds {len(unknown)} tensors that ImageBind does not have: "
            f"{summary(unknown)}. " + _ADVICE
        )


def _print(report: ConversionReport, output: str, settings: Any) -> None:
    """What became of the tensors, and what to do next."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    report.notes.append(f"Modalities: {', '.join(settings.active)}; width {settings.embedding_size}.")
    report.print(console)
    console.print(f"\nWrote {output}. Load it with imagebind_llm.ImageBindModel.from_pretrained({output!r}).")
