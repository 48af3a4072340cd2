"""What was asked for and is not active is an error or a warning, never silence.

Settings are checked twice: against the machine before anything is built (:func:`check_settings`), and against
what accelerate really set up afterwards (:func:`check_active`), because accelerate drops some requests
without a word. The checks do not know the model; what a model supports is said where it is loaded.
"""

import logging
import os
import shutil

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainingArguments
from transformers.utils import is_torch_tf32_available

from llama_adapter.errors import UserError

_log = logging.getLogger(__name__)

_INERT = {
    "do_train": "the command trains",
    "do_predict": "use `llama-adapter generate` on the saved adapter",
}
"""Fields of TrainingArguments that only transformers' example scripts read, and what to do instead."""


def _uses_cpu(args: TrainingArguments) -> bool:
    """Whether the run lands on the CPU, found without creating a device."""
    return args.use_cpu or not torch.accelerator.is_available()


def check_settings(args: TrainingArguments) -> None:
    """Check a request before ``TrainingArguments`` acts on it.

    Raises:
        UserError: When the machine cannot do what was asked, or two settings exclude each other.
    """
    _check_precision(args)
    _check_compile(args)
    if args.auto_find_batch_size and getattr(args, "base_learning_rate", None) is not None:
        raise UserError(
            f"auto_find_batch_size={args.auto_find_batch_size} changes the rows per step, "
            "from which base_learning_rate is scaled. Set learning_rate instead, or a fixed batch size."
        )
    for name, instead in _INERT.items():
        if getattr(args, name):
            _log.warning("%s=true has no effect here: %s.", name, instead)


def check_checkpointing(args: TrainingArguments) -> None:
    """Settle on one way of checkpointing, and not the reentrant one, which needs inputs with gradients.

    Raises:
        UserError: When the reentrant form was asked for, or two ways of checkpointing.
    """
    policy = getattr(args, "checkpointing", "none")
    by_fsdp = isinstance(args.fsdp_config, dict) and args.fsdp_config.get("activation_checkpointing")
    by_host = args.activation_checkpointing or by_fsdp
    if policy == "auto" and (by_host or args.torch_compile):
        args.checkpointing = "none"  # type: ignore[attr-defined]
    elif policy != "none" and by_host:
        raise UserError(
            f"checkpointing={policy!r} and activation_checkpointing were both asked for. "
            "Use one of them; checkpointing=layer is the same as activation_checkpointing=true."
        )
    if not args.activation_checkpointing:
        return
    asked = args.activation_checkpointing_kwargs
    if asked is not None and not isinstance(asked, dict):
        raise UserError(f"activation_checkpointing_kwargs is {asked!r}. Use a mapping, or leave it out.")
    given = dict(asked or {})
    if given.get("use_reentrant"):
        raise UserError(
            f"activation_checkpointing_kwargs={given} asks for reentrant checkpointing, "
            "which loses gradients below a frozen embedding. Leave use_reentrant out."
        )
    args.activation_checkpointing_kwargs = {**given, "use_reentrant": False}


