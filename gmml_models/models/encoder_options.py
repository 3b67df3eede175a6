"""Options of timm's vision transformers, checked before timm sees them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from timm.models.vision_transformer import VisionTransformer

OF_TIMM = {"pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
_OF_FEATURES = {"features_only", "out_indices", "feature_cls"}
_ARGUMENTS = set(inspect.signature(VisionTransformer.__init__).parameters) - {"self", "num_classes"}


def check_names(who: str, given: Mapping[str, Any], *, also: Iterable[str] = ()) -> None:
    """Refuse options that neither timm's `VisionTransformer` nor timm itself accepts.

    Args:
        who: the name of the caller, for errors.
        given: the options.
        also: the names of the caller's own arguments, which are suggested if an option was misspelt.

    Raises:
        TypeError: an option is unknown; the message names it and the most similar known one.
    """
    for name in given:
        if name not in _ARGUMENTS | OF_TIMM | _OF_FEATURES | {"num_classes"}:
            close = difflib.get_close_matches(name, [*_ARGUMENTS, "num_classes", *also])
            hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(sorted(_ARGUMENTS))}."
            raise TypeError(f"{who}: {name}={given[name]!r} is not an argument of timm's VisionTransformer. {hint}")


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that `build_encoder` cannot use.

    Raises:
        TypeError: an option does not exist.
        ValueError: a size or number of channels is impossible.
    """
    check_names("build_encoder", given)
    for name, value in given.items():
        if name == "num_classes":
            raise TypeError(
                "build_encoder: num_classes is always 0. For a classifier, use timm.create_model with the saved encoder."
            )
        if name in ("img_size", "patch_size"):
            sides = value if isinstance(value, (tuple, list)) else (value, value)
            if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
                raise ValueError(
                    f"build_encoder: {name}={value!r} is neither a whole number above 0 nor a pair of such numbers. Give, for "
                    f"example, {name}=32 or {name}=(32, 48)."
                )
        if name == "in_chans" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"build_encoder: in_chans={value!r} is not a whole number above 0. Give, for example, in_chans=3.")
