"""A plugin for kornia's own tests: our adapter answers where they build the augmentations named in ``GMML_PLACES``."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

import kornia.augmentation

import gmml_aug as ga

INTENSITY = (
    "RandomErasing",
    "RandomGaussianNoise",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomSolarize",
    "RandomPosterize",
    "RandomSharpness",
    "RandomEqualize",
    "RandomAutoContrast",
    "RandomInvert",
    "ColorJiggle",
    "ColorJitter",
)
_HIDE: Any = ga.InBoxes(ga.Boxes(ratio=0.3, side=(0.05, 0.6)), ga.OneOf([ga.Noise(), ga.Zeros()]))


def stand_in(theirs: Any) -> Any:
    """A class of the same name that takes the same arguments and corrupts instead."""
    taken = inspect.signature(theirs)

    class Ours(ga.kornia_adapter.Corrupt):  # type: ignore[misc]  # final for users; here it lends its name to a host
        def __init__(self, *args: Any, **options: Any) -> None:
            told = taken.bind(*args, **options)
            told.apply_defaults()
            common = {name: told.arguments[name] for name in ("p", "same_on_batch", "keepdim") if name in told.arguments}
            super().__init__(_HIDE, **common)

        def __repr__(self) -> str:  # their tests compare it
            return f"{type(self).__name__}(p={self.p}, p_batch={self.p_batch}, same_on_batch={self.same_on_batch})"

    Ours.__name__ = Ours.__qualname__ = theirs.__name__
    return Ours


def put_in_place(names: list[str]) -> None:
    """Exchange the classes in every module of kornia that knows them."""
    for name in names:
        theirs = getattr(kornia.augmentation, name)
        ours = stand_in(theirs)
        for module in [module for path, module in sys.modules.items() if path.partition(".")[0] == "kornia"]:
            for known, value in list(vars(module).items()):
                if value is theirs:
                    setattr(module, known, ours)


put_in_place([name for name in os.environ.get("GMML_PLACES", "").split(",") if name])
