"""Recipes: pretrain on a data set, fine-tune, evaluate, and a data set's statistics.

Every recipe is a function of a frozen config (`gmml_models.recipes.config`) and, if you like, data sets in Python. The command line
is made of the same configs. Names are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig, StatsConfig
    from gmml_models.recipes.data.stats import channel_stats
    from gmml_models.recipes.evaluation import evaluate
    from gmml_models.recipes.finetuning import finetune
    from gmml_models.recipes.pretraining import pretrain

_WHERE = {
    "EvaluateConfig": "config",
    "FinetuneConfig": "config",
    "PretrainConfig": "config",
    "StatsConfig": "config",
    "channel_stats": "data.stats",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "pretrain": "pretraining",
}

__all__ = ["EvaluateConfig", "FinetuneConfig", "PretrainConfig", "StatsConfig", "channel_stats", "evaluate", "finetune", "pretrain"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
