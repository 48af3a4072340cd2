"""Task types of a package that is built on this one: their records, instructions and answers.

A record of a task, such as a box in a picture and what it shows, becomes a question and an answer in words.
How, says a package that knows the model's pictures; it stands here as text and is imported when a source has
a task.
"""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_adapter.data.config import TaskConfig
from llama_adapter.data.formats import Format
from llama_adapter.errors import UserError

TASKS = "sphinx_ft.tasks"
"""Module with ``plan_task(settings, own)``, ``task_reader(plan)`` and ``TASK_KEYS``."""


def plan_task(config: TaskConfig) -> dict[str, Any]:
    """All that decides what the records of a task become, as JSON holds it.

    Raises:
        UserError: the task is unknown, or its file of instructions cannot be read.
    """
    own = None
    if config.instructions is not None:
        path = Path(config.instructions).expanduser()
        if not path.is_file():
            raise UserError(f"instructions is {config.instructions!r}, which is no file. Check the path.")
        own = path.read_text(encoding="utf-8")
    plan: dict[str, Any] = importlib.import_module(TASKS).plan_task(asdict(config), own)
    return plan


def task_format(plan: Mapping[str, Any]) -> Format:
    """The format of a task's records, out of ``plan_task``."""
    tasks = importlib.import_module(TASKS)
    return Format(plan["name"], (), tasks.task_reader(plan), also=tuple(tasks.TASK_KEYS[plan["name"]]))