def check_processes(args: TrainingArguments) -> None:
    """Refuse to be one of several processes that do not know each other: each would train, and overwrite.

    Raises:
        UserError: when a launcher started several processes and they formed no group.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and args.world_size == 1:
        raise UserError(
            f"A launcher started {started} processes (WORLD_SIZE), but this one would train alone on "
            f"{args.device.type}. Set use_cpu=true to train in CPU processes, or start without torchrun."
        )


def _check_precision(args: TrainingArguments) -> None:
    on_cpu = _uses_cpu(args)
    if args.fp16 and on_cpu:
        raise UserError(
            f"fp16={args.fp16} needs a GPU, and this run is on the CPU. "
            "Use bf16=true, or leave both out and choose the weights' precision with base.dtype."
        )
    if args.tf32 and not is_torch_tf32_available():
        raise UserError(
            f"tf32={args.tf32} needs an NVIDIA GPU of the Ampere generation or newer, and none is here. "
            "Leave tf32 out; bf16=true is what makes matrix products cheaper elsewhere."
        )
    if (args.bf16 or args.bf16_full_eval) and on_cpu and not args.use_cpu:
        # TrainingArguments takes bf16 on the CPU only when the CPU was asked for by name.
        args.use_cpu = True
    if (
        args.bf16
        and torch.cuda.is_available()
        and not args.use_cpu
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(
            f"bf16={args.bf16} is not supported by {torch.cuda.get_device_name()}. "
            "Use fp16=true, or leave both out for full precision."
        )


def _check_compile(args: TrainingArguments) -> None:
    wanted = args.torch_compile or args.torch_compile_backend or args.torch_compile_mode
    backend = args.torch_compile_backend or "inductor"
    if wanted and backend not in (known := torch.compiler.list_backends(exclude_tags=())):
        raise UserError(f"torch_compile_backend is {backend!r}. Use one of {', '.join(known)}.")
    if wanted and backend == "inductor" and _uses_cpu(args) and shutil.which("g++") is None:
        raise UserError(
            f"torch_compile={args.torch_compile} uses inductor, which needs a C++ compiler on the CPU, "
            "and g++ was not found. Install g++, or set torch_compile_backend=aot_eager."
        )


def check_active(args: TrainingArguments, accelerator: Accelerator) -> None:
    """Compare a request with what accelerate set up.

    Raises:
        UserError: When sharding or mixed precision was asked for and is not active.
    """
    active = accelerator.distributed_type
    if args.n_gpu > 1:
        raise UserError(
            f"One process sees {args.n_gpu} GPUs, and splitting a batch inside one process is not supported. "
            f"Start with `torchrun --nproc-per-node {args.n_gpu} -m llama_adapter train ...`, "
            "or choose one GPU with CUDA_VISIBLE_DEVICES=0."
        )
    if args.fsdp and active is not DistributedType.FSDP:
        raise UserError(
            f"fsdp={args.fsdp!r} was asked for, but accelerate runs {active.value} on "
            f"{accelerator.device.type}. FSDP needs several GPU processes (torchrun); "
            "leave fsdp out to train data-parallel."
        )
    if args.deepspeed and active is not DistributedType.DEEPSPEED:
        raise UserError(
            f"deepspeed={args.deepspeed!r} was asked for, but accelerate runs {active.value}. "
            "Start with torchrun or `accelerate launch`, and install deepspeed (`pip install deepspeed`)."
        )
    layout = accelerator.parallelism_config
    if layout is not None and (layout.cp_enabled or layout.sp_enabled):
        raise UserError(
            f"parallelism_config={layout} splits sequences over devices, which the loss here cannot add up. "
            "Use data parallelism, FSDP or tensor parallelism."
        )
    if args.mixed_precision != accelerator.mixed_precision:
        raise UserError(
            f"mixed precision {args.mixed_precision!r} was asked for, but accelerate uses "
            f"{accelerator.mixed_precision!r}. Remove ACCELERATE_MIXED_PRECISION from the environment, "
            "or ask for the same precision."
        )


def warn_about_loss_path(args: TrainingArguments) -> None:
    """Name settings whose fast path the trainer's own loss does not take."""
    if args.use_liger_kernel:
        _log.warning(
            "use_liger_kernel=true replaces norms and MLPs, but not the loss: the trainer computes that "
            "itself, over the labelled tokens only."
        )


def warn_about_16_bit_weights(model: nn.Module, accelerator: Accelerator) -> None:
    """Say that weights of 16 bits lose small updates, where nothing keeps them in fp32."""
    upcast = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    low = {p.dtype for p in model.parameters() if p.requires_grad} & {torch.bfloat16, torch.float16}
    if low and not (upcast and accelerator.mixed_precision != "no"):
        _log.warning(
            "Weights of %s are trained: updates below about a 250th of a weight are lost in bf16. "
            "Load the model in float32 (base.dtype), and set training.bf16=true to compute in bf16.",
            sorted(str(dtype) for dtype in low),
        )
