"""The room with torch: networks, what they are trained on, how, and a trained network as a posterior."""

from lo_theory.neural.average import Average
from lo_theory.neural.checkpoint import Checkpoint, load, load_model, save, save_model
from lo_theory.neural.config import TrainConfig, learning_rate
from lo_theory.neural.correction import SelfCorrection
from lo_theory.neural.flops import flop_per_token, measure_matmul_rate
from lo_theory.neural.focal import Focal
from lo_theory.neural.learned_order import LearnedOrder, OrderedTransformer, latents_first, learned_order
from lo_theory.neural.logits import LogitsPosterior, from_logits
from lo_theory.neural.memory import estimate_memory
from lo_theory.neural.model import SHAPES, Shape, Transformer, TransformerConfig
from lo_theory.neural.objectives import Batch, Causal, Masked, Objective, Stage, State
from lo_theory.neural.oracle import Oracle, as_module
from lo_theory.neural.parallel import Ranks, current_ranks, join_ranks
from lo_theory.neural.posterior import TrainedPosterior
from lo_theory.neural.proseco import ProSeCo
from lo_theory.neural.puma import Puma
from lo_theory.neural.staged import Staged
from lo_theory.neural.train import Observer, Trained, train
from lo_theory.neural.variance import GradientVariance, gradient_variance

__all__ = [
    "SHAPES",
    "Average",
    "Batch",
    "Causal",
    "Checkpoint",
    "Focal",
    "GradientVariance",
    "LearnedOrder",
    "LogitsPosterior",
    "Masked",
    "Objective",
    "Observer",
    "Oracle",
    "OrderedTransformer",
    "ProSeCo",
    "Puma",
    "Ranks",
    "SelfCorrection",
    "Shape",
    "Stage",
    "Staged",
    "State",
    "TrainConfig",
    "Trained",
    "TrainedPosterior",
    "Transformer",
    "TransformerConfig",
    "as_module",
    "current_ranks",
    "estimate_memory",
    "flop_per_token",
    "from_logits",
    "gradient_variance",
    "join_ranks",
    "latents_first",
    "learned_order",
    "learning_rate",
    "load",
    "load_model",
    "measure_matmul_rate",
    "save",
    "save_model",
    "train",
]
