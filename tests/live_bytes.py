"""How much memory of tensors is alive, counted at every operation."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages made while active: how many are alive, the most at once, the largest one.

    Not counted are those of ``known`` tensors.
    """

    def __init__(self, *known):
        super().__init__()
        self.live = self.peak = self.largest = 0
        self.seen = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return result

    def note(self, storage):
        key = storage._cdata
        if key in self.seen:
            return
        size = storage.nbytes()
        self.live += size
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, size)
        self.seen[key] = weakref.finalize(storage, self.gone, key, size)

    def gone(self, key, size):
        self.seen.pop(key, None)
        self.live -= size
