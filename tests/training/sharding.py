"""Lets processes on a CPU shard as processes on GPUs do."""

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def shard_on_cpu():
    """Have accelerate, which looks at ``fsdp`` on GPUs alone, take it on a CPU, too."""
    original = AcceleratorState.__init__

    def init(self, *arguments, fsdp_plugin=None, **options):
        original(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        plugin = fsdp_plugin or self.__dict__.get("fsdp_plugin")
        if plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
            if self._mixed_precision != "no" and fsdp_plugin is not None:
                plugin.set_mixed_precision(self._mixed_precision)
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin

    AcceleratorState.__init__ = init
