"""The model card: says what the config says and no more, and cannot be made to say something else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard

from gmml_models.hub.model_card import model_card

FILES = {"model.safetensors": {"sha256": "a" * 64, "size": 123456}, "decoder.safetensors": {"sha256": "b" * 64, "size": 789}}
CONFIG: dict[str, Any] = {
    "architecture": "vit_tiny_patch16_224",
    "num_features": 192,
    "format_version": 1,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "license": "cc-by-4.0",
    },
    "gmml": {
        "decoder": "conv",
        "blocks": [5, 7, 9, 11],
        "objective": "GMML",
        "data": {"name": "caltech101", "licence": "CC BY 4.0", "images": 9144},
        "recipe": {"epochs": 300, "lr": 0.0005},
        "metrics": [
            {
                "name": "k-NN top-1",
                "value": 0.421,
                "spread": 0.004,
                "measured_by": "the gmml developers",
                "command": "gmml evaluate",
            },
            {"name": "linear", "value": 0.5},
        ],
        "source": {"file": "checkpoint.pth", "sha256": "c" * 64},
        "files": FILES,
    },
}
HOSTILE = [
    'a"\n---\nlicense: mit\n',
    "x\n---\n# Owned",
    "'; !!python/object/apply:os.system ['id']",
    "| cell | <script>alert(1)</script> | [a](javascript:b)",
    "``` \n# Out of the fence\n ````",
    "{{ jinja }} {% if %}",
    "\x00\x1b[2J\u2028\u202e\ud800",
    "- *a\n&b",
    "",
]


def front_matter(text: str) -> dict[str, Any]:
    data: dict[str, Any] = ModelCard(text, ignore_metadata_errors=False).data.to_dict()  # type: ignore[no-untyped-call]
    return data


def test_the_front_matter_is_what_the_hub_reads() -> None:
    about = front_matter(model_card(CONFIG))
    (model,) = about.pop("model-index")
    assert model["name"] == "vit_tiny_patch16_224"
    (result,) = model["results"]
    assert (result["task"]["type"], result["dataset"]) == ("image-classification", {"name": "caltech101", "type": "caltech101"})
    assert [(one["name"], one["type"], one["value"]) for one in result["metrics"]] == [
        ("k-NN top-1", "k-nn-top-1", 0.421),
        ("linear", "linear", 0.5),
    ]
    assert about == {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["gmml", "image-feature-extraction", "timm", "transformers", "self-supervised-learning"],
        "license": "cc-by-4.0",
        "datasets": ["caltech101"],
    }


def test_a_licence_that_the_hub_does_not_know_is_named_beside_other() -> None:
    about = front_matter(model_card(CONFIG | {"gmml": {**CONFIG["gmml"], "license": "Research only, ask us"}}))
    assert (about["license"], about["license_name"]) == ("other", "research-only-ask-us")
    assert front_matter(model_card({"gmml": {"files": {}}}))["license"] == "unknown"


def test_everything_recorded_stands_in_the_card() -> None:
    text = model_card(CONFIG)
    wanted = [
        "GMML |", "conv |", "[5, 7, 9, 11\\]", "caltech101", "9144", "CC BY 4.0", '"epochs": 300', "0.421 ± 0.004", "developers",
        "gmml evaluate", "checkpoint.pth", "c" * 64, "a" * 64, "b" * 64, "123456", "Apache-2.0", "cc-by-4.0", "3, 64, 64",
        "0.485, 0.456", "0.229, 0.224", "gmml_models.from_pretrained", "hf-hub:", "local-dir:", "AutoModel",
        "atito2022gmml", "atito2021mcssl",
    ]  # fmt: skip
    assert [words for words in wanted if words not in text.replace("\\[", "[")] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_the_results_that_the_hub_reads(text: str) -> None:
    ours = {**CONFIG["gmml"], "name": text, "data": {"name": text, "hub": "owner/set"}, "metrics": [{"name": text, "value": 0.5}]}
    about = front_matter(model_card(CONFIG | {"gmml": ours}))
    assert about.keys() == {"library_name", "pipeline_tag", "tags", "license", "datasets", "model-index"}
    assert about["license"] == "cc-by-4.0"
    ((metric,),) = ([one["metrics"] for one in about["model-index"][0]["results"]],)
    assert [one["value"] for one in metric] == [0.5]


def test_what_is_no_number_is_no_result() -> None:
    metrics = [{"name": "a", "value": value} for value in (float("nan"), True, "0.5", None)]
    assert "model-index" not in front_matter(model_card(CONFIG | {"gmml": {**CONFIG["gmml"], "metrics": metrics}}))


def test_who_measured_is_never_made_up() -> None:
    rows = [line for line in model_card(CONFIG).splitlines() if line.startswith("| linear")]
    assert rows == ["| linear | 0.5 | not recorded | not recorded |"]


def test_all_but_the_files_may_be_missing() -> None:
    text = model_card({"gmml": {"files": FILES}})
    assert front_matter(text)["library_name"] == "timm"
    for words in ("None recorded.", "Not recorded.", "| Licence of the data | not recorded |", "a" * 64):
        assert words in text
    assert "datasets" not in front_matter(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_its_place(text: str) -> None:
    sound = model_card(CONFIG)
    ours: dict[str, Any] = {
        "name": text,
        "decoder": text,
        "blocks": text,
        "objective": text,
        "data": {"name": text, "licence": text, "images": text, "hub": text},
        "recipe": text,
        "metrics": [{"name": text, "value": text, "spread": text, "measured_by": text, "command": text}],
        "license": text,
        "source": {"file": text, "sha256": text},
        "files": {text: {"sha256": text, "size": text}},
    }
    config = {
        "architecture": text,
        "num_features": text,
        "gmml": ours,
        "pretrained_cfg": dict.fromkeys(CONFIG["pretrained_cfg"], text),
    }
    card = model_card(config)
    about = front_matter(card)
    assert about.keys() <= {"library_name", "pipeline_tag", "tags", "license", "license_name", "datasets"}  # no result is a text
    assert about["license"] != "mit"
    card.encode("utf-8")

    outside = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", card.split("---\n", 2)[2])  # the fenced parts may hold anything
    known = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", sound.split("---\n", 2)[2])
    heads = [line for line in outside.splitlines() if line.startswith("#")]
    assert heads[1:] == [line for line in known.splitlines() if line.startswith("#")][1:]
    assert "<script" not in outside.replace("\\<", "")
    assert "](javascript" not in outside.replace("\\]", "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", outside)


def test_parts_of_a_wrong_kind_do_not_break_the_card() -> None:
    odds: list[Any] = [None, 3, "text", [], [1, {}], {}]
    for odd in odds:
        ours = {"data": odd, "metrics": odd, "source": odd, "files": odd, "recipe": odd, "license": odd}
        assert front_matter(model_card({"gmml": ours, "pretrained_cfg": odd, "architecture": odd}))["library_name"] == "timm"
    assert model_card({})
