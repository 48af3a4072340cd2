"""Lets ``python -m llama_adapter`` stand in for the ``llama-adapter`` command."""

import sys

from llama_adapter.cli import main

if __name__ == "__main__":
    sys.exit(main())
