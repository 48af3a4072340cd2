"""What is shown runs: the commands, the YAML and the Python of the documentation, and the example files."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from llama_adapter.arguments import parse
from llama_adapter.cli import PROGRAM, find_verb, load_verb, select

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted(
    path
    for name in ("llama_adapter", "imagebind_llm", "sphinx_ft", "tests", "examples", "benchmarks")
    for path in (ROOT / name).rglob("*.py")
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted(path for kind in ("*.yaml", "*.yml") for path in (ROOT / "examples").rglob(kind))

# Stands in for a run's file where a page names one without showing it.
SMALLEST_RUN = """
base: {name_or_path: models/SmolLM2-135M-Instruct}
adapter: {prompt_length: 10}
data: {train: [{path: tasks.jsonl}]}
training: {output_dir: runs/tasks}
"""


def blocks(page, *languages):
    """The fenced code of a page in any of these languages."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def commands(page):
    """The words of every `llama-adapter ...` line of a page's shell blocks."""
    code = "\n".join(blocks(page, "bash", "sh", "shell", "console")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in code.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{PROGRAM} ")]


SHOWN = [(page, words) for page in PAGES for words in commands(page)]


def write_files(page, folder, words):
    """Writes the YAML files that a page shows (named in their first line), and a small one for others."""
    for code in blocks(page, "yaml"):
        if named := re.match(r"# (\S+\.ya?ml)\n", code):
            (folder / named.group(1)).write_text(code)
    for word in words:
        if word.endswith((".yaml", ".yml")) and not (folder / word).exists():
            shown = ROOT / word
            (folder / word).parent.mkdir(parents=True, exist_ok=True)
            (folder / word).write_text(shown.read_text() if shown.exists() else SMALLEST_RUN)


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=[f"{page.name}-{' '.join(words)[:60]}" for page, words in SHOWN]
)
def test_every_command_shown_is_accepted(page, words, tmp_path):
    write_files(page, tmp_path, words)
    verb, rest = select(words)
    _, settings = load_verb(verb)
    if {"--help", "--print_config"} & set(words):
        with pytest.raises(SystemExit, match="0"):
            parse(settings, rest, program=PROGRAM)
        return
    assert isinstance(parse(settings, rest, program=PROGRAM), settings)


def test_the_main_pages_show_commands():
    for page in (ROOT / "README.md", ROOT / "docs/cli.md"):
        assert len(commands(page)) >= 5


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_file_is_accepted(path):
    verb = (re.search(r"llama-adapter ([\w-]+)", path.read_text()) or [None, "train"])[1]
    _, settings = load_verb(find_verb(verb))
    parse(settings, [str(path)], program=PROGRAM)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_and_yaml_shown_are_well_formed(page):
    for code in blocks(page, "python"):
        ast.parse(code)
    for code in blocks(page, "yaml"):
        yaml.safe_load(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def anchors(page):
    """What the headings of a page are called in links, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_pages_and_headings_that_code_cites_exist():
    cited = [
        (path, page, anchor)
        for path in CODE
        for page, anchor in re.findall(r"(docs/[\w/.-]+\.md)(?:#([\w-]+))?", path.read_text())
    ]
    assert len(cited) > 40
    wrong = [
        f"{path.relative_to(ROOT)}: {page}#{anchor}"
        for path, page, anchor in cited
        if not (ROOT / page).is_file() or (anchor and anchor not in anchors(ROOT / page))
    ]
    assert wrong == []


def test_nothing_cites_a_document_that_is_not_here():
    elsewhere = re.compile(r"fact[ \n#]+sheet|DESIGN\.md|shared/reference", flags=re.IGNORECASE)
    files = [path for path in [*CODE, *PAGES] if path != Path(__file__)]
    assert [str(path.relative_to(ROOT)) for path in files if elsewhere.search(path.read_text())] == []
