"""The one trainer: it knows a model only through its forward and its loss inputs."""
