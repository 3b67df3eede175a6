"""``gmml evaluate``: makes a table of how good weights are."""

from __future__ import annotations

from dataclasses import dataclass, fields

from gmml_models.recipes.config import EvaluateConfig


@dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Measure weights on labelled images, over several seeds: k-NN, linear probe, or the head that gmml finetune trained."""

    def run(self) -> int:
        """Measure, print and write the table; the exit code is 1 if images had to be skipped."""
        from gmml_models.evaluate.report import terminal
        from gmml_models.recipes.evaluation import evaluate

        config = EvaluateConfig(**{one.name: getattr(self, one.name) for one in fields(EvaluateConfig)})
        rows = evaluate(config)
        print(terminal(rows))
        print(
            f"Table: {config.out / 'table.md'} and table.json; class by class: classes.csv"
            + (" and confusion-*.csv." if any(each.confusion is not None for each in rows) else ".")
        )
        return 1 if any(each.left_out for each in rows) else 0
