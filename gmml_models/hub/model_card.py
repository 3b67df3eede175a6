"""The model card of a folder of weights, an autoencoder's or a classifier's, written from its config."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

_TAGS = ("gmml", "image-feature-extraction", "timm", "transformers", "self-supervised-learning")
_CODE_LICENCE = "Apache-2.0"
_LISTED = 20  # classes
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_CITATION = """```bibtex
@article{atito2022gmml,
  title  = {{GMML} is All you Need},
  author = {Atito, Sara and Awais, Muhammad and Kittler, Josef},
  year   = {2022}
}
@article{atito2021mcssl,
  title  = {{MC-SSL0.0}: Towards Multi-Concept Self-Supervised Learning},
  author = {Atito, Sara and Awais, Muhammad and Farooq, Ammarah and Feng, Zhenhua and Kittler, Josef},
  year   = {2021}
}
```"""


def model_card(config: Mapping[str, Any]) -> str:
    """The text of ``README.md`` for the Hugging Face Hub: what the weights are, made of what, and how to load them.

    Nothing is claimed that the config does not say; what it does not say is named as not recorded.

    Args:
        config: as ``config.json``; its ``gmml`` part may have decoder, blocks, objective, data (name, licence, images), recipe,
            metrics (name, value, spread, measured_by, command), license, source (file, sha256) and files.
    """
    ours = _mapping(config.get("gmml"))
    data, source = _mapping(ours.get("data")), _mapping(ours.get("source"))
    files, model = _mapping(ours.get("files")), _mapping(config.get("pretrained_cfg"))
    licence = ours.get("license") or model.get("license") or "unknown"
    name = _line(ours.get("name") or config.get("architecture") or "vision transformer")
    parts = [
        _front_matter(name, licence, data, ours.get("metrics")),
        f"# {name}",
        f"A timm `{_code(config.get('architecture', 'vision_transformer'))}` encoder, pretrained without labels by Group Masked "
        "Model Learning (GMML) or one of its relatives, for `gmml_models`, timm and transformers. It returns features: it has no "
        "classifier.",
        _table(
            ("", ""),
            [
                ("Objective", ours.get("objective")),
                ("Decoder", ours.get("decoder")),
                ("Blocks fused for the decoder", ours.get("blocks")),
                ("Target of the decoder", ours.get("target")),
                ("Features", config.get("num_features")),
                ("Input size (C, H, W)", model.get("input_size")),
                ("Mean of the normalisation", model.get("mean")),
                ("Std of the normalisation", model.get("std")),
                ("Interpolation, crop", [model[key] for key in ("interpolation", "crop_pct") if key in model] or None),
                ("Converted from", source.get("file")),
                ("sha256 of that file", source.get("sha256")),
            ],
        ),
        "## Data",
        _table(
            ("", ""),
            [("Name", data.get("name")), ("Images", data.get("images")), ("Licence of the data", data.get("licence"))],
            keep=True,
        ),
        "## Licences",
        f"The weights: {_line(licence)}. The code that loads them, gmml: {_CODE_LICENCE}. The data: "
        f"{_line(data.get('licence') or 'not recorded')}. These are three things; see to it that your use is allowed by each.",
        "## Recipe",
        _fenced(ours.get("recipe")),
        "## Results",
        _metrics(ours.get("metrics")),
        "## Use",
        _USE,
        "## Files",
        _table(
            ("File", "Bytes", "sha256"),
            [(name, _mapping(about).get("size"), _mapping(about).get("sha256")) for name, about in sorted(files.items())],
            keep=True,
        ),
        "`gmml_models` compares these hashes before it opens a file. That shows damage, not an exchange: pin a revision for that.",
        "## Citation",
        _CITATION,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_USE = """Put this repository's name, or the path of its folder, in place of `NAME`.

```python
import gmml_models

encoder = gmml_models.from_pretrained("NAME")  # a plain timm model; hashes are checked
model = gmml_models.GMMLAutoencoder.from_pretrained("NAME")  # with the decoder, if decoder.safetensors is there
```

```python
import timm

encoder = timm.create_model("hf-hub:NAME", pretrained=True)
encoder = timm.create_model("local-dir:NAME", pretrained=True)  # a folder
```

