"""What a ScienceQA question is and how it is written: the same for training data and for evaluation."""

from llama_adapter.scienceqa.problem import Problem, problem_of
from llama_adapter.scienceqa.prompts import Format, OptionForm, build_answer, build_candidates, build_prompt

__all__ = [
    "Format",
    "OptionForm",
    "Problem",
    "build_answer",
    "build_candidates",
    "build_prompt",
    "problem_of",
]
