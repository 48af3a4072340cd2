"""The `generate` verb: where prompts come from and where answers go.

Answers go to standard output, everything else to standard error, so that a pipe gets only text. Files are
written row by row, so an interrupted run keeps what it has.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from transformers.utils.logging import disable_progress_bar

from llama_adapter.data import Turn
from llama_adapter.data.images import read_image
from llama_adapter.data.reading import Habits
from llama_adapter.errors import UserError
from llama_adapter.generation.chat import Chat
from llama_adapter.generation.config import GenerateConfig
from llama_adapter.generation.prompts import Prompt, read_prompts, unread_line, with_system
from llama_adapter.generation.session import BASE, Session, check_images, check_names, name_adapters
from llama_adapter.media import as_shown, read_inputs


def run(config: GenerateConfig) -> int:
    """Answers what the settings ask for and returns the exit code."""
    stdout, stderr = Console(highlight=False), Console(stderr=True, highlight=False)
    prompts = _prompts(config)  # before the model is loaded: a wrong file is told at once
    if unread := unread_line(prompts):
        stderr.print(f"{config.prompt_file}: {unread}", markup=False)
    folders = name_adapters(config.adapter)
    check_names(prompts, [*folders, BASE])
    chosen = config.use or next(iter(folders), BASE)
    check_images(prompts, folders, chosen, config.base, config.several_images)
    if config.output is not None:
        check_writable(Path(config.output))
    if not stderr.is_terminal:
        disable_progress_bar()
    session = Session(config)
    stderr.print(f"{session.current}, template {session.generator().template_name}", markup=False)

    def write(text: str) -> None:
        stdout.out(text, end="", highlight=False)

    if config.interactive:
        Chat(session, write, as_shown(read_inputs(config.inputs))).run(lambda: stdout.input("> "))
    elif config.output is not None:
        write_answers(session, prompts, Path(config.output), stderr)
    elif config.prompt_file is not None:
        for prompt, answer in _answers(session, prompts, stderr):
            write(f"> {prompt.turns[-1].full_text}\n{answer}\n\n")
    else:
        for prompt in prompts:
            session.generator().stream(prompt.turns, config, write, prompt.image)
            write("\n")
    return 0


def write_answers(session: Session, prompts: Sequence[Prompt], path: Path, console: Console) -> None:
    """Writes one JSON line per prompt: id (its own or its place), prompt, answer, adapter, perhaps image."""
    with path.open("w", encoding="utf-8") as lines:
        for prompt, answer in _answers(session, prompts, console):
            row = {
                "id": prompt.place if prompt.id is None else prompt.id,
                "prompt": prompt.turns[-1].full_text,
                "answer": answer,
                "adapter": prompt.adapter or session.current,
                **({} if prompt.image is None else {"image": str(prompt.image)}),
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            lines.flush()
    console.print(f"{len(prompts)} answers in {path}", markup=False)


def _answers(session: Session, prompts: Sequence[Prompt], console: Console) -> Iterator[tuple[Prompt, str]]:
    """Each prompt with its answer, batch by batch, under a progress bar."""
    size = session.config.batch_size
    starts = range(0, len(prompts), size)
    for start in track(starts, "Answering", console=console, disable=not console.is_terminal):
        batch = prompts[start : start + size]
        yield from zip(batch, session.answer(batch), strict=True)


def _prompts(config: GenerateConfig) -> list[Prompt]:
    """What is to be answered; nothing for a chat."""
    if config.prompt_file is not None:
        habits = Habits(tuple(config.columns.items()), config.media_name, config.marks, tuple(config.ignore))
        return read_prompts(Path(config.prompt_file), config.system, habits)
    prompts = []
    inputs = read_inputs(config.inputs)
    for number, text in enumerate(config.prompt):
        image = as_shown([inputs[number]] if config.one_image_each else inputs)
        if isinstance(image, str):
            read_image(image)
        turns = with_system([Turn("user", text)], config.system)
        prompts.append(Prompt(f"prompt:{number + 1}", turns, image=image))
    return prompts


def check_writable(path: Path) -> None:
    """Makes the output's folder, before time is spent on answers.

    Raises:
        UserError: the path is a folder, or its folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output is {str(path)!r}: {error}. Use a folder that can be written.") from error
    if path.is_dir():
        raise UserError(f"output is {str(path)!r}, a folder. Use the name of a file.")
