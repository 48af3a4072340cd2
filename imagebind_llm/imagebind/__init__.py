"""The ImageBind model: one transformer per modality, all ending in one space."""