```python
from transformers import AutoImageProcessor, AutoModel

encoder = AutoModel.from_pretrained("NAME")
processor = AutoImageProcessor.from_pretrained("NAME")
```"""


def classifier_card(config: Mapping[str, Any]) -> str:
    """The text of ``README.md`` of a folder that holds an encoder and the head of a classifier.

    That of `model_card`, but for what it says of features alone.

    Args:
        config: as ``config.json``.
    """
    parts = model_card(config).split("\n\n")
    about = next(place for place, part in enumerate(parts) if part.startswith("A timm `"))
    parts[about] = "\n\n".join(_about(config["architecture"], config["gmml"]["classifier"]))
    return "\n\n".join(parts).replace(_OF_AUTOENCODERS, _OF_CLASSIFIERS)


_OF_AUTOENCODERS = (
    'model = gmml_models.GMMLAutoencoder.from_pretrained("NAME")  # with the decoder, if decoder.safetensors is there\n'
)
_OF_CLASSIFIERS = (
    'model = gmml_models.Classifier.from_pretrained("NAME")  # with the head\n'
    "probabilities = model.probabilities(images)  # (B, C, H, W), normalised by model.mean and model.std; columns: model.classes\n"
)


def _about(architecture: str, told: Mapping[str, Any]) -> list[str]:
    seen = {"token": "the class token", "mean": "the mean of the patch tokens", "both": "class token and mean of the patch tokens"}
    names = [str(name) for name in told["classes"]]
    # in a fence, one name a line: no name can break out of it
    listed = ["".join(letter for letter in name if letter.isprintable() and letter != "`") for name in names[:_LISTED]]
    more = [] if len(names) <= _LISTED else [f"... and {len(names) - _LISTED} more, in config.json"]
    what = "labels, any number an image" if told["multi_label"] else "classes, one an image"
    return [
        f"A timm `{architecture}` encoder, fine-tuned with labels by gmml, and a head on {seen.get(told['pool'], told['pool'])} "
        f"that tells {len(names)} {what}. timm and transformers load the encoder alone.",
        "\n".join(["```text", *listed, *more, "```"]),
    ]


def _front_matter(name: str, licence: object, data: Mapping[str, Any], metrics: object) -> str:
    """What the Hub reads; what it would refuse is left out or named "other"."""
    from huggingface_hub import EvalResult, ModelCardData

    word = str(licence).lower()
    known = bool(_LICENCE.fullmatch(word)) and word != "other"
    sets = [one for one in [str(data.get("hub") or data.get("name") or "")] if _HUB_ID.fullmatch(one)]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=sets[0],
            dataset_name=_line(data.get("name") or sets[0]),
            metric_type=re.sub(r"[^a-z0-9]+", "-", one["name"].lower()).strip("-") or "measure",
            metric_name=_line(one["name"]),
            metric_value=one["value"],
        )
        for one in map(_mapping, metrics if sets and isinstance(metrics, list | tuple) else ())
        if isinstance(one.get("name"), str) and type(one.get("value")) in (int, float) and math.isfinite(one["value"])
    ]
    about = ModelCardData(
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=list(_TAGS),
        license=word if known else "other",
        license_name=None if known else re.sub(r"[^a-z0-9.-]+", "-", word).strip("-.")[:64] or "unnamed",
        datasets=sets or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{about.to_yaml()}\n---"


def _metrics(metrics: object) -> str:
    rows = []
    for metric in metrics if isinstance(metrics, list | tuple) else ():
        about = _mapping(metric)
        value = _line(about.get("value", "not recorded"))
        spread = about.get("spread")
        rows.append(
            (
                about.get("name"),
                value if spread is None else f"{value} ± {_line(spread)}",
                about.get("measured_by") or "not recorded",
                about.get("command"),
            )
        )
    return _table(("Measure", "Value", "Measured by", "Command"), rows) if rows else "None recorded."


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]], *, keep: bool = False) -> str:
    """A table; rows that say nothing are left out, or with keep named as not recorded."""
    told = [row for row in rows if keep or any(cell is not None for cell in row[1:])]
    if not told:
        return ""
    lines = [head, tuple("---" for _ in head), *told]
    return "\n".join("| " + " | ".join("not recorded" if cell is None else _line(cell) for cell in line) + " |" for line in lines)


def _line(value: object) -> str:
    """Text for one line of Markdown: no line breaks, no table cells, no HTML, no links of its own."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:400]
    return re.sub(r"([|<>`\[\]])", r"\\\1", text.replace("\\", "\\\\"))


def _code(value: object) -> str:
    return re.sub(r"[^\w.-]", "", str(value))


def _fenced(recipe: object) -> str:
    if recipe is None:
        return "Not recorded."
    text = recipe if isinstance(recipe, str) else json.dumps(recipe, indent=2, sort_keys=True, default=str)
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)  # longer than any fence inside
    return f"{fence}\n{text}\n{fence}"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
