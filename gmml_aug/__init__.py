"""GPU-batched masked-image corruption: groups of connected pixels become noise, zeros, alien, grey or blurred content.

``images, mask = gmml_aug.presets.gmml()(batch)`` follows Group Masked Model Learning (GMML). Where (`Boxes`), what (`Noise`,
`Alien`, ...) and how much (`ratio`, `p`, `OneOf`, `Chain`) are independent. Needs torch alone; `torchvision_adapter` and
`kornia_adapter` are imported, with what they need, when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gmml_aug import functional, presets
from gmml_aug.blurring import Blur
from gmml_aug.boxes import Boxes
from gmml_aug.cells import Blocks, Cells
from gmml_aug.chance import Chance, keys
from gmml_aug.collate import CollateCorrupt
from gmml_aug.colour import Grey, Jitter
from gmml_aug.combine import Chain, InBoxes, OneOf
from gmml_aug.contract import Corrupted, Corruption, Fill
from gmml_aug.figures import show
from gmml_aug.fills import Alien, Constant, Mean, Shuffle, Zeros
from gmml_aug.functional import patch_mask
from gmml_aug.loops import Module, TimmCorrupt
from gmml_aug.noise import Noise
from gmml_aug.plan import Plan
from gmml_aug.program import Scene
from gmml_aug.raw import CorruptedPair

__all__ = [
    "Alien",
    "Blocks",
    "Blur",
    "Boxes",
    "Cells",
    "Chain",
    "Chance",
    "CollateCorrupt",
    "Constant",
    "Corrupted",
    "CorruptedPair",
    "Corruption",
    "Fill",
    "Grey",
    "InBoxes",
    "Jitter",
    "Mean",
    "Module",
    "Noise",
    "OneOf",
    "Plan",
    "Scene",
    "Shuffle",
    "TimmCorrupt",
    "Zeros",
    "functional",
    "keys",
    "patch_mask",
    "presets",
    "show",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from gmml_aug import kornia_adapter as kornia_adapter
    from gmml_aug import torchvision_adapter as torchvision_adapter
else:

    def __getattr__(name: str) -> Any:
        if name in ("kornia_adapter", "torchvision_adapter"):
            return import_module(f"gmml_aug.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
