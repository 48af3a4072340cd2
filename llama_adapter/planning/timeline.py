"""Which tensors are alive, operator by operator, and what they are at the moment when they are most.

Unusual: memory is counted by storage, from the operator that creates it until the last tensor on it is gone,
so views, in-place operators, recomputation and what autograd keeps are all counted as they are. It works
on real and on fake tensors alike. It does not see what a kernel allocates inside itself, and it knows no
model: what storages are for is told by whoever runs the step.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, BUFFERS, GRADIENTS, OPTIMIZER = "weights", "buffers", "gradients", "optimizer"
ACTIVATIONS, LOGITS, CASTS, WORKING = "activations", "logits", "weight copies", "working memory"

PARTS = (WEIGHTS, CASTS, BUFFERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS, WORKING)
"""What memory is for. Activations were created in the forward pass, working memory after it; logits are all
tensors over the vocabulary; weight copies are weights that autocast turned into another type."""

_SMALL = 4096
"""Constants of up to so many elements keep their content, which a model may ask for."""

_FUSED_OPTIMIZERS = {f"aten::_fused_{name}_" for name in ("adam", "adamw", "sgd", "adagrad")}

_GROUPED = "aten::_grouped_mm"
"""Products of a mixture's experts; torch has their shapes in 16 bit only."""

_CREATED_IN = {"forward": ACTIVATIONS, "backward": WORKING, "optimizer": WORKING}


@dataclass(frozen=True)
class Peak:
    """The moment when most memory was in use."""

    parts: dict[str, int] = field(default_factory=dict)
    """Bytes by part, see ``PARTS``."""
    phase: str = ""
    """Where in the step: ``forward``, ``backward`` or ``optimizer``."""
    operator: str = ""
    """The operator that had just run."""

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.parts.values())


class MemoryTimeline(TorchDispatchMode):
    """While active, follows the storages that operators create.

    Args:
        vocabulary: size of the last dimension by which logits are known.
        fake: for a step without content: makes large constants that the model creates contentless too, and
            skips fused optimizers, which work in place and have no form without content.
    """

    def __init__(self, vocabulary: int, fake: FakeTensorMode | None = None) -> None:
        super().__init__()
        self._fake = fake
        self.vocabulary = vocabulary
        self.phase = "forward"
        """Set by whoever runs the step."""
        self.peak = Peak()
        """The highest moment so far."""
        self._parts: dict[int, tuple[str, int]] = {}
        self._watchers: dict[int, Any] = {}
        self._now: Counter[str] = Counter()

    def place(self, tensors: Iterable[Tensor], part: str) -> None:
        """Say what tensors are for, whether they were seen before or not."""
        for tensor in tensors:
            self._note(tensor, part, moving=True)

    def start(self) -> None:
        """Forget the highest moment so far: a step begins."""
        self.peak = Peak(self.now(), self.phase)

    def now(self, *parts: str) -> dict[str, int]:
        """Bytes in use at this moment, of these parts or of all."""
        return {part: size for part, size in self._now.items() if size and (not parts or part in parts)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator and notes the storages of what it returns."""
        if func is torch.ops.prim.device.default:  # a question that is asked for most tensors, no operator
            return func(*args)
        result = self._run(func, args, kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf, self._part_of(func, args, leaf))
        if sum(self._now.values()) > self.peak.total:
            self.peak = Peak(self.now(), self.phase, str(func))
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._fake is None:
            return func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not given:
            with self._fake:
                made = func(*args, **kwargs)
            if isinstance(made, Tensor) and made.is_floating_point() and made.numel() > _SMALL:
                return made
        elif func._schema.name in _FUSED_OPTIMIZERS:
            return None
        elif func._schema.name == _GROUPED and args[0].dtype == torch.float32:
            half = [leaf.bfloat16() if _is_float(leaf) else leaf for leaf in args]
            return func(*half, **kwargs).float()
        return func(*args, **kwargs)

    def _part_of(self, func: Any, args: tuple[Any, ...], created: Tensor) -> str:
        if func is torch.ops.aten._to_copy.default and self._known_part(args[0]) == WEIGHTS:
            return CASTS
        if created.dim() > 1 and created.shape[-1] == self.vocabulary and created.is_floating_point():
            return LOGITS
        return _CREATED_IN.get(self.phase, WORKING)

    def _known_part(self, tensor: Any) -> str | None:
        if not isinstance(tensor, Tensor):
            return None
        found = self._parts.get(tensor.untyped_storage()._cdata)
        return found[0] if found else None

    def _note(self, tensor: Tensor, part: str, moving: bool = False) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._parts.get(key)
        if known is None:
            self._parts[key] = part, storage.nbytes()
            self._now[part] += storage.nbytes()
            self._watchers[key] = weakref.ref(storage, partial(self._forget, key))
        elif moving:
            self._now[known[0]] -= known[1]
            self._now[part] += known[1]
            self._parts[key] = part, known[1]

    def _forget(self, key: int, _: Any) -> None:
        part, size = self._parts.pop(key)
        del self._watchers[key]
        self._now[part] -= size


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
