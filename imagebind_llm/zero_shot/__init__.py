"""Zero-shot classification: files of any modality get the class whose name or examples lie nearest."""
