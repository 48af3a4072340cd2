"""Quantised bases: frozen linear maps in 4 or 8 bits, through bitsandbytes or torchao.

One switch, two libraries. What is unusual: after loading every linear map is looked at, so that a base that
was asked for in 4 bits and came in 16 is an error; and bitsandbytes' repacking of 4-bit weights for fast CPU
inference is switched off, because no gradient passes the repacked ones and the first evaluation would end the
training in silence. Only weights are quantised, embeddings, norms and the output embedding stay as they are.
Adapters and training are not known here.
"""

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from llama_adapter.errors import UserError

_log = logging.getLogger(__name__)

Quantization: TypeAlias = Literal["none", "nf4", "int8", "fp8"]
"""How the weights of linear maps are kept: ``nf4`` 4-bit NormalFloat in blocks of 64 (with quantised block
scales), ``int8`` and ``fp8`` 8 bits with a scale per output row, ``none`` as the base's dtype."""

QuantizationBackend: TypeAlias = Literal["auto", "bitsandbytes", "torchao"]
"""The library that does it."""

_KINDS = {"bitsandbytes": ("nf4", "int8"), "torchao": ("int8", "fp8")}
_MIB = 2**20


@dataclass(frozen=True)
class QuantizationReport:
    """What became of a base's weights."""

    method: str
    """Kind and library."""
    quantised: int
    """Linear maps that are quantised."""
    bytes_before: int
    """Size of all weights in the base's dtype."""
    bytes_after: int
    """Size of all weights as they are."""

    def __str__(self) -> str:
        """One line for a table."""
        return (
            f"{self.method}, {self.quantised} linear maps, weights {self.bytes_before / _MIB:,.0f} MiB -> "
            f"{self.bytes_after / _MIB:,.0f} MiB"
        )


def choose_backend(kind: Quantization, asked: QuantizationBackend, on_gpu: bool) -> str:
    """The library for a kind of quantisation.

    ``auto`` takes bitsandbytes for ``nf4`` and on GPUs, torchao for the rest: on a CPU bitsandbytes' int8
    rounds activations too.

    Raises:
        UserError: the library does not offer this kind, or is not installed.
    """
    preferred = "bitsandbytes" if kind == "nf4" or (kind == "int8" and on_gpu) else "torchao"
    backend = preferred if asked == "auto" else asked
    if kind not in _KINDS[backend]:
        other = next(name for name, kinds in _KINDS.items() if kind in kinds)
        raise UserError(
            f"base.quantization={kind!r} is not offered by {backend!r}, which has {list(_KINDS[backend])}. "
            f"Use base.quantization_backend={other!r} or auto."
        )
    if find_spec(backend) is None:
        raise UserError(
            f"base.quantization={kind!r} needs {backend!r}, which is not installed. "
            "Use `pip install llama-adapter[quant]`."
        )
    return backend


def quantization_config(kind: Quantization, backend: str, saved: Any, dtype: str) -> Any:
    """The settings object that ``from_pretrained`` takes; 4-bit weights compute in the base's dtype.

    Args:
        kind: anything but ``none``.
        backend: one that offers it.
        saved: the base's configuration.
        dtype: that it is loaded in; ``auto`` for the saved one.

    Raises:
        UserError: the base is saved quantised.
    """
    if getattr(saved, "quantization_config", None) is not None:
        raise UserError(
            f"base.quantization={kind!r} was asked for, but {saved.name_or_path!r} is saved quantised. "
            "Set base.quantization to none to use it as it is."
        )
    compute_dtype = getattr(saved, "dtype", None) if dtype == "auto" else getattr(torch, dtype)
    if backend == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        if kind == "int8":
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype or torch.float32,
        )
    from torchao import quantization as torchao
    from transformers import TorchAoConfig

    return TorchAoConfig(
        torchao.Int8WeightOnlyConfig() if kind == "int8" else torchao.Float8WeightOnlyConfig()
    )


def finish_loading(model: nn.Module, kind: Quantization, backend: str) -> QuantizationReport:
    """Check that a loaded base is quantised, make it fit for training, and say what it takes.

    Raises:
        UserError: linear maps are not quantised although it was asked for.
    """
    kept = _not_to_convert(model)
    linear = {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or is_quantised(module)) and not name.startswith(kept)
    }
    plain = [name for name, module in linear.items() if not is_quantised(module)]
    if plain or not linear:
        what = f"{len(plain)} linear maps are not, such as {plain[0]!r}" if plain else "it has no linear map"
        raise UserError(
            f"base.quantization={kind!r} was asked for, but {type(model).__name__} came from {backend} "
            f"unquantised: {what}. Choose another base.quantization_backend, or none."
        )
    if backend == "bitsandbytes":
        _fit_for_training(linear.values())
    report = QuantizationReport(f"{kind} ({backend})", len(linear), *_sizes(model))
    _log.info("base: %s", report)
    return report


def is_quantised(module: nn.Module) -> bool:
    """Whether a map's weight is kept in fewer bits than it computes with."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return False
    state = getattr(weight, "quant_state", None)  # bitsandbytes, 4 bits
    codes = getattr(weight, "SCB", None)  # bitsandbytes, 8 bits
    return state is not None or codes is not None or _parts(weight) is not None


def weight_count(weight: Tensor) -> int:
    """Number of weights that a tensor stands for: packed ones hold several in an element."""
    state = getattr(weight, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else weight.numel()


def stored_bytes(tensor: Tensor) -> int:
    """Memory of a tensor, with the scales of a quantised one."""
    parts = _parts(tensor)
    if parts is not None:
        return sum(stored_bytes(part) for part in parts)
    state = getattr(tensor, "quant_state", None)
    scales = [getattr(tensor, "SCB", None)]
    while state is not None:
        scales += [state.absmax, state.code]
        state = state.state2  # the block scales' own scales
    size = tensor.numel() * tensor.element_size()
    return size + sum(scale.numel() * scale.element_size() for scale in scales if scale is not None)


def _sizes(model: nn.Module) -> tuple[int, int]:
    """Bytes of all weights in the base's dtype, and as they are."""
    weights = list(model.parameters())
    dtype = next((w.dtype for w in weights if w.dtype.is_floating_point and _parts(w) is None), torch.float32)
    before = sum(weight_count(weight) for weight in weights) * dtype.itemsize
    return before, sum(stored_bytes(weight) for weight in weights)


def _parts(tensor: Tensor) -> list[Tensor] | None:
    """The tensors that a quantised torchao tensor is made of; None for others."""
    if type(tensor) is nn.Parameter or not hasattr(tensor, "__tensor_flatten__"):
        return None
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]


def _not_to_convert(model: nn.Module) -> tuple[str, ...]:
    """Paths of modules that transformers leaves alone: the output embedding, those kept in fp32."""
    quantizer = getattr(model, "hf_quantizer", None)
    named = list(getattr(quantizer, "modules_to_not_convert", None) or [])
    head = getattr(model, "get_output_embeddings", lambda: None)()
    named += [name for name, module in model.named_modules() if module is head and name]
    return tuple(named)


def _fit_for_training(modules: Any) -> None:
    """Keep 4-bit weights as gradients can pass them, and bitsandbytes from repeating itself."""
    for module in modules:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Log filter: int8 maps say at every call that they cast their input."""
    return "inputs will be cast" not in record.getMessage()
