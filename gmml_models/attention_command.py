"""``gmml attention``: where the blocks of an encoder look (GMML figure 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from gmml_models.errors import UsageError
from gmml_models.figure_command import FigureCommand, spread, statistics_of

if TYPE_CHECKING:
    from gmml_models.figures.attention_maps import Query
    from gmml_models.recipes.start_weights import Start

_BY = {"cls": "the class token", "mean": "the mean patch"}


@dataclass(frozen=True)
class AttentionMaps(FigureCommand):
    """Draw where every block of an encoder looks in images, and the mean attention between all patches."""

    name: ClassVar[str] = "attention"

    blocks: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N ...")] = None
    """Which blocks, counting from 1; six at even distances by default."""
    query: Literal["auto", "cls", "mean"] = "auto"
    """Who looks: the class token, or the mean over all patches; auto: the class token where something trained it."""
    patch: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="ROW COLUMN")] = None
    """Who looks: this patch, counting from 0 at the top left."""

    def run(self) -> int:
        """Read, look, draw; the exit code is 1 if files had to be skipped."""
        self.check()
        device = self.on()
        from gmml_models.figures.attention_maps import attention
        from gmml_models.figures.sheets import attention_sheet
        from gmml_models.recipes.start_weights import open_weights

        folder = self.folder()
        start = open_weights(folder, who=self.who)
        vit = start.encoder.to(device)
        mean, std = statistics_of(start, vit)
        shown = self.read(vit)
        blocks = spread(len(vit.blocks)) if self.blocks is None else self.blocks
        query = self._query(start, folder)
        try:
            found = attention(vit, self.batch(shown, mean, std, device), blocks)
            seen = found.seen_from(query)
        except ValueError as error:
            raise UsageError(f"{self.who}: {error}") from error
        by = _BY[query] if isinstance(query, str) else f"the patch in row {query[0]} and column {query[1]}"
        code = (
            f"found = gmml_models.figures.attention(gmml_models.from_pretrained({folder!r}), images, {blocks}); "
            f"found.seen_from({query!r}), found.between_patches()"
        )
        return self.finish(attention_sheet(found, seen, shown.pictures, shown.names, by=by, code=code), shown, "Attention")

    def _query(self, start: Start, folder: str) -> Query:
        """Who looks. Nothing asks a class token for anything in GMML, nor in MC-SSL without its own loss."""
        if self.patch is not None:
            return self.patch
        if self.query != "auto":
            return self.query
        from gmml_models.recipes.start_weights import read_config

        ours = read_config(folder)["gmml"]
        recipe = ours.get("recipe") or {}
        alone = start.objective in ("gmml", "autoencoder") or (start.objective == "mc_ssl" and not recipe.get("cls_loss"))
        pooled = ours.get("classifier", {}).get("pool")
        untrained = alone if pooled is None else pooled == "mean"
        return "mean" if untrained or not start.encoder.has_class_token else "cls"
