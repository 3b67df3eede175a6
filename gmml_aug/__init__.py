"""GPU-batched masked-image corruption: groups of connected pixels become noise, zeros, alien, grey or blurred content.

``images, mask = gmml_aug.presets.gmml()(batch)`` follows Group Masked Model Learning (GMML). Where (`Boxes`), what (`Noise`,
`Alien`, ...) and how much (`ratio`, `p`, `OneOf`, `Chain`) are independent. The package needs only torch; `torchvision_adapter`
and `kornia_adapter` import their libraries when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gmml_aug import functional, presets
from gmml_aug.adapters.collate import CollateCorrupt
from gmml_aug.adapters.graph import Graphed
from gmml_aug.adapters.loops import Module, TimmCorrupt
from gmml_aug.backends.call import Corrupted, CorruptedPair
from gmml_aug.chance import Chance, keys
from gmml_aug.compose import Chain, InBoxes, OneOf
from gmml_aug.corruption import Corruption
from gmml_aug.figures.show import show
from gmml_aug.fills.base import Fill
from gmml_aug.fills.blur import Blur
from gmml_aug.fills.colour import Grey, Jitter
from gmml_aug.fills.noise import Noise
from gmml_aug.fills.replace import Alien, Constant, Mean, Shuffle, Zeros
from gmml_aug.functional import patch_mask
from gmml_aug.ops import Scene, register_operation
from gmml_aug.places.base import Place
from gmml_aug.places.boxes import Boxes
from gmml_aug.places.grid import Blocks, Cells
from gmml_aug.plan import Plan

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
    "Graphed",
    "Grey",
    "InBoxes",
    "Jitter",
    "Mean",
    "Module",
    "Noise",
    "OneOf",
    "Place",
    "Plan",
    "Scene",
    "Shuffle",
    "TimmCorrupt",
    "Zeros",
    "functional",
    "keys",
    "patch_mask",
    "presets",
    "register_operation",
    "show",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from gmml_aug.adapters import kornia, torchvision

    kornia_adapter, torchvision_adapter = kornia, torchvision
else:

    def __getattr__(name: str) -> Any:
        if name in ("kornia_adapter", "torchvision_adapter"):
            return import_module(f"gmml_aug.adapters.{name.removesuffix('_adapter')}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
