"""The main job on an embedded task: a real pretrained LLaMA, adapted on a CPU in a few minutes."""
