"""FSDP2 around every layer of an adapted model, in two processes on the CPU."""

from pathlib import Path


def test_sharded_equals_whole(run_python):
    program = Path(__file__).parent / "sharded.py"
    run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program)
