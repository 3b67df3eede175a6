"""The page: its layout, and the effects of its controls. It needs gradio; the content is computed elsewhere."""

from __future__ import annotations

import secrets
from typing import Any

import gradio as gr

from gmml_models.play import html
from gmml_models.play.controls import FILLS, OWN, PRESETS, Knobs, code
from gmml_models.play.image_picker import Album
from gmml_models.play.pictures import look
from gmml_models.play.reconstruction import Restorer
from gmml_models.recipes import parse_corruption

KEY = 144
_KEYS = 1_000_000  # that the button draws from: short enough to be typed again
_SIZES, _PATCHES, _ALIGNS = (64, 96, 128, 160, 224), (8, 16, 32), (1, 8, 16, 32)
_SIZE, _PATCH = 224, 16
_PLACEMENTS = ("wrap", "inside", "origin")
_ABOUT = {**parse_corruption.PRESETS, OWN: "Every fill in its own boxes, one after the other"}
_SYSTEM = ("system-ui", "sans-serif")
CSS = (
    html.CSS
    + """
.gradio-container { max-width: 1240px !important; margin: 0 auto; }
.gmml-head h1 { font-size: 22px; font-weight: 600; margin: 0; } .gmml-head p { margin: 2px 0 0; font-size: 14px; }
.gmml-shelf .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)) !important; }
.gmml-shelf .grid-container { grid-auto-rows: auto !important; padding: 0 !important; gap: 8px; }
.gmml-shelf .thumbnail-item { height: auto !important; aspect-ratio: 1; }
.gmml-upload .upload-container { min-height: 0; } .gmml-upload .icon-wrap { display: none; }
.gmml-upload .wrap { flex-direction: row; gap: 5px; min-height: 0; padding: 12px; font-size: 13px; } .gmml-upload .or { margin: 0; }
.gmml-shelf, .gmml-shelf .gallery-container, .gmml-shelf .grid-wrap { height: auto !important; min-height: 0 !important; }
.gmml-left .tab-like-container { width: 58px; } .gmml-new { align-self: center; max-height: 42px; }
.gmml-code { width: 0 !important; min-width: 100% !important; }
@media (max-width: 700px) { .gmml-right { display: contents; } .gmml-left { order: 1; } .gmml-code { order: 2; } }
"""
)


def theme() -> gr.themes.Base:
    """Muted colours and system fonts: nothing is downloaded."""
    mono = ("ui-monospace", "monospace")
    return gr.themes.Default(primary_hue="blue", neutral_hue="stone", text_size="sm", font=_SYSTEM, font_mono=mono)


