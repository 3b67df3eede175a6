"""``gmml reconstruct``: what the decoder makes of every block (GMML figure 9)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from gmml_models.errors import UsageError, WeightsError
from gmml_models.figure_command import FigureCommand, spread

if TYPE_CHECKING:
    from gmml_models.models.autoencoder import GMMLAutoencoder


@dataclass(frozen=True)
class Reconstruct(FigureCommand):
    """Corrupt images by noise and by content of another image, and draw what every block of an autoencoder restores of them."""

    name: ClassVar[str] = "reconstruct"

    blocks: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N ...")] = None
    """Which blocks, counting from 1; six at even distances by default."""
    ratio: float = 0.3
    """Share of every image that is corrupted (GMML figure 9)."""
    seed: int = 0
    """Decides where, and by what."""

    def run(self) -> int:
        """Read, corrupt, decode, draw; the exit code is 1 if files had to be skipped."""
        self.check()
        if not 0.0 < self.ratio <= 1.0:
            raise UsageError(f"{self.who}: --ratio {self.ratio} is no share. Allowed are numbers above 0, up to 1.")
        device = self.on()
        import gmml_aug
        from gmml_models.figures.reconstruction import corruptions, reconstructions
        from gmml_models.figures.sheets import reconstruction_sheet

        model = self._model().to(device)
        shown = self.read(model.encoder)
        clean = self.batch(shown, model.mean, model.std, device)
        kinds = corruptions((model.mean, model.std), ratio=self.ratio)
        if len(clean) == 1:
            print(f"{self.who}: alien content comes from another image and only one is here: give two or more.", file=sys.stderr)
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

        source = located(self.folder())
        try:
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
