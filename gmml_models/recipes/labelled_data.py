"""Opens labelled training and test images with matching labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gmml_models.data.sources import Source, few_shot, open_source
from gmml_models.errors import UsageError
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig

if TYPE_CHECKING:
    from gmml_models.data.streams import StreamSource


class LabelledData(NamedTuple):
    """Two data sets with the same labels.

    Attributes:
        train: the images to train on.
        test: the images to measure on; None if nothing is measured.
        classes: the names of the classes or labels.
        multi_label: True if an image may have several labels.
    """

    train: Source
    test: Source | None
    classes: tuple[str, ...]
    multi_label: bool

    @property
    def lost(self) -> int:
        """The files of both data sets that may be images but were not used; see `Source.lost`."""
        return self.train.lost + (0 if self.test is None else self.test.lost)

    def tell(self, who: str) -> None:
        """Report on stderr what was found."""
        tell(who, self.train, "training images")
        if self.test is not None:
            tell(who, self.test, "test images")


def tell(who: str, source: Source | StreamSource, what: str = "images") -> None:
    """Report on stderr what was found.

    Args:
        who: the name of the command, for messages.
        source: the data set.
        what: the purpose of the images.
    """
    lines = source.found(who, what) if isinstance(source, Source) else [f"{who}: a stream of {source.images} {what}."]
    print("\n".join(lines), file=sys.stderr, flush=True)


def tell_unreadable(who: str, source: Source, what: str) -> None:
    """Report on stderr which images could not be read so far."""
    if source.broken:
        print(f"{who}: {len(source.broken)} of {len(source)} {what} could not be read and are skipped:", file=sys.stderr)
        for name, reason in source.broken.items():
            print(f"  {name}: {reason}", file=sys.stderr)


def open_labelled(
    config: FinetuneConfig | EvaluateConfig, *, who: str, dataset: Any = None, test_dataset: Any = None
) -> LabelledData:
    """Open the data of a config, and check that it is suitable for training and measuring.

    Args:
        config: the config, which says where the images are. The few-shot selection of a `FinetuneConfig` is applied; that of an
            `EvaluateConfig` is not.
        who: the name of the command, for errors.
        dataset: a map-style data set in Python instead of ``config.data``.
        test_dataset: the same for the test images.

    Raises:
        UsageError: there are no data or no labels, there is only one class, or the test images do not fit.
    """
    if not config.data and dataset is None:
        raise UsageError(f"{who}: no data. Give --data FOLDER, or a data set as timm names it.")
    measured = not isinstance(config, FinetuneConfig) or config.test_every > 0
    if config.holdout is not None:
        if config.test_data or config.test_split or test_dataset is not None:
            raise UsageError(
                f"{who}: holdout={config.holdout} takes the images to measure on from the training images, but test images were "
                "given too. Give only one of them."
            )
        test_dataset = dataset
    if measured and dataset is not None and test_dataset is None and not (config.test_data or config.data):
        raise UsageError(
            f"{who}: dataset= was given without test images. Give test_dataset= or test_data too, or set test_every=0 when "
            "fine-tuning."
        )
    train = open_source(config, purpose="train", dataset=dataset)
    if isinstance(config, FinetuneConfig) and config.few_shot < 1:
        train = few_shot(train, config.few_shot, config.seed)
    if not measured:
        return LabelledData(train, None, train.classes, train.multi_label)
    test = open_test(config, who=who, classes=train.classes, multi_label=train.multi_label, dataset=test_dataset)
    return LabelledData(train, test, train.classes, train.multi_label)


def open_test(
    config: FinetuneConfig | EvaluateConfig, *, who: str, classes: Sequence[str], multi_label: bool, dataset: Any = None
) -> Source:
    """Open the images to measure on; their labels must be those of a model.

    Args:
        config: where the images are.
        who: the name of the command, for errors.
        classes: the names of the classes, in the model's order.
        multi_label: True if an image may have several labels.
        dataset: a map-style data set in Python, used instead.

    Raises:
        UsageError: there are no such images, or they have other labels.
    """
    test = open_source(config, purpose="test", classes=classes, dataset=dataset)
    if test.multi_label != multi_label:
        kinds = ("one class", "several labels")
        raise UsageError(
            f"{who}: the test images have {kinds[test.multi_label]} per image, but {kinds[multi_label]} are needed. Give test "
            "images of the same kind."
        )
    return test
