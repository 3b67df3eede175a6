"""GPU-batched masked-image corruption: groups of connected pixels become noise, zeros, alien, grey or blurred content.

``images, mask = gmml_aug.presets.gmml()(batch)`` follows Group Masked Model Learning (GMML). Where (`Boxes`), what (`Noise`,
`Alien`, ...) and how much (`ratio`, `p`, `OneOf`, `Chain`) are independent. Needs torch alone.
"""

from gmml_aug import functional, presets
from gmml_aug.boxes import Boxes
from gmml_aug.chance import Chance, keys
from gmml_aug.combine import Chain, InBoxes, OneOf
from gmml_aug.contract import Corrupted, Corruption, Fill
from gmml_aug.fills import Alien, Blur, Constant, Grey, Noise, Zeros
from gmml_aug.functional import patch_mask
from gmml_aug.plan import Plan
from gmml_aug.program import Scene

__all__ = [
    "Alien",
    "Blur",
    "Boxes",
    "Chain",
    "Chance",
    "Constant",
    "Corrupted",
    "Corruption",
    "Fill",
    "Grey",
    "InBoxes",
    "Noise",
    "OneOf",
    "Plan",
    "Scene",
    "Zeros",
    "functional",
    "keys",
    "patch_mask",
    "presets",
]
__version__ = "0.1.0"