def build(album: Album, reconstruction: Restorer | None) -> gr.Blocks:
    """The page.

    Args:
        album: the pictures to choose from.
        reconstruction: the model that makes the sixth picture, if there is one.
    """
    start = Knobs.of("gmml")
    sizes = sorted({*_SIZES, reconstruction.size} if reconstruction else _SIZES)
    patches = sorted({*_PATCHES, reconstruction.patch} if reconstruction else _PATCHES)
    with gr.Blocks(title="gmml playground", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(
            "<h1>gmml playground</h1><p>Groups of connected pixels become noise, alien, grey or blurred content: "
            "choose where, what and how much.</p>",
            elem_classes="gmml-head",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=340, elem_classes="gmml-left"):
                shelf = gr.Gallery(
                    [picture for picture, _ in album.thumbnails(96)], show_label=False, container=False, selected_index=0,
                    allow_preview=False, interactive=False, buttons=[], elem_classes="gmml-shelf",
                )  # fmt: skip
                upload = gr.File(show_label=False, file_types=["image"], height="auto", elem_classes="gmml-upload")
                preset = gr.Dropdown([*PRESETS, OWN], value=start.preset, label="Preset", info=_ABOUT[start.preset])
                with gr.Row(equal_height=True):
                    key = gr.Number(KEY, label="Key", precision=0, min_width=130)
                    new = gr.Button("New key", size="md", min_width=130, elem_classes="gmml-new")
                fills = gr.CheckboxGroup(list(FILLS), value=list(start.fills), label="Fills")
                choice = gr.Checkbox(False, label="one of them per image, at random", visible=False)
                with gr.Row():
                    ratio_low = gr.Slider(0, 1, start.ratio[0], step=0.01, label="Ratio from", buttons=[], min_width=130)
                    ratio_high = gr.Slider(0, 1, start.ratio[1], step=0.01, label="to", buttons=[], min_width=130)
                with gr.Row():
                    side_low = gr.Slider(0, 1, start.side[0], step=0.01, label="Side from", buttons=[], min_width=130)
                    side_high = gr.Slider(0, 1, start.side[1], step=0.01, label="to", buttons=[], min_width=130)
                budget = gr.Slider(
                    0,
                    1,
                    start.budget,
                    step=0.01,
                    label="Budget",
                    buttons=[],
                    info="share of all replaced content; 1 means no limit",
                )
                with gr.Accordion("Border, grid and sizes", open=False):
                    placement = gr.Radio(_PLACEMENTS, value=start.placement, label="Boxes at the border")
                    align = gr.Radio(_ALIGNS, value=start.align, label="Grid of the boxes, pixels")
                    with gr.Row():
                        size = gr.Dropdown(sizes, value=reconstruction.size if reconstruction else _SIZE, label="Picture, pixels")
                        patch = gr.Dropdown(
                            patches, value=reconstruction.patch if reconstruction else _PATCH, label="Patch, pixels"
                        )
            with gr.Column(scale=5, min_width=320, elem_classes="gmml-right"):
                message = gr.HTML(visible=False)
                pictures = gr.HTML(min_height=400)
                text = gr.Code(
                    label="The code that builds it", language="python", interactive=False, show_line_numbers=False,
                    elem_classes="gmml-code",
                )  # fmt: skip

        chosen = gr.State(0)
        turned = [fills, choice, ratio_low, ratio_high, side_low, side_high, placement, align, budget]

        def show(*said: Any) -> tuple[Any, Any, Any]:
            own, number, pixels, patch_size, seed, name, *of_knobs = said
            try:
                knobs = _knobs(name, *of_knobs)
                corrupt = knobs.composition()
                if seed is None:
                    raise ValueError("gmml play: the key is empty. Give a whole number, or press the button for a new one.")
                shown = look(corrupt, album.batch(number, own, pixels), seed, patch_size, reconstruction)
                return html.board(shown), _said(html.note(knobs.idle(), name)), code(corrupt, seed)
            except (ValueError, TypeError) as error:
                return gr.skip(), _said(html.wrong(error)), gr.skip()

        said = [upload, chosen, size, patch, key, preset, *turned]
        asked = {
            "fn": show, "inputs": said, "outputs": [pictures, message, text], "show_progress": "hidden",
            "api_visibility": "private", "trigger_mode": "always_last",
        }  # fmt: skip
        small = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(**asked)
        gr.on([knob.input for knob in [*turned, key, size, patch]] + [upload.upload, upload.clear], **asked)
        preset.input(_stand, preset, [preset, *turned], **small).then(**asked)
        new.click(lambda: secrets.randbelow(_KEYS), None, key, **small).then(**asked)
        shelf.select(_select, None, [chosen, upload], **small).then(**asked)
    return page


def _knobs(
    preset: str, fills: list[str], choice: bool, ratio_low: float, ratio_high: float, side_low: float, side_high: float,
    placement: Any, align: int, budget: float,
) -> Knobs:  # fmt: skip
    return Knobs(
        preset=preset,
        fills=tuple(name for name in FILLS if name in fills),  # gradio gives them in the order of the ticks
        choice=choice,
        ratio=(float(ratio_low), float(ratio_high)),
        side=(float(side_low), float(side_high)),
        placement=placement,
        align=align,
        budget=float(budget),
    )


def _stand(preset: str) -> list[Any]:
    """Set the knobs to the settings of a preset."""
    knobs = Knobs.of(preset)
    return [
        gr.update(info=_ABOUT[preset]),
        list(knobs.fills),
        gr.update(value=knobs.choice, visible=preset == OWN),
        *knobs.ratio,
        *knobs.side,
        knobs.placement,
        knobs.align,
        knobs.budget,
    ]


def _said(message: str) -> Any:
    return gr.update(value=message, visible=bool(message))


def _select(event: gr.SelectData) -> tuple[int, None]:
    """The number of the picture that was chosen; it replaces an upload."""
    return event.index, None
