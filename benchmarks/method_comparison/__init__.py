"""The field's public table, PEFT's method_comparison/MetaMathQA: our entries for it, and the same in small.

``experiments/`` has the table's own layout: ``METHOD/NAME/adapter_config.json`` and ``training_params.json``.
The entries for Llama-3.2-3B are for a GPU and PEFT's script; those for SmolLM2 are run here on GSM8K, by
``python -m benchmarks.method_comparison``, and leave results in the table's JSON format.
"""
