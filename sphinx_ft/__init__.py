"""SPHINX and SPHINX-X: a whole language model tuned on tokens of mixed visual encoders.

Importing this package loads no torch; its names load their modules when they are used.
"""

from llama_adapter.lazy import lazy_attributes

__all__ = ["ViewConfig"]

__getattr__ = lazy_attributes(__name__, {"ViewConfig": "sphinx_ft.views"})
