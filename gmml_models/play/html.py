"""Shows the result as HTML, with embedded pictures, so that nothing is written to disk and nothing else is requested."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

from PIL import Image

from gmml_models.figures.palette import SKY, VERMILION
from gmml_models.play.pictures import Captioned, Look

NO_MODEL = (
    "No weights were found. Start the page as gmml play --weights FOLDER, with the Hub's owner/name, or with a name "
    "that gmml models lists."
)
CSS = """
.gmml-row { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 20px 16px; margin: 0 0 14px; }
.gmml-row.steps { grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 12px; }
.gmml-row figure { margin: 0; min-width: 0; }
.gmml-row img, .gmml-row .none { display: block; width: 100%; aspect-ratio: 1; border-radius: 2px; margin: 0; }
.gmml-row .none { box-sizing: border-box; padding: 14px; border: 1px dashed var(--border-color-primary); font-size: 13px; }
.gmml-row .none, .gmml-row figcaption span, .gmml-title { color: var(--body-text-color-subdued); }
.gmml-row figcaption { font-size: 13px; line-height: 1.4; margin-top: 5px; overflow-wrap: anywhere; }
.gmml-row figcaption b { font-weight: 600; margin-right: 6px; color: var(--body-text-color); }
.gmml-row figcaption i, .gmml-legend i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; }
.gmml-legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 0 0 18px; padding: 0; font-size: 13px; }
.gmml-legend li { margin: 0; color: var(--body-text-color); }
.gmml-title { font-size: 13px; margin: 0 0 8px; }
.gmml-message { border-left: 3px solid VERMILION; padding: 8px 12px; font-size: 14px; color: var(--body-text-color); }
.gmml-message.note { border-color: SKY; }
@media (max-width: 640px) { .gmml-row { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px 10px; }
  .gmml-row.steps { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; } }
""".replace("VERMILION", VERMILION).replace("SKY", SKY)


def board(look: Look) -> str:
    """Make the HTML of the pictures with their captions, of the legend, and of each step on its own."""
    whole = [_figure(one) for one in look.whole]
    if all(one.name != "reconstruction" for one in look.whole):
        whole.append(f'<figure><div class="none">{escape(NO_MODEL)}</div><figcaption><b>reconstruction</b></figcaption></figure>')
    entries = "".join(f"<li>{_swatch(entry.colour)}{escape(entry.words)}</li>" for entry in look.legend)
    return (
        f'<div class="gmml-row">{"".join(whole)}</div>'
        f'<ul class="gmml-legend" aria-label="who did what">{entries}</ul>'
        '<p class="gmml-title">Every step alone, at the same places</p>'
        f'<div class="gmml-row steps">{"".join(_figure(one) for one in look.steps)}</div>'
    )


def wrong(error: Exception) -> str:
    """Show the library's error message for an impossible setting."""
    return f'<div class="gmml-message" role="alert">{escape(str(error))} The pictures are those of the previous setting.</div>'


def note(idle: Iterable[str], preset: str) -> str:
    """Name the knobs that were changed without effect; empty if there are none."""
    names = ", ".join(idle)
    if not names:
        return ""
    words = f"{names}: this change has no effect, because {preset} has no boxes that are painted up to a ratio."
    return f'<div class="gmml-message note">{escape(words)}</div>'


def _figure(one: Captioned) -> str:
    swatch = _swatch(one.colour) if one.colour is not None else ""
    words = escape(one.words)
    return (
        f'<figure data-name="{escape(one.name)}"><img src="{_address(one.picture)}" alt="{escape(one.name)}: {words}">'
        f"<figcaption>{swatch}<b>{escape(one.name)}</b><span>{words}</span></figcaption></figure>"
    )


def _swatch(colour: str) -> str:
    return f'<i style="background:{colour}"></i>'


def _address(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)  # noise does not shrink, whatever it costs
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
