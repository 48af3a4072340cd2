"""Runs PEFT's own tests of one release with this method in LoRA's place, and counts beside LoRA itself.

``make test-peft``. The tests come with PEFT's source distribution of the installed version, from the package
index, into a folder that git ignores; nothing of them is kept here. Models come from ``stand_ins.py``.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

from tests.peft_suite.settings import CONTROL, SETTINGS
from tests.peft_suite.stand_ins import write_stand_ins

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "peft-suite"
FILES = {
    "decoder": "test_decoder_models.py",
    "classification": "test_seq_classifier.py",
    "feature-extraction": "test_feature_extraction_models.py",
    "custom": "test_custom_models.py",
    "trainable-tokens": "test_trainable_tokens.py",
    "config": "test_config.py",
}
REFUSALS = {
    "prompts do not merge": "softmax of their own",
    "no place for prompts": "cannot carry prompts",
    "several stacks": "Set layer_stack to the one to adapt",
}
"""Column -> what the message of a refusal that is meant says."""


def main() -> int:
    """Run the chosen settings and files.

    Returns:
        1 if a test that LoRA passes failed for another reason than a refusal that is meant.
    """
    options = _options()
    tests = _fetch_tests(importlib.metadata.version("peft"))
    write_stand_ins(FOLDER / "hub")
    control = _run(tests, CONTROL, options)
    _print(CONTROL, control, control, options)
    unexpected = 0
    for setting in options.settings:
        outcomes = _run(tests, setting, options)
        _print(setting, outcomes, control, options)
        unexpected += _count(outcomes, control)["failed here alone"]
    return int(unexpected > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.peft_suite", description=__doc__)
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--select", default="", help="as pytest's -k, such as llama or 'not gradient'")
    parser.add_argument("--verbose", action="store_true", help="name the tests that failed here alone")
    return parser.parse_args()


def _fetch_tests(version: str) -> Path:
    """The tests of a PEFT release, in a package of their own."""
    package = FOLDER / f"peft_tests_{version.replace('.', '_')}"
    if package.is_dir():
        return package
    FOLDER.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(FOLDER), f"peft=={version}"], check=True)
    (archive,) = FOLDER.glob(f"peft-{version}.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(FOLDER / "source", filter="data")
    (FOLDER / "source" / f"peft-{version}" / "tests").rename(package)
    (package / "__init__.py").touch()
    return package


def _run(tests: Path, setting: str, options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Outcome of every test; a process of its own, since a setting changes what modules import."""
    results = FOLDER / "results.json"
    results.unlink(missing_ok=True)
    environment = os.environ | {
        "PEFT_SUITE_SETTING": setting,
        "PEFT_SUITE_RESULTS": str(results),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.peft_suite.plugin",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-c", os.devnull, "--rootdir", str(FOLDER), "--import-mode", "prepend", "-W", "ignore"]
    command += [str(tests / FILES[file]) for file in options.files]
    command += ["-k", options.select] if options.select else []
    done = subprocess.run(
        command, cwd=FOLDER / "hub", env=environment, capture_output=True, text=True, check=False
    )
    if not results.is_file():
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    found: dict[str, dict[str, str]] = json.loads(results.read_text(encoding="utf-8"))
    return found


def _count(outcomes: dict[str, dict[str, str]], control: dict[str, dict[str, str]]) -> Counter[str]:
    """How many tests went how, failures by their kind."""
    return Counter(_kind(name, outcome, control) for name, outcome in outcomes.items())


def _kind(name: str, outcome: dict[str, str], control: dict[str, dict[str, str]]) -> str:
    """How a test went, beside LoRA's on the same list."""
    if outcome["outcome"] != "failed":
        return outcome["outcome"]
    for column, message in REFUSALS.items():
        if message in outcome["why"]:
            return column
    return "failed as LoRA's" if control.get(name, {}).get("outcome") == "failed" else "failed here alone"


def _print(
    setting: str,
    outcomes: dict[str, dict[str, str]],
    control: dict[str, dict[str, str]],
    options: argparse.Namespace,
) -> None:
    """A line per file, and with ``--verbose`` the tests that failed here alone."""
    columns = ["passed", "skipped", *REFUSALS, "failed as LoRA's", "failed here alone"]
    for file in options.files:
        own = {name: outcome for name, outcome in outcomes.items() if FILES[file] in name}
        counts = _count(own, control)
        told = ", ".join(f"{counts[column]} {column}" for column in columns if counts[column])
        sys.stdout.write(f"{setting:26s} {file:20s} {told or 'no tests'}\n")
        if options.verbose:
            _explain(own, control)
    sys.stdout.flush()


def _explain(outcomes: dict[str, dict[str, str]], control: dict[str, dict[str, str]]) -> None:
    for name, outcome in outcomes.items():
        if _kind(name, outcome, control) == "failed here alone":
            sys.stdout.write(f"  {name.rpartition('/')[2]}\n    {outcome['why'].splitlines()[-1]}\n")


if __name__ == "__main__":
    sys.exit(main())
