"""Peak memory of `convert --kind meta-llama` on synthetic files, or of the way back, in its own process.

python -m tests.checkpoints.measure_memory [--layers 20] [--files 2] [--max-shard-gb 1] [--reverse]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

DIM, INNER, VOCABULARY, HEADS = 2048, 5632, 32000, 16
MIB = 2**20

_CHILD = """
import importlib, sys, threading, time
from pathlib import Path
from llama_adapter.checkpoints.convert import KINDS, ConvertConfig, convert
importlib.import_module(KINDS[sys.argv[4]].forward.partition(":")[0])
def kib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))
before, anonymous = kib("VmRSS"), [kib("RssAnon")]
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far, which a parent's may have been
def watch():
    while True:
        anonymous[0] = max(anonymous[0], kib("RssAnon"))
        time.sleep(0.005)
start = anonymous[0]
threading.Thread(target=watch, daemon=True).start()
config = ConvertConfig(kind=sys.argv[4], checkpoint=sys.argv[1], output=sys.argv[2])
config.max_shard_gb = float(sys.argv[3])
config.reverse = sys.argv[5:] == ["reverse"]
convert(config)
print("measured", before, kib("VmHWM"), start, anonymous[0])
"""


def write(folder, layers, files):
    """Synthetic files of a LLaMA in bfloat16."""
    params = {"dim": DIM, "n_layers": layers, "n_heads": HEADS, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(params))
    rows = {"wq": DIM, "wk": DIM, "wv": DIM, "w1": INNER, "w3": INNER}
    columns = {"wo": DIM, "w2": INNER}
    for index in range(files):
        share = {"norm.weight": torch.ones(DIM)}
        for name in ("tok_embeddings", "output"):
            share[f"{name}.weight"] = torch.zeros(VOCABULARY // files, DIM, dtype=torch.bfloat16)
        for layer in range(layers):
            for name, size in rows.items():
                block = "attention" if name[1] in "qkv" else "feed_forward"
                share[f"layers.{layer}.{block}.{name}.weight"] = torch.zeros(
                    size // files, DIM, dtype=torch.bfloat16
                )
            for name, size in columns.items():
                block = "attention" if name == "wo" else "feed_forward"
                share[f"layers.{layer}.{block}.{name}.weight"] = torch.zeros(
                    DIM, size // files, dtype=torch.bfloat16
                )
            for norm in ("attention_norm", "ffn_norm"):
                share[f"layers.{layer}.{norm}.weight"] = torch.ones(DIM)
        torch.save(share, folder / f"consolidated.{index:02d}.pth")


def measured(kind, source, target, max_shard_gb=1.0, reverse=False):
    """Sizes in MiB and the time of one conversion; the first is that of the largest official file."""
    words = [sys.executable, "-c", _CHILD, str(source), str(target), str(max_shard_gb), kind]
    begin = time.perf_counter()
    run = subprocess.run(words + ["reverse"] * reverse, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    line = next(line for line in run.stdout.splitlines() if line.startswith("measured"))
    resident_before, resident, anonymous_before, anonymous = (int(word) / 1024 for word in line.split()[1:])
    official = target if reverse else source
    largest = max(path.stat().st_size for path in Path(official).glob("*.pth")) / MIB
    return {
        "largest file": largest,
        "resident above the imports": resident - resident_before,
        "of it anonymous": anonymous - anonymous_before,
        "resident share of the largest file": (resident - resident_before) / largest,
        "seconds": seconds,
    }


def measure(layers, files, max_shard_gb, reverse=False):
    """One conversion of synthetic files, or the way back from its result."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        (folder / "meta").mkdir()
        write(folder / "meta", layers, files)
        found = measured("meta-llama", folder / "meta", folder / "hf", max_shard_gb)
        if reverse:
            found = measured("meta-llama", folder / "hf", folder / "back", max_shard_gb, reverse=True)
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--max-shard-gb", type=float, default=1.0)
    parser.add_argument("--reverse", action="store_true")
    options = parser.parse_args()
    for name, value in measure(**vars(options)).items():
        sys.stdout.write(f"{name}: {value:.2f}\n")
