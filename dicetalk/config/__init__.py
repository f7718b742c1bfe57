"""Typed parameters: `params.yaml` is checked whole, and refused with the path of each wrong key."""

from dicetalk.config.base import Probability, Section
from dicetalk.config.compute import GenerateCompute, PreprocessCompute, TrainingCompute
from dicetalk.config.data import (
    CorpusIndex,
    Encode,
    Preprocess,
    Speech,
    Synthesize,
    SyntheticHdtf,
    SyntheticMead,
)
from dicetalk.config.load import PARAMS_FILE, config_hash, load_params, parse_params, read_yaml
from dicetalk.config.params import (
    ConditionDropout,
    Evaluate,
    Evaluators,
    Generate,
    LearnBank,
    Params,
    Retrain,
    Tracking,
    TrainDiffusion,
    TrainEmbedder,
    Training,
)

__all__ = [
    "ConditionDropout",
    "CorpusIndex",
    "Encode",
    "Evaluate",
    "Evaluators",
    "Generate",
    "GenerateCompute",
    "LearnBank",
    "PARAMS_FILE",
    "Params",
    "Preprocess",
    "PreprocessCompute",
    "Probability",
    "Retrain",
    "Section",
    "Speech",
    "Synthesize",
    "SyntheticHdtf",
    "SyntheticMead",
    "Tracking",
    "TrainDiffusion",
    "TrainEmbedder",
    "Training",
    "TrainingCompute",
    "config_hash",
    "load_params",
    "parse_params",
    "read_yaml",
]
