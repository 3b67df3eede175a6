"""Published recipes by name, each with its source."""

from gmml_aug.presets.gmml import ablation, gmml, gmml_reference, mc_ssl, sit
from gmml_aug.presets.masked import beit, dinov2, ibot, mae, simmim, specaugment, tubes

__all__ = [
    "ablation",
    "beit",
    "dinov2",
    "gmml",
    "gmml_reference",
    "ibot",
    "mae",
    "mc_ssl",
    "names",
    "simmim",
    "sit",
    "specaugment",
    "tubes",
]


def names() -> list[str]:
    """The names of all presets; each is a function of this module."""
    return sorted(name for name in __all__ if name != "names")
