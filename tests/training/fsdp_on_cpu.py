"""FSDP on CPU processes: accelerate has it for accelerators only, and trains DDP without a word when asked.

Everything after the choice is accelerate's own: wrapping, mixed precision, clipping, state dicts. So only the
choice is changed, in tests.
"""

import contextlib
from unittest import mock

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


@contextlib.contextmanager
def fsdp_on_cpu():
    """Inside, trainers that ask for FSDP in CPU processes get it."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            PartialState._shared_state["distributed_type"] = self.distributed_type

    with mock.patch.object(AcceleratorState, "__init__", init):
        yield
