"""Imports on demand: at once, later, exactly once, and without changing the module."""

import importlib
import importlib.util
import inspect
import subprocess
import sys
import threading

import pytest

from llama_adapter.errors import UserError
from llama_adapter.lazy import lazy_attributes, needed, when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that was never imported; its name."""
    name = "late_module"
    (tmp_path / f"{name}.py").write_text("order = ['module']\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield name
    sys.meta_path[:] = finders
    sys.modules.pop(name, None)


def test_action_waits_for_the_import_and_runs_once_behind_the_modules_code(module):
    seen = []
    when_imported(module, lambda: seen.append(sys.modules[module].value))
    assert seen == []
    imported = __import__(module)
    assert seen == [3]
    __import__(module)
    assert seen == [3]
    assert type(imported.__loader__).__name__ == "SourceFileLoader"
    assert imported.__spec__.loader is imported.__loader__


def test_two_actions_both_run(module):
    seen = []
    when_imported(module, lambda: seen.append("first"))
    when_imported(module, lambda: seen.append("second"))
    __import__(module)
    assert sorted(seen) == ["first", "second"]


@pytest.mark.parametrize("probes", [1, 3])
def test_a_look_whether_the_module_is_there_uses_nothing_up(module, probes):
    seen = []
    when_imported(module, lambda: seen.append("first"))
    when_imported(module, lambda: seen.append("second"))
    for _ in range(probes):
        assert importlib.util.find_spec(module).origin.endswith(f"{module}.py")
    assert seen == []
    __import__(module)
    assert sorted(seen) == ["first", "second"]
    assert not any(getattr(finder, "module", None) == module for finder in sys.meta_path)


def test_a_probed_spec_serves_as_the_ordinary_one_does(module):
    when_imported(module, lambda: None)
    spec = importlib.util.find_spec(module)
    assert "value = 3" in spec.loader.get_source(module)
    assert spec.loader.is_package(module) is False
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.value == 3
    assert "value = 3" in inspect.getsource(made)


def test_a_module_that_fails_is_waited_for_again(module, tmp_path):
    source = tmp_path / f"{module}.py"
    good = source.read_text()
    source.write_text("raise ImportError('not yet')\n")
    seen = []
    when_imported(module, lambda: seen.append(1))
    with pytest.raises(ImportError, match="not yet"):
        __import__(module)
    assert seen == []
    source.write_text(good + "# longer, so that no stale bytecode is taken\n")
    importlib.invalidate_caches()
    __import__(module)
    assert seen == [1]


def test_threads_that_import_at_once_act_once(module):
    seen = []
    when_imported(module, lambda: seen.append(threading.get_ident()))
    start = threading.Barrier(8)

    def load():
        start.wait()
        importlib.util.find_spec(module)
        assert __import__(module).value == 3
        assert seen, "nobody sees the module before the action is over"

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


def test_submodules_are_waited_for_too(tmp_path, monkeypatch):
    package = tmp_path / "late_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("value = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    when_imported("late_package.part", lambda: seen.append(sys.modules["late_package.part"].value))
    assert importlib.util.find_spec("late_package.part") is not None
    importlib.import_module("late_package.part")
    assert seen == [5]
    sys.modules.pop("late_package.part")
    sys.modules.pop("late_package")


def test_action_runs_at_once_when_the_module_is_there(module):
    __import__(module)
    seen = []
    when_imported(module, lambda: seen.append(1))
    assert seen == [1]


def test_other_and_missing_modules_are_untouched(module):
    when_imported("no_such_module_at_all", lambda: pytest.fail("must not run"))
    __import__(module)
    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_at_all")


def test_lazy_attributes_load_on_first_use_and_refuse_others(module):
    attribute = lazy_attributes("package", {"value": module})
    assert module not in sys.modules
    assert attribute("value") == 3
    with pytest.raises(AttributeError, match="'package' has no attribute 'valeu'. Use one of: \\['value'\\]"):
        attribute("valeu")


def test_importing_generation_settings_loads_no_torch(repository):
    use = "from llama_adapter.generation import SamplingConfig; SamplingConfig()"
    script = f"import sys; {use}; sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], check=False, timeout=120, cwd=repository)
    assert result.returncode == 0


def test_a_missing_package_prints_the_line_that_installs_it():
    with pytest.raises(UserError, match=r"package 'sight', .*pip install 'llama-adapter\[vision\]'"):
        needed("sight_that_is_not_there", "sight")
    with pytest.raises(UserError, match=r"Sounds need the package 'ear', .*llama-adapter\[audio\]'"):
        needed("ear_that_is_not_there", "ear", "Sounds", "audio")


def test_a_package_that_is_there_is_imported():
    assert needed("PIL.Image", "pillow").__name__ == "PIL.Image"
