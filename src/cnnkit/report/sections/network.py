"""The structure of the network: its stages for one image."""

from dataclasses import dataclass

from cnnkit.anatomy.trace import Part, trace
from cnnkit.core.shape import by
from cnnkit.deploy import Classifier

__all__ = ["Network", "Stage", "network"]


@dataclass(frozen=True)
class Stage:
    """A stage with the shape of its output, and the height and width of its receptive field in pixels.

    The field is None if unknown, and larger than the image for stages that depend on all of it.
    """

    name: str
    output: tuple[int, ...]
    params: int
    macs: int
    receptive: tuple[int, int] | None


@dataclass(frozen=True)
class Network:
    """The stages of a network for one image of `input` C x H x W, with their totals."""

    net: str
    input: tuple[int, int, int]
    stages: tuple[Stage, ...]
    params: int
    macs: int

    @property
    def sentence(self) -> str:
        """The totals."""
        return (
            f"{self.net} takes an image of {by(*self.input)} and has {self.params:,} parameters; an answer takes "
            f"{self.macs:,} multiply-accumulates (MACs)."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row for each stage."""
        return [
            (one.name, by(*one.output), f"{one.params:,}", f"{one.macs:,}", self._field(one.receptive))
            for one in self.stages
        ]

    def _field(self, size: tuple[int, int] | None) -> str:
        if size is None:
            return "unknown"
        if all(field >= side for field, side in zip(size, self.input[1:], strict=True)):
            return "whole image"
        return by(*size)


def network(classifier: Classifier) -> Network:
    """Return the stages of a classifier's network; raises UsageError if it cannot be traced."""
    bundle = classifier.bundle
    found = trace(classifier.net, (bundle.in_channels, *bundle.image_size))
    return Network(bundle.net, found.input, tuple(map(_stage, found.stages)), found.params, found.macs)


def _stage(part: Part) -> Stage:
    field = part.receptive.size if part.receptive else None
    return Stage(part.name, part.output, part.params, part.macs, field)
