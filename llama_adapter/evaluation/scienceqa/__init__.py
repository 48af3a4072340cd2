"""ScienceQA: questions, prompts by name, and accuracy by class."""
