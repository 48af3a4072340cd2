"""The Java programs that `pycocoevalcap` carries: its tokeniser, METEOR and SPICE, and whether they can run.

Java is never needed: the scores that papers agree on are computed without it. Unlike the package's own
wrapper this writes nothing into the installed package, and a line break inside a caption is a space, so
that captions cannot shift. It does not know scores.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from llama_adapter.errors import UserError

TOKENIZER_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
JARS = {
    "METEOR": ("meteor/meteor-1.5.jar",),
    "SPICE": (
        "spice/spice-1.0.jar",
        "spice/lib/stanford-corenlp-3.6.0.jar",
        "spice/lib/stanford-corenlp-3.6.0-models.jar",
    ),
}
"""Score -> the files it needs in the folder of pycocoevalcap."""

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""Tokens that the package leaves out."""


def package_folder() -> Path:
    """Where pycocoevalcap is installed.

    Raises:
        UserError: it is not installed.
    """
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("pycocoevalcap is missing. Install it: pip install 'llama-adapter[eval]'")
    return Path(next(iter(spec.submodule_search_locations)))


def why_not(score: str) -> str | None:
    """Why a score that needs Java cannot be computed; None when it can.

    Args:
        score: one of `JARS`.
    """
    if shutil.which("java") is None:
        return f"{score} was left out: there is no `java` on the PATH."
    missing = [jar for jar in JARS[score] if not (package_folder() / jar).is_file()]
    if not missing:
        return None
    return (
        f"{score} was left out: {missing[0]} is missing in {package_folder()}; "
        "pycocoevalcap.spice.get_stanford_models downloads it."
    )


def tokenize_with_java(texts: Sequence[str]) -> list[list[str]]:
    """Tokens by the package's Java program.

    Args:
        texts: captions.

    Returns:
        The tokens of each, without punctuation.

    Raises:
        UserError: Java is missing or fails.
    """
    if shutil.which("java") is None:
        raise UserError("tokenizer is 'java', but there is no `java` on the PATH. Use --tokenizer python.")
    lines = [" ".join(text.splitlines()) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.txt"
        file.write_text("\n".join(lines), encoding="utf-8")
        program = [
            "java",
            "-cp",
            str(package_folder() / TOKENIZER_JAR),
            "edu.stanford.nlp.process.PTBTokenizer",
        ]
        options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8", str(file)]
        done = subprocess.run([*program, *options], capture_output=True, check=False)
    rows = done.stdout.decode("utf-8", errors="replace").split("\n")
    if done.returncode or len(rows) < len(lines):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"Java's tokeniser failed: {said[-1] if said else 'no message'}. Use --tokenizer python."
        )
    rows = rows[: len(lines)]
    return [[token for token in row.split(" ") if token and token not in PUNCTUATION] for row in rows]
