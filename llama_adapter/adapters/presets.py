"""Published combinations of parts, by name. Sources: docs/sources/llama-adapter.md#optimisation, #sizes."""

from typing import Any

_V2_MAPS = {"exclude": ["k_proj", "v_proj"]}
"""The V2 family puts biases on the query and output projections and the MLP, not on keys and values."""

PRESETS: dict[str, dict[str, Any]] = {
    "v1": {"prompt_length": 10, "prompt_layers": -2},
    "v2": {
        "prompt_length": 10,
        "prompt_layers": -1,
        "deltas": [{"kind": "output_scale", **_V2_MAPS}, {"kind": "bias", **_V2_MAPS}],
        "norms": True,
    },
    "v21": {
        "prompt_length": 10,
        "prompt_layers": -1,
        "new_gate": True,
        "deltas": [{"kind": "bias", **_V2_MAPS}, {"kind": "lora", "rank": 16}],
        "norms": True,
    },
    "chat": {"prompt_length": 0, "deltas": ["input_scale", "bias"], "norms": True},
    "imagebind": {
        "prompt_length": 1,
        "deltas": [{"kind": "bias", **_V2_MAPS}, {"kind": "lora", "rank": 16}],
        "norms": True,
    },
}
