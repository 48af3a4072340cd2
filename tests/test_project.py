"""The project's own files agree with each other."""

import re
import subprocess
import tomllib

import pytest
import yaml
from jaxtyping import TypeCheckError

from llama_adapter.cli import find_verb


@pytest.fixture
def pyproject(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_the_package_asks_for_ranges_and_leaves_upper_limits_to_the_constraints(pyproject, repository):
    asked = {re.split(r"[\[<>=!~]", entry)[0]: entry for entry in pyproject["project"]["dependencies"]}
    constrained = [
        re.split(r"[<>=!~]", line)[0]
        for line in (repository / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert "torch" in constrained
    assert all("==" not in entry for entry in asked.values())
    # a major release may be excluded: `<6`, but no minor one
    assert all(not re.search(r"<=?\d+\.", asked[name]) for name in constrained if name in asked)


def test_annotations_are_checked_at_every_call():
    with pytest.raises(TypeCheckError, match="find_verb"):
        find_verb(3)


def layers_of(pyproject, package):
    """The import rule of a package."""
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    (layers,) = [rule for rule in contracts if rule["type"] == "layers" and rule["containers"] == [package]]
    return layers


@pytest.mark.parametrize("package", ["llama_adapter", "imagebind_llm", "sphinx_ft"])
def test_every_module_has_its_place_in_the_import_rules(pyproject, repository, package):
    layers = layers_of(pyproject, package)
    placed = {name.strip() for line in layers["layers"] for name in line.split("|")}
    modules = {path.stem for path in (repository / package).glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (repository / package).glob("*/__init__.py")}
    assert modules | packages == placed
    assert layers["exhaustive"]


def test_architecture_page_shows_the_same_layers_and_every_module(pyproject, repository):
    page = (repository / "docs/architecture.md").read_text()
    layers = layers_of(pyproject, "llama_adapter")
    assert "\n".join(line for line in layers["layers"] if line != "__main__") in page
    for path in (repository / "llama_adapter").iterdir():
        name = path.name + ("/" if path.is_dir() else "")
        if not name.startswith(("_", ".", "py.typed")):
            assert f"\n  {name} " in page, f"{name} is missing in the tree of docs/architecture.md"


def test_every_target_of_the_makefile_is_explained(repository):
    makefile = (repository / "Makefile").read_text()
    (declared,) = re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    defined = set(re.findall(r"^([a-z][\w-]*):", makefile, flags=re.MULTILINE))
    assert set(declared.split()) == defined
    shown = subprocess.run(
        ["make", "help"], capture_output=True, text=True, check=True, cwd=repository
    ).stdout
    for target in ("demo", "test", "test-slow", "static", "check", "format", "hooks", "clean", "distclean"):
        assert f"make {target}" in shown


def test_continuous_integration_is_executable_and_valid(repository):
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


def test_hooks_run_local_tools_only(repository):
    repositories = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"]
    assert [entry["repo"] for entry in repositories] == ["local"]
    hooks = [hook for entry in repositories for hook in entry["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
