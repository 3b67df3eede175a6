"""The front matter of a card, with its results, which the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gmml_models.hub.markdown import is_number, line, mapping, mappings

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

LICENCE = "LICENSE"
"""The file beside the weights with the text of a licence that has no standard name."""
_TAGS = ("gmml", "image-feature-extraction", "timm", "transformers", "self-supervised-learning")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_NAMED = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LINK = re.compile(r"https://[\w./~%-]+", re.ASCII)


def front_matter(config: Mapping[str, Any]) -> str:
    """The YAML between two rules; entries that the Hub would refuse are left out or called "other".

    Every number that was measured on a named data set becomes a result in ``model-index`` with its data set, split and seeds, and
    with the baselines' values of the same metric under ``args``.

    Args:
        config: the config, as in `gmml_models.hub.model_card.model_card`.
    """
    from huggingface_hub import ModelCardData

    ours = mapping(config.get("gmml"))
    word = licence_of(config).lower()
    known = bool(_NAMED.fullmatch(word)) and word != "other"
    sets = _sets(mapping(ours.get("data")))
    found = _results(ours, sets)
    base = ours.get("base_model")
    about = ModelCardData(
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=list(_TAGS),
        license=word if known else "other",
        license_name=None if known else re.sub(r"[^a-z0-9.-]+", "-", word).strip("-.")[:64] or "unnamed",
        license_link=licence_link(config),
        base_model=base if isinstance(base, str) and _HUB_ID.fullmatch(base) else None,
        datasets=sets or None,
        model_name=name_of(config) if found else None,
        eval_results=found or None,
    )
    return f"---\n{about.to_yaml()}\n---"


def name_of(config: Mapping[str, Any]) -> str:
    """The name of the model: its own, that of its encoder, or what timm builds it from."""
    ours = mapping(config.get("gmml"))
    encoder = mapping(ours.get("encoder")).get("name")
    return line(ours.get("name") or encoder or config.get("architecture") or "vision transformer")


def licence_of(config: Mapping[str, Any]) -> str:
    """The licence of the weights, as text."""
    ours, model = mapping(config.get("gmml")), mapping(config.get("pretrained_cfg"))
    return str(ours.get("license") or model.get("license") or "unknown")


def licence_link(config: Mapping[str, Any]) -> str | None:
    """The address of the licence's text: an https URL from the config, or the file next to the weights."""
    ours = mapping(config.get("gmml"))
    link = ours.get("license_link")
    if isinstance(link, str) and _LINK.fullmatch(link):
        return link
    return LICENCE if LICENCE in mapping(ours.get("extras")) else None


def _sets(data: Mapping[str, Any]) -> list[str]:
    """The ids of the training data sets, for those that have one."""
    named = [one.get("hub") or one.get("id") for one in mappings(data.get("sets"))] or [data.get("hub") or data.get("name")]
    return list(dict.fromkeys(one for one in named if isinstance(one, str) and _HUB_ID.fullmatch(one)))


def _results(ours: Mapping[str, Any], sets: list[str]) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    found = []
    for one in mappings(ours.get("metrics")):
        name, measured = one.get("name"), mapping(one.get("dataset"))
        where = measured.get("hub") or measured.get("id") or (sets[0] if sets else None)
        if (
            not isinstance(name, str)
            or not is_number(one.get("value"))
            or not isinstance(where, str)
            or not _HUB_ID.fullmatch(where)
        ):
            continue
        split, metric = one.get("split"), one.get("metric")
        found.append(
            EvalResult(
                task_type="image-classification",
                dataset_type=where,
                dataset_name=line(measured.get("name") or mapping(ours.get("data")).get("name") or where),
                dataset_split=split if isinstance(split, str) and _HUB_ID.fullmatch(split) else None,
                metric_type=metric if isinstance(metric, str) and _NAMED.fullmatch(metric) else _slug(name),
                metric_name=line(name),
                metric_value=one["value"],
                metric_args=_args(one) or None,
            )
        )
    return found


def _args(one: Mapping[str, Any]) -> dict[str, Any]:
    """The details of a number: its seeds, the mean over pretraining runs, its baselines."""
    told: dict[str, Any] = {}
    for name in ("seeds", "mean_seeds"):
        if isinstance(one.get(name), list) and all(type(seed) is int for seed in one[name]):
            told[name] = one[name]
    told |= {name: one[name] for name in ("mean", "spread", "images") if is_number(one.get(name))}
    beside = {line(each.get("name", "")): each["value"] for each in mappings(one.get("baselines")) if is_number(each.get("value"))}
    return {**told, **({"baselines": beside} if beside else {})}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "measure"
