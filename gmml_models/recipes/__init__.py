"""Recipes that pretrain on a data set, fine-tune, evaluate, predict, and compute a data set's statistics.

Every recipe is a function of a frozen config (`gmml_models.recipes.config`) and, optionally, of data sets in Python. The command
line is derived from the same configs. Names are imported on first use.
"""

from typing import TYPE_CHECKING

from gmml_models.lazy import lazily

if TYPE_CHECKING:
    from gmml_models.data.channel_stats import channel_stats
    from gmml_models.recipes.config import (
        EmbedConfig,
        EvaluateConfig,
        FinetuneConfig,
        PredictConfig,
        PretrainConfig,
        StatsConfig,
    )
    from gmml_models.recipes.embedding import embed
    from gmml_models.recipes.evaluation import evaluate
    from gmml_models.recipes.finetuning import finetune
    from gmml_models.recipes.prediction import predict
    from gmml_models.recipes.pretraining import pretrain

_WHERE = {
    "EmbedConfig": ".config",
    "EvaluateConfig": ".config",
    "FinetuneConfig": ".config",
    "PredictConfig": ".config",
    "PretrainConfig": ".config",
    "StatsConfig": ".config",
    "channel_stats": "gmml_models.data.channel_stats",
    "embed": ".embedding",
    "evaluate": ".evaluation",
    "finetune": ".finetuning",
    "predict": ".prediction",
    "pretrain": ".pretraining",
}

__all__ = [
    "EmbedConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "PredictConfig",
    "PretrainConfig",
    "StatsConfig",
    "channel_stats",
    "embed",
    "evaluate",
    "finetune",
    "predict",
    "pretrain",
]

__getattr__, __dir__ = lazily(__name__, _WHERE, __all__)
