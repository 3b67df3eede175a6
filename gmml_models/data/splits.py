"""Guesses which subfolder is the training or test split, and which folders are the classes; the user can override both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from gmml_models.data.scan import natural
from gmml_models.errors import UsageError

Purpose = Literal["pretrain", "train", "test"]
TRAIN_SPLITS = ("train", "training")
TEST_SPLITS = ("test", "val", "valid", "validation", "eval", "evaluation")
_SAME = (TRAIN_SPLITS, ("val", "valid", "validation"), ("eval", "evaluation"))


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Says which images of a folder or an archive to read, and where their labels come from.

    Attributes:
        channels: 1 or 3.
        purpose: the purpose of the images.
        own: True if the test images have their own path, so that they may be directly in it.
        split: the subfolder to read, also inside an archive; None: see `choose_split`.
        labelled: True if labels are needed.
        csv: the file with labels; by default labels.csv next to the images or their split.
        multi_label: True if a CSV is required; False if none is read; None if one is read when it exists and labels are needed.
        columns: the label columns of the CSV, or the class column; None: see `gmml_models.data.labels_csv.read_labels`.
        level: the level of the folders that are the classes; see `class_folders`.
        known: the classes of the training images.
        output: the run's own folder, which is not data.
        extensions: the extensions of image files; None for all that Pillow reads.
    """

    channels: int
    purpose: Purpose = "pretrain"
    own: bool = True
    split: str | None = None
    labelled: bool = False
    csv: Path | None = None
    multi_label: bool | None = None
    columns: Sequence[str] | None = None
    level: int | None = None
    known: Sequence[str] | None = None
    output: Path | None = None
    extensions: Sequence[str] | None = None


def choose_split(
    where: str, tops: Collection[str], split: str | None, purpose: Purpose, own: bool, nested: Callable[[str], bool]
) -> str | None:
    """Choose the subfolder that images are read from; None means the whole folder.

    If the user does not choose, training uses train/ if there is also a test/ or val/, if it is the only subfolder, or if it has
    subfolders itself (so that a class may be called train); testing uses test/, or else val/.

    Args:
        where: the name of the data for messages.
        tops: the names of the subfolders.
        split: the user's choice.
        purpose: the purpose of the images.
        own: True if the test images have their own path, so that they may be directly in it.
        nested: a function that says whether a subfolder has subfolders.

    Raises:
        UsageError: the requested split, or a test split, does not exist.
    """
    listed = ", ".join(sorted(tops)[:10]) or "none"

    def first_of(names: Collection[str]) -> str | None:
        return next((top for name in names for top in (name, *sorted(tops)) if top in tops and top.lower() == name), None)

    if split is not None:
        if split in tops:
            return split
        found = first_of((split.lower(), *next((names for names in _SAME if split.lower() in names), ())))
        if found is not None:
            return found
        raise UsageError(f"gmml: {where} has no subfolder {split!r} (it has: {listed}). Give one of these, or leave the split out.")
    train, test = first_of(TRAIN_SPLITS), first_of(TEST_SPLITS)
    if purpose == "test":
        if test is None and not own:
            raise UsageError(
                f"gmml: {where} has no test or val subfolder (it has: {listed}). Give --test-data, --test-split, or --holdout 0.2."
            )
        return test
    return train if train is not None and (test is not None or len(tops) == 1 or nested(train)) else None


def class_folders(
    where: str, parts: Sequence[tuple[str, ...]], *, level: int | None, known: Sequence[str] | None, labelled: bool
) -> tuple[list[int] | None, tuple[str, ...], list[str]]:
    """Determine which of the folders around each image is its class.

    By default that is the first level at which the images are in different folders, as in torchvision's ImageFolder; for test
    images it is the first level whose folders are the classes of the training images.

    Args:
        where: the name of the data for messages.
        parts: the folders that each image lies in, from the outermost.
        level: 1 for the outermost folders, 2 for those inside them, and so on; -1 for the innermost. None: the default.
        known: the classes of the training images.
        labelled: True if labels are needed.

    Returns:
        The number of each image's class, or None if the folders are not classes; the names in natural order; notes for the user.

    Raises:
        UsageError: labels are needed, but there are images next to the class folders.
    """
    deepest = max(map(len, parts))
    if level is not None and (level < -1 or level == 0):
        raise UsageError(
            f"gmml: class_level={level}. Give 1 for the outermost folders, 2 for those in them, or -1 for the innermost."
        )
    if deepest == 0:
        return None, (), []
    asked = level
    if level is None and known is not None:
        fits = (one for one in range(1, deepest + 1) if all(len(p) >= one and p[one - 1] in known for p in parts))
        level = next(fits, None)
    if level is None:
        level = next((one for one in range(1, deepest + 1) if len({p[one - 1 : one] for p in parts}) > 1), deepest)
    least = 1 if level == -1 else level
    loose = sum(len(p) < least for p in parts)
    if loose and loose < len(parts) and labelled:
        raise UsageError(
            f"gmml: in {where} {loose} images are next to the class folders. Move them into the folder of their class"
            + (", or give --class-level." if deepest > 1 else ".")
        )
    if loose:
        return None, (), []
    names = [p[-1] if level == -1 else p[level - 1] for p in parts]
    classes = sorted(set(names), key=lambda name: (natural(name), name))
    number = {name: place for place, name in enumerate(classes)}
    notes = []
    if deepest > 1 and asked is None and labelled:
        others = sorted({p[-1] for p in parts if len(p) > level} or {p[0] for p in parts})
        notes.append(
            f"the class is the folder at level {level} ({_few(classes)}), not at another ({_few(others)}): --class-level chooses "
            "another"
        )
    return [number[name] for name in names], tuple(classes), notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
