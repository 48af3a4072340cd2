"""From a task and a model to its scores: who is asked what, in which order, and what is written.

Everything that can be wrong with the questions is said before the model is loaded. Questions are asked in
batches of like length, the longest first, so that too large a batch fails at once. Scores of written answers
and of likelihoods stay in tables of their own. Which model answers is the predictor's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from transformers.utils.logging import disable_progress_bar

from llama_adapter.errors import UserError
from llama_adapter.evaluation.answer_file import AnswerFile
from llama_adapter.evaluation.options import MEASURES, OptionsConfig, check_candidates, likelihood_scores
from llama_adapter.evaluation.predictor import ModelPredictor, Predictor, check_media, sees_images, shown_as
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.question_media import is_there
from llama_adapter.evaluation.results import Scores, items_path, print_scores, write_results
from llama_adapter.evaluation.task import EvaluateConfig, Task
from llama_adapter.evaluation.values import listed
from llama_adapter.generation.run import check_writable
from llama_adapter.media import MediaItem

WRITTEN = "written"
"""Name of the scores of written answers among the tables."""

_MODEL_SETTINGS = (
    "base",
    "adapter",
    "use",
    "template",
    "system",
    "dtype",
    "quantization",
    "max_new_tokens",
    "temperature",
    "top_p",
    "repetition_penalty",
    "seed",
    "limit",
    "ignore_images",
)


def evaluate_model(
    task: Task, config: EvaluateConfig, console: Console, predictor: Predictor | None = None
) -> dict[str, Scores]:
    """Lets a model answer a task's questions, prints and writes its scores.

    Args:
        task: what to evaluate.
        config: which model, and where results go.
        console: for the tables.
        predictor: who answers; by default the model that the settings name.

    Returns:
        The tables: `written` answers, `likelihood`, `likelihood_per_character`, as asked for.

    Raises:
        UserError: a question cannot be asked, or a model or file cannot be used.
    """
    stderr = Console(stderr=True, highlight=False)
    questions = list(task.questions())
    wanted = _wanted(config, questions)
    if predictor is None:
        _check_shown(questions, config, sees_images(config))
        _check_files(questions, config)
        predictor = _load(config, questions, stderr)
    else:
        _check_shown(questions, config, predictor.sees_images)
    path = None if config.output is None else items_path(config.output)
    shown = _shown(questions, predictor.sees_images)
    file = AnswerFile(path, "" if path is None else predictor.identity, questions, shown)
    if WRITTEN in wanted:
        _write_answers(predictor, questions, file, config.batch_size, stderr)
    if len(wanted) > 1 or WRITTEN not in wanted:
        _score_candidates(predictor, questions, file, config.batch_size, stderr)
    tables = _tables(task, questions, file.rows, wanted, _note(questions, predictor.sees_images))
    for scores in tables.values():
        print_scores(scores, console)
    if config.output is not None:
        model = {name: getattr(config, name) for name in _MODEL_SETTINGS}
        content = _content(tables, {**model, "run": predictor.identity})
        items = write_results(content, _items(tables, file.rows), config.output)
        console.print(f"written: {Path(config.output)} and {items}", markup=False, soft_wrap=True)
    return tables


def _wanted(config: EvaluateConfig, questions: Sequence[Question]) -> tuple[str, ...]:
    """The tables that were asked for."""
    if config.output is not None:
        check_writable(Path(config.output).expanduser())
    score = config.score if isinstance(config, OptionsConfig) else "generated"
    if score == "generated":
        return (WRITTEN,)
    check_candidates(questions)
    return tuple(MEASURES) if score == "likelihood" else (WRITTEN, *MEASURES)


def _check_shown(questions: Sequence[Question], config: EvaluateConfig, sees_images: bool) -> None:
    """Refuses to ask a model blind, unless the user knows.

    Raises:
        UserError: names the questions.
    """
    if config.ignore_images:
        return
    pictured = [question.id for question in questions if question.has_image]
    if pictured and not sees_images:
        raise UserError(
            f"{len(pictured)} of {len(questions)} questions have a picture, which a text model does not see: "
            f"{listed(pictured)}. Use --ignore-images to ask them without it."
        )
    bare = [question.id for question in questions if not question.has_image and not question.has_none]
    if bare and sees_images:
        raise UserError(
            f"{len(bare)} of {len(questions)} questions name no picture for a model that sees: "
            f"{listed(bare)}. Use --media-field or --media-name where the records say it in another way, "
            f"--text-questions {len(bare)} if these have none by nature, or --ignore-images to ask without."
        )


def _check_files(questions: Sequence[Question], config: EvaluateConfig) -> None:
    """Refuses pictures that are no files, where they are to be shown.

    Raises:
        UserError: names the questions.
    """
    if config.ignore_images or not sees_images(config):
        return
    lost = [question.id for question in questions if question.has_image and not _has_files(question)]
    if lost:
        raise UserError(
            f"The pictures of {len(lost)} of {len(questions)} questions are no files here: {listed(lost)}. "
            "Use --images with their folder, or --ignore-images to ask without them."
        )
    check_media(config, questions)


def _has_files(question: Question) -> bool:
    """Whether all that is to be shown with a question is there."""
    named = [] if question.image is None else [MediaItem("image", question.image)]
    items = [*named, *question.inputs]
    return bool(items) and all(map(is_there, items))


def _load(config: EvaluateConfig, questions: Sequence[Question], stderr: Console) -> ModelPredictor:
    """The model, with a line that says which; with a feature cache also the features of all pictures."""
    if not stderr.is_terminal:
        disable_progress_bar()
    predictor = ModelPredictor(config)
    name, template = predictor.session.current, predictor.generator.template_name
    seeing = ", sees pictures" if predictor.sees_images else ""
    stderr.print(f"{name}, template {template}{seeing}", markup=False)
    predictor.prepare(questions)
    return predictor


def _write_answers(
    predictor: Predictor, questions: Sequence[Question], file: AnswerFile, batch_size: int, stderr: Console
) -> None:
    """Has the questions answered that are not yet."""
    left = [question for question in questions if "answer" not in file.rows[question.id]]
    for batch in _batches(predictor, questions, left, batch_size, "Answering", stderr):
        for question, answer in zip(batch, predictor.answer(batch), strict=True):
            file.add(question.id, answer=answer)


def _score_candidates(
    predictor: Predictor, questions: Sequence[Question], file: AnswerFile, batch_size: int, stderr: Console
) -> None:
    """Has the candidates scored that are not yet."""
    left = [q for q in questions if file.rows[q.id].get("candidates") != q.candidates]
    for batch in _batches(predictor, questions, left, batch_size, "Scoring options", stderr):
        for question, values in zip(batch, predictor.log_likelihoods(batch), strict=True):
            file.add(question.id, candidates=question.candidates, log_likelihoods=values)


def _batches(
    predictor: Predictor,
    questions: Sequence[Question],
    left: Sequence[Question],
    batch_size: int,
    title: str,
    stderr: Console,
) -> Any:
    """Batches of like length, the longest first, under a progress bar."""
    done = len(questions) - len(left)
    if done:
        stderr.print(f"{title}: {done} of {len(questions)} questions were done before", markup=False)
    ordered = sorted(left, key=predictor.length, reverse=True)
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return track(batches, title, console=stderr, disable=not stderr.is_terminal)


def _tables(
    task: Task,
    questions: Sequence[Question],
    rows: Mapping[str, Mapping[str, Any]],
    wanted: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Scores]:
    """The scores that were asked for, by name."""
    tables: dict[str, Scores] = {}
    if WRITTEN in wanted:
        tables[WRITTEN] = task.score({id: row["answer"] for id, row in rows.items()})
    if MEASURES.keys() & set(wanted):
        values = {id: row["log_likelihoods"] for id, row in rows.items()}
        tables |= likelihood_scores(task, questions, values)
    return {name: replace(scores, notes=[*scores.notes, *notes]) for name, scores in tables.items()}


def _shown(questions: Sequence[Question], sees_images: bool) -> dict[str, str]:
    """What is shown with each question, by its id."""
    return {q.id: shown_as(q) or "inside" for q in questions if q.has_image} if sees_images else {}


def _note(questions: Sequence[Question], sees_images: bool) -> list[str]:
    """What a reader must know of pictures, and of what else belongs to questions."""
    count, total = sum(question.has_image for question in questions), len(questions)
    other = any(item.modality != "image" for question in questions for item in question.inputs)
    what = "picture or other input" if other else "picture"
    if sees_images:
        rest = f"; the other {total - count:,} have none by nature" if count < total else ""
        return [f"{count:,} of {total:,} questions were asked with their {what}{rest}."]
    return (
        [f"{count:,} of {total:,} questions have a {what}, which the model was not shown."] if count else []
    )


def _content(tables: Mapping[str, Scores], model: Mapping[str, Any]) -> dict[str, Any]:
    """The file of scores; those of likelihoods stand under their own names, never as `scores`."""
    written = tables[WRITTEN].to_dict() if WRITTEN in tables else {}
    apart = {name: scores.to_dict() for name, scores in tables.items() if name != WRITTEN}
    return {**written, **apart, "model": dict(model)}


def _items(tables: Mapping[str, Scores], rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per question: prompt, answer, verdict, and what the likelihoods chose."""
    items = {id: {"id": id, **row} for id, row in rows.items()}
    for name, scores in tables.items():
        for item in scores.items:
            verdict = {key: value for key, value in item.items() if key not in ("id", "answer")}
            items[item["id"]] |= verdict if name == WRITTEN else {name: verdict}
    return list(items.values())
