"""What lies beside the adapter weights: a README that says how to load them.

PEFT does not discover plugins, so whoever loads the adapter must import this package first; the README starts
with that line. PEFT writes a README of its own on every save; it is replaced.
"""

from pathlib import Path

_CARD = """---
base_model: {base}
library_name: peft
tags:
- llama-adapter
---

# Adapter for {base}

```python
import llama_adapter
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```

The first import registers the adapter's PEFT method; without it PEFT does not know the type `{kind}`.

Prompt template: `{template}`. Ask it a question from the command line:

```
llama-adapter generate --base {base} --adapter {folder} --prompt "..."
```
"""


def write_card(folder: Path, base: str, kind: str, template: str | None) -> None:
    """Write ``README.md`` into an adapter's folder.

    Args:
        folder: Folder of the adapter.
        base: Name or path of the base model.
        kind: PEFT type of the adapter.
        template: Name of the prompt template it was trained with, if known.
    """
    text = _CARD.format(base=base, folder=folder.name, kind=kind, template=template or "not recorded")
    (folder / "README.md").write_text(text, encoding="utf-8")
