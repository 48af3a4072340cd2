"""PEFT's own tests with this project's method in the place of LoRA; see ``__main__.py``."""
