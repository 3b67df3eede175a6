"""``gmml concepts``: patches in a few clusters (MC-SSL figure 1), and which learnt concepts they are (figures 5 to 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from gmml_models.errors import UsageError
from gmml_models.figure_command import FigureCommand, statistics_of


@dataclass(frozen=True)
class Concepts(FigureCommand):
    """Draw images in a few clusters of their patches, alike in all images, and the learnt concepts of the most central one."""

    name: ClassVar[str] = "concepts"

    clusters: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (2, 3, 4)
    """Into how many clusters."""
    bars: bool = False
    """Draw how probable the learnt concepts are in the first cluster, too: for a run of gmml pretrain --method mc_ssl."""
    seed: int = 0
    """Of the starts of k-means."""

    def run(self) -> int:
        """Read, cluster, draw; the exit code is 1 if files had to be skipped."""
        self.check()
        from gmml_models.errors import check_installed

        check_installed(self.who, sklearn="scikit-learn")
        if max(self.clusters, default=0) > 8:
            raise UsageError(f"{self.who}: --clusters {self.clusters} are more than the 8 colours that can be told apart.")
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
