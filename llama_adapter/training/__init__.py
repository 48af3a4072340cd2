"""The one trainer: it knows a model only through its forward and its loss inputs."""

from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.run import TrainConfig, build_trainer, train
from llama_adapter.training.trainer import Trainer

__all__ = ["TrainConfig", "Trainer", "TrainingConfig", "build_trainer", "train"]
