"""What a GPU is expected to measure, written before any has run these kernels, and what each number decides.

The microseconds follow from a model: bytes a pixel over the rate of a copy, instructions a pixel over the rate of issue, and
between full overlap of the two and none; docs/performance.md has the bytes and the instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Range = tuple[float, float]

# microseconds for 256 x 3 x 224 x 224 on an H200, by the kind of number that comes in (bytes become bfloat16)
PREDICTED: Final[Mapping[str, Mapping[str, Range]]] = {
    "plan": {"float32": (16.0, 28.0), "bfloat16": (16.0, 28.0), "uint8": (16.0, 28.0)},
    "paint": {"float32": (95.0, 95.0), "bfloat16": (57.0, 65.0), "uint8": (75.0, 90.0)},
    "blur": {"float32": (35.0, 60.0), "bfloat16": (30.0, 50.0), "uint8": (30.0, 50.0)},
    "call": {"float32": (155.0, 190.0), "bfloat16": (115.0, 150.0), "uint8": (130.0, 165.0)},
}
_AROUND: Final = 0.1  # of a prediction that is one number, and at both ends of one that is two
SLOWER: Final = {
    "plan": "look at the images with most boxes (24), not at the average one",
    "paint": "look at the number of tiles first (`tiles`): 8 rows and 2 warps were chosen by counting instructions",
    "blur": "look at the programs for each multiprocessor (`tiles`): 4 is a guess about the first cache",
    "call": "the parts say which; if they add up to less, launches wait for each other: a graph shows it",
}

# figures that a call is held to: in which unit, the floor, the goal
TARGETS: Final[Mapping[str, tuple[str, float, float]]] = {
    "call, float32": ("copies", 2.4, 1.5),
    "call, bfloat16": ("copies", 3.8, 2.0),
    "call, uint8": ("normalising passes", 4.8, 2.6),
    "call, uint8, without the clean batch": ("normalising passes", 4.8, 1.2),
    "host a call": ("ms", 0.3, 0.15),
    "extra memory": ("of the output", 0.05, 0.02),
    "vit_small_patch16_224": ("of a training step", 0.003, 0.002),
}

# what to decide from each part: stands at the head of every report
DECIDE: Final[Mapping[str, str]] = {
    "ceilings": "The units. If a copy is not within 10 % of 76 us (float32) and 40 us (bfloat16), compare multiples alone.",
    "equality": "Anything but true, or a difference above 1: stop tuning and mend it. Three runs that differ are a race in the "
    "blur's ring or in the plan's bits. The rest of the report counts only if all is true.",
    "silence": "Must say that a call waits for nothing.",
    "stages": "Compare with the prediction beside it; what is slower says where to look.",
    "call": "At the floor of docs/performance.md or below: publish. Above: the slowest stage against its prediction decides what "
    "is next. If the host was the clock, no number of the row counts.",
    "graphs": "A graph must differ in nothing. If it is much faster than the call, the device waits between the launches.",
    "racecheck": "Must be 0 errors. It watches shared memory alone; the ring and the bits lie in global memory, for which "
    "`equality` runs three times.",
    "memcheck": "Must be 0 errors.",
    "training": "A share above 0.3 % of a step of ViT-S/16: overlap the next batch's plan with the step first.",
    "peers": "Own a row only where ours is faster and does at least as much: each row says what it does.",
    "tiles": "Take another tile where it is 5 % faster in float32 and no slower in bfloat16, and equal to the bit; else leave it.",
    "sizes": "A size that costs twice as much a pixel as 256 x 224 px is the next thing to look at.",
    "tests": "Must pass; what was not reached is to be run again alone.",
}


def compared(stage: str, kind: str, milliseconds: float) -> dict[str, Any]:
    """A time beside its prediction, in microseconds.

    Args:
        stage: of `PREDICTED`.
        kind: the dtype that comes in.
        milliseconds: what was measured for 256 x 3 x 224 x 224.
    """
    low, high = PREDICTED[stage][kind]
    found = milliseconds * 1e3
    row: dict[str, Any] = {"measured": round(found, 1), "predicted": [low, high]}
    if found > high * (1.0 + _AROUND):
        return {**row, "says": f"slower: {SLOWER[stage]}"}
    return {**row, "says": "faster" if found < low * (1.0 - _AROUND) else "as predicted"}


def verdicts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Every target that the report has a number for: the number, its floor and goal, and which of them it meets."""
    found: dict[str, float] = {}
    for name, row in report.items():
        if not isinstance(row, Mapping) or "error" in row or "left out" in row:
            continue
        if name.startswith("call, "):
            found |= {name: row["times"], "host a call": max(row["host"], found.get("host a call", 0.0))}
            found["extra memory"] = max(row["extra memory"], found.get("extra memory", row["extra memory"]))
            if "without the clean batch" in row:
                found[f"{name}, without the clean batch"] = row["without the clean batch"]["times"]
        elif name in TARGETS and "share" in row:
            found[name] = row["share"]["fused"]
    judged = {}
    for name, (unit, floor, goal) in TARGETS.items():
        if name in found:
            value = found[name]
            says = "the goal" if value <= goal else "the floor" if value <= floor else "missed"
            judged[name] = {"measured": value, "unit": unit, "floor": floor, "goal": goal, "says": says}
    return judged
