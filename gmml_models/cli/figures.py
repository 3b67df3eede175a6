"""The papers' figures: ``gmml attention`` (GMML 3), ``gmml reconstruct`` (GMML 9), ``gmml concepts`` (MC-SSL 1, and 5 to 9)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from gmml_models.cli.figure_options import FigureCommand, spread, statistics_of
from gmml_models.errors import UsageError, WeightsError, check_installed

if TYPE_CHECKING:
    from gmml_models.figures.attention_maps import Query
    from gmml_models.models.autoencoder import GMMLAutoencoder
    from gmml_models.recipes.start_weights import Start

_BY = {"cls": "the class token", "mean": "the mean patch"}


@dataclass(frozen=True)
class AttentionMaps(FigureCommand):
    """Draw the attention maps of an encoder, block by block, and the mean attention between all patches."""

    name: ClassVar[str] = "attention"

    blocks: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N ...")] = None
    """Blocks to draw, counted from 1; by default six, evenly spaced."""
    query: Literal["auto", "cls", "mean"] = "auto"
    """Attention of the class token, or the mean over all patches; auto chooses the class token if it was trained."""
    patch: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="ROW COLUMN")] = None
    """Attention of this patch instead, counted from 0 at the top left."""

    def run(self) -> int:
        """Read the images, compute the attention and draw it; the exit code is 1 if files had to be skipped."""
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
        """The token whose attention is drawn.

        In GMML, and in MC-SSL without the class-token loss, no loss trains the class token.
        """
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


@dataclass(frozen=True)
class Reconstruct(FigureCommand):
    """Corrupt images and draw what each block of an autoencoder restores."""

    name: ClassVar[str] = "reconstruct"

    blocks: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N ...")] = None
    """Blocks to draw, counted from 1; by default six, evenly spaced."""
    ratio: float = 0.3
    """Share of each image to corrupt (GMML figure 9)."""
    seed: int = 0
    """Random seed of the corruption."""

    def run(self) -> int:
        """Read, corrupt and decode the images, and draw them; the exit code is 1 if files had to be skipped."""
        self.check()
        if not 0.0 < self.ratio <= 1.0:
            raise UsageError(f"{self.who}: --ratio {self.ratio} is not a share. Allowed: numbers above 0, up to 1.")
        device = self.on()
        import gmml_aug
        from gmml_models.figures.reconstruction import corruptions, reconstructions
        from gmml_models.figures.sheets import reconstruction_sheet

        model = self._model().to(device)
        shown = self.read(model.encoder)
        clean = self.batch(shown, model.mean, model.std, device)
        kinds = corruptions((model.mean, model.std), ratio=self.ratio)
        if len(clean) == 1:
            print(f"{self.who}: alien content comes from another image, but there is only one: give two or more.", file=sys.stderr)
            del kinds["alien"]
        keys = gmml_aug.keys(self.seed, 0, range(len(clean)), device=device)
        blocks = spread(len(model.encoder.blocks)) if self.blocks is None else self.blocks
        try:
            found = {
                kind: reconstructions(model, clean, corrupt=corrupt, keys=keys, blocks=blocks) for kind, corrupt in kinds.items()
            }
        except ValueError as error:
            raise UsageError(f"{self.who}: {error}") from error
        code = (
            f"model = gmml_models.GMMLAutoencoder.from_pretrained({self.folder()!r}); "
            f"corrupt = gmml_models.figures.corruptions((model.mean, model.std), ratio={self.ratio})[kind]; "
            f"gmml_models.figures.reconstructions(model, images, corrupt=corrupt, "
            f"keys=gmml_aug.keys({self.seed}, 0, range({len(clean)})), blocks={blocks})"
        )
        sheet = reconstruction_sheet(
            clean,
            found,
            shown.names,
            fused=model.blocks,
            mean=model.mean,
            std=model.std,
            code=code,
            helped=model.target == "normalised",
        )
        return self.finish(sheet, shown, f"Reconstructions by {len(blocks)} blocks")

    def _model(self) -> GMMLAutoencoder:
        from gmml_models.models.autoencoder import GMMLAutoencoder
        from gmml_models.models.registry import located

        try:
            source = located(self.folder())
            recipe = source.config()["gmml"].get("recipe") or {}
            model = GMMLAutoencoder.from_pretrained(source.name, revision=source.revision, sha256=source.sha256)
        except WeightsError as error:
            raise UsageError(f"{self.who}: {self.weights!r} cannot be shown. {error}") from error
        if recipe.get("method") == "mc_ssl" and recipe.get("terms") == "concepts":
            raise UsageError(
                f"{self.who}: the decoder of {self.weights} was not trained (--terms concepts), so there is nothing to show. Give "
                "weights of gmml, of sit, or of mc_ssl with --terms both."
            )
        return model


@dataclass(frozen=True)
class Concepts(FigureCommand):
    """Draw clusters of patches, computed over all images together, and the concepts that were learnt."""

    name: ClassVar[str] = "concepts"

    clusters: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (2, 3, 4)
    """Numbers of clusters to draw."""
    bars: bool = False
    """Also draw how probable the learnt concepts are in the first cluster; needs a run of gmml pretrain --method mc_ssl."""
    seed: int = 0
    """Random seed of k-means."""

    def run(self) -> int:
        """Read the images, cluster their patches and draw them; the exit code is 1 if files had to be skipped."""
        self.check()
        check_installed(self.who, sklearn="scikit-learn")
        if max(self.clusters, default=0) > 8:
            raise UsageError(f"{self.who}: --clusters {self.clusters} needs more than the 8 colours that can be told apart.")
        device = self.on()
        from gmml_models.figures.patch_clusters import concept_probabilities, concepts
        from gmml_models.figures.sheets import concepts_sheet
        from gmml_models.recipes.concept_head import open_concept_head
        from gmml_models.recipes.start_weights import open_weights

        folder = self.folder()
        start = open_weights(folder, who=self.who)
        learnt = open_concept_head(folder, start.encoder, who=self.who) if self.bars else None
        vit = start.encoder.to(device)
        mean, std = statistics_of(start, vit)
        shown = self.read(vit)
        images = self.batch(shown, mean, std, device)
        try:
            labels = concepts(vit, images, self.clusters, seed=self.seed)
        except ValueError as error:
            raise UsageError(f"{self.who}: {error}") from error
        probabilities = None
        if learnt is not None:
            head, center = learnt.head.to(device), learnt.center.to(device)
            probabilities = concept_probabilities(vit, head, images, labels[0] == 0, center=center).cpu()
        code = (
            f"labels = gmml_models.figures.concepts(gmml_models.from_pretrained({folder!r}), images, {self.clusters}, "
            f"seed={self.seed})"
        )
        sheet = concepts_sheet(labels, self.clusters, shown.pictures, shown.names, probabilities=probabilities, code=code)
        return self.finish(sheet, shown, "Concepts")
