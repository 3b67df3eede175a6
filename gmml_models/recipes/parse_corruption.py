"""Makes a corruption from text: the name of a preset, or the code that ``print(corrupt)`` shows.

The code is parsed, not run: only calls of names in `gmml_aug` with literal arguments are allowed.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import gmml_aug as ga
from gmml_aug.values import Values
from gmml_models.errors import UsageError

PRESETS = {  # all presets but those for clips, in words
    "ablation": "The best of the GMML paper's ablations: noise and alien content over up to 70 % of the image",
    "beit": "The masks of BEiT: blocks of patches",
    "dinov2": "The masks of DINOv2: blocks over 10 to 50 % of the patches, in half of the images",
    "gmml": "The recipe of the GMML paper",
    "gmml_reference": "The behaviour of the GMML release",
    "ibot": "The masks of iBOT: blocks of patches, in half of the images",
    "mae": "The masks of MAE: random patches",
    "mc_ssl": "The policy of the MC-SSL paper",
    "simmim": "The masks of SimMIM: random cells larger than patches",
    "sit": "The behaviour of the SiT release",
    "specaugment": "The bands of SpecAugment",
}
_PLACES = ("Blocks", "Boxes", "Cells", "Chain", "InBoxes", "OneOf")
_FILLS = ("Alien", "Blur", "Constant", "Grey", "Jitter", "Mean", "Noise", "Shuffle", "Zeros")
_CALLABLE = {name: getattr(ga, name) for name in (*_PLACES, *_FILLS)}


def corruption_from(words: str, values: Values) -> ga.Corruption:
    """Make the corruption that ``words`` describe.

    Args:
        words: ``gmml``, ``presets.gmml(zeros=0.5)`` with or without ``presets.``, or the code of a
            composition, ``Chain([InBoxes(Boxes(ratio=0.3), Noise())])``.
        values: the value range of the images, used unless the corruption states its own.

    Raises:
        UsageError: a name is unknown, or the text is anything but calls and literals.
    """
    try:
        found = _build(ast.parse(words.strip(), mode="eval").body)
        chain = found if isinstance(found, ga.Chain) else ga.Chain([found])
        return chain if chain.values is not None else replace(chain, values=values)
    except (SyntaxError, TypeError, ValueError) as error:
        raise UsageError(
            f"gmml: corruption={words!r} cannot be read ({error}). Allowed: a preset ({', '.join(ga.presets.names())}) or the "
            'code of a composition, for example "InBoxes(Boxes(ratio=0.3), Noise())".'
        ) from error


def _build(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in ga.presets.names():
            return getattr(ga.presets, name)()
        case ast.Call(func=ast.Name(id=name)) if name in _CALLABLE:
            return _CALLABLE[name](*map(_build, node.args), **_options(node))
        case ast.Call(func=ast.Name(id=name)) if name in ga.presets.names():
            return getattr(ga.presets, name)(*map(_build, node.args), **_options(node))
        case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id="presets"))) if name in ga.presets.names():
            return getattr(ga.presets, name)(*map(_build, node.args), **_options(node))
        case ast.List(elts=parts):
            return [_build(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_build(part) for part in parts)
        case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return ast.literal_eval(node)
    raise ValueError(f"{ast.unparse(node)} is neither a name in gmml_aug nor a literal")


def _options(call: ast.Call) -> dict[str, Any]:
    if any(option.arg is None for option in call.keywords):
        raise ValueError("** is not allowed")
    return {str(option.arg): _build(option.value) for option in call.keywords}
