"""The PEFT method ``zero_init``: gated prompts, linear deltas and norm tuning on a frozen model."""
