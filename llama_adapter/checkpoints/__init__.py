"""Official checkpoint formats <-> Hugging Face models and PEFT adapters."""
