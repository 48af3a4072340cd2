"""The one program, `llama-adapter VERB ...`: a static table of verbs, each loaded only when it runs.

Unusual: this file imports neither torch nor any verb, so that the overview appears at once. A verb is a
function that takes one settings dataclass and returns an exit code or nothing; another distribution adds
verbs through the entry-point group `llama_adapter.verbs`. Wrong input (`UserError`) is one message and exit
code 2; any other exception is Python's own traceback and exit code 1. What a verb does, this file does not
know.
"""

import difflib
import importlib
import sys
import typing
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_adapter.errors import UserError

ENTRY_POINT_GROUP = "llama_adapter.verbs"
PROGRAM = "llama-adapter"

EXIT_DONE = 0
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Verb:
    """One word of the command line and where its function lives."""

    name: str
    """What the user types; two words where a verb has several tasks."""
    target: str
    """`module:function`, imported when the verb runs."""
    summary: str
    """One line for the overview."""


VERBS = (
    Verb("demo", "llama_adapter.demo.run:demo", "fine-tune a real small model on a CPU in a few minutes"),
    Verb("train", "llama_adapter.training.run:train", "fine-tune an adapter as a YAML file describes"),
    Verb("generate", "llama_adapter.generation:generate", "answer a prompt, a file of prompts, or chat"),
    Verb(
        "generate-image",
        "imagebind_llm.generate_image:generate_image",
        "draw what pictures, sounds and texts have in common",
    ),
    Verb(
        "convert",
        "llama_adapter.checkpoints.convert:convert",
        "official checkpoint files to Hugging Face and PEFT, and back",
    ),
    Verb(
        "merge",
        "llama_adapter.checkpoints.merge:merge",
        "fold an adapter without prompts into a plain model",
    ),
    Verb("draw", "sphinx_ft.draw:draw", "boxes and points of answers, drawn into their pictures"),
    Verb("mix", "sphinx_ft.weight_mix.run:mix", "the weighted mean of models that are built alike"),
    Verb(
        "validate-data",
        "llama_adapter.data.validate:validate_data",
        "list every bad record with file and line",
    ),
    Verb(
        "plan",
        "llama_adapter.planning:plan",
        "memory, FLOPs and time of a run, and what fits, before loading",
    ),
    Verb("evaluate scienceqa", "llama_adapter.evaluation.scienceqa.task:scienceqa", "accuracy by class"),
    Verb(
        "evaluate coco-caption",
        "llama_adapter.evaluation.captions.task:coco_caption",
        "BLEU, ROUGE-L, CIDEr; METEOR and SPICE with Java",
    ),
    Verb("evaluate vqa", "llama_adapter.evaluation.vqa:vqa", "VQA accuracy"),
    Verb("evaluate refcoco", "llama_adapter.evaluation.refcoco:refcoco", "precision at IoU 0.5"),
    Verb("evaluate choice", "llama_adapter.evaluation.choice:choice", "exact match and multiple choice"),
    Verb("evaluate anls", "llama_adapter.evaluation.anls:anls", "DocVQA's ANLS"),
    Verb("evaluate relaxed", "llama_adapter.evaluation.relaxed:relaxed", "ChartQA's relaxed accuracy"),
    Verb("evaluate mme", "llama_adapter.evaluation.mme:mme", "perception and cognition scores"),
    Verb(
        "evaluate zero-shot",
        "imagebind_llm.zero_shot.task:zero_shot",
        "files of any modality, classified by names or examples",
    ),
    Verb("cache build", "imagebind_llm.cache.build:build", "encode pictures into a visual cache"),
    Verb(
        "cache index", "imagebind_llm.cache.build:index", "make the index of a visual cache, or another one"
    ),
    Verb("cache search", "imagebind_llm.cache.search:search", "the stored pictures nearest to files"),
    Verb("cache info", "imagebind_llm.cache.search:info", "what a visual cache holds"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: the words after the program's name; None takes them from `sys.argv`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if debug:
        words.remove("--debug")
    stderr = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        with warnings.catch_warnings():
            if not debug:  # what libraries say to their developers about each other
                warnings.filterwarnings("ignore", category=FutureWarning)
            return _dispatch(words)
    except UserError as error:
        if debug:
            stderr.print_exception()
        stderr.print(f"{PROGRAM}: {error}")
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        stderr.print(f"\n{PROGRAM}: interrupted.")
        return EXIT_INTERRUPTED


def known_verbs() -> dict[str, Verb]:
    """The built-in verbs and those of installed third parties, which cannot replace a built-in one."""
    found = {
        entry.name.replace(".", " "): Verb(
            entry.name.replace(".", " "),
            entry.value,
            f"from the package {entry.dist.name if entry.dist else '?'}",
        )
        for entry in entry_points(group=ENTRY_POINT_GROUP)
    }
    return found | {verb.name: verb for verb in VERBS}


def load_verb(verb: Verb) -> tuple[Callable[[Any], int | None], type]:
    """Imports a verb's function and finds the dataclass of its one argument.

    Raises:
        UserError: a third party's verb names a module or function that is missing, or has no typed argument.
    """
    module_name, _, function_name = verb.target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ModuleNotFoundError, AttributeError) as error:
        if verb in VERBS:
            raise
        raise UserError(
            f"The verb '{verb.name}' ({verb.summary}) cannot be loaded from '{verb.target}': {error}. "
            "Install that package again, or remove it."
        ) from error
    hints = typing.get_type_hints(function)
    hints.pop("return", None)
    if len(hints) != 1:
        raise UserError(
            f"The verb '{verb.name}' takes {sorted(hints)}. It must take one argument, a typed dataclass."
        )
    return function, next(iter(hints.values()))


def parse_verb(verb: Verb, arguments: Sequence[str]) -> tuple[Callable[[Any], int | None], Any]:
    """Loads a verb and parses its options, without running it."""
    from llama_adapter.arguments import parse

    function, settings = load_verb(verb)
    return function, parse(settings, arguments, program=f"{PROGRAM} {verb.name}")


def select(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that a command line begins with, and the words that are left.

    Raises:
        UserError: there is none, or a verb with several tasks stands without one of them.
    """
    verbs = known_verbs()
    name = " ".join(words[:2])
    if name in verbs and " " in name:
        return verbs[name], list(words[2:])
    tasks = [verb.split(" ")[1] for verb in verbs if verb.startswith(f"{words[0]} ")]
    if not tasks or words[0] in verbs:
        return find_verb(words[0]), list(words[1:])
    given = words[1] if len(words) > 1 else "no task"
    near = difflib.get_close_matches(given, tasks, n=1)
    advice = f"Did you mean '{near[0]}'?" if near else f"Use one of: {', '.join(tasks)}."
    raise UserError(f"'{words[0]}' has a task as its second word, but got '{given}'. {advice}")


def find_verb(name: str) -> Verb:
    """The verb of that name.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    verbs = known_verbs()
    if name in verbs:
        return verbs[name]
    names = list(dict.fromkeys(verb.split(" ")[0] for verb in verbs))
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"Did you mean '{near[0]}'?" if near else f"Use one of: {', '.join(names)}."
    raise UserError(f"'{name}' is not a verb. {advice} Run '{PROGRAM} --help' for all.")


def _dispatch(words: list[str]) -> int:
    """Runs the verb that comes first, or prints the overview or the version."""
    if not words or words[0] in ("-h", "--help", "help"):
        _print_overview(Console(soft_wrap=True))
        return EXIT_DONE if words else EXIT_WRONG_INPUT
    if words[0] == "--version":
        Console(highlight=False).print(f"{PROGRAM} {_version()}")
        return EXIT_DONE
    tasks = [verb for verb in known_verbs().values() if verb.name.startswith(f"{words[0]} ")]
    if tasks and words[1:] in (["-h"], ["--help"]):
        _print_verbs(Console(soft_wrap=True), tasks)
        return EXIT_DONE
    verb, rest = select(words)
    try:
        function, settings = parse_verb(verb, rest)
    except SystemExit as finished:  # --help and --print_config print, then leave
        return finished.code if isinstance(finished.code, int) else EXIT_DONE
    return function(settings) or EXIT_DONE


def _version() -> str:
    """The installed version; a checkout that was not installed has none."""
    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "(not installed)"


def _print_overview(console: Console) -> None:
    """Prints the verbs with a line each."""
    console.print(f"usage: {PROGRAM} VERB [CONFIG.yaml] [--option value ...]", markup=False, highlight=False)
    _print_verbs(console, known_verbs().values())
    console.print(f"'{PROGRAM} VERB --help' lists a verb's options.", markup=False, highlight=False)
    console.print("--debug shows tracebacks and libraries' warnings; --version the version.", highlight=False)


def _print_verbs(console: Console, verbs: Iterable[Verb]) -> None:
    """Prints a line per verb."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for verb in verbs:
        table.add_row(verb.name, verb.summary)
    console.print(table)
