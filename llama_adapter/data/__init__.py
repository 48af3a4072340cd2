"""From files to labelled token sequences: record -> turns -> tokens with a label mask -> batch."""

from llama_adapter.data.build import Datasets, build_datasets
from llama_adapter.data.collator import PaddingCollator
from llama_adapter.data.config import DataConfig, SourceConfig
from llama_adapter.data.containers import register_container
from llama_adapter.data.encoding import Encoder
from llama_adapter.data.formats import register_format
from llama_adapter.data.records import Turn
from llama_adapter.data.template_base import Template
from llama_adapter.data.templates import load_template

__all__ = [
    "DataConfig",
    "Datasets",
    "Encoder",
    "PaddingCollator",
    "SourceConfig",
    "Template",
    "Turn",
    "build_datasets",
    "load_template",
    "register_container",
    "register_format",
]
