"""Prints the support matrix, or writes it: ``python -m tests.adapters.matrix [--write FILE]``."""

import argparse
import sys
from pathlib import Path

from tests.adapters.matrix.table import page

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--write", type=Path, help="file to write instead of printing")
target = parser.parse_args().write
if target is None:
    sys.stdout.write(page())
else:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page())
