"""The room with torch: networks, what they are trained on, how, and a trained network as a posterior."""

from lo_theory.neural.checkpoint import Checkpoint, load, load_model, save
from lo_theory.neural.model import SHAPES, Shape, Transformer, TransformerConfig
from lo_theory.neural.objectives import Causal, Masked, Objective, Stage
from lo_theory.neural.posterior import TrainedPosterior
from lo_theory.neural.train import TrainConfig, Trained, learning_rate, train

__all__ = [
    "SHAPES",
    "Causal",
    "Checkpoint",
    "Masked",
    "Objective",
    "Shape",
    "Stage",
    "TrainConfig",
    "Trained",
    "TrainedPosterior",
    "Transformer",
    "TransformerConfig",
    "learning_rate",
    "load",
    "load_model",
    "save",
    "train",
]
