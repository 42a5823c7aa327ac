"""The confusion matrix with the images behind its cells; of many classes, the pairs that are confused most often."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnkit.metrics import Scores
from cnnkit.report.sections.judged import Judged, JudgedImage

__all__ = ["Cell", "Confusion", "Group", "confusion", "rows_to_show"]

MAX_CLASSES = 30  # of a matrix that can be read
MAX_PAIRS = 50
MAX_IMAGES = 12  # of a cell
SHADES = 10


@dataclass(frozen=True)
class Cell:
    """The images of class `true` that are predicted as `predicted`: their number, and their share of the true class.

    `images` are some of them, the most confident first.
    """

    true: int
    predicted: int
    count: int
    share: float
    images: tuple[JudgedImage, ...] = ()

    @property
    def level(self) -> int:
        """The shade of the cell: 0 if it is empty, else 1 to 10, by the square root so that small shares are seen."""
        return math.ceil(SHADES * math.sqrt(self.share))


@dataclass(frozen=True)
class Group:
    """The cells of a true class that are shown, those with most images first, and the class's recall in numbers."""

    true: int
    images: int
    correct: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Confusion:
    """The cells by true class, and how many pairs of classes are confused.

    Of up to 30 classes, all non-empty cells; of more, the 50 pairs that are confused most often.
    """

    is_matrix: bool
    num_pairs: int
    groups: tuple[Group, ...]

    def matrix(self, num_classes: int) -> list[list[Cell]]:
        """Return all cells, the empty ones too: rows are true classes, columns predicted ones."""
        cells = {(cell.true, cell.predicted): cell for group in self.groups for cell in group.cells}
        every = range(num_classes)
        return [[cells.get((true, guess), Cell(true, guess, 0, 0.0)) for guess in every] for true in every]

    def pairs(self) -> list[Cell]:
        """Return the cells of confused pairs, those with most images first."""
        cells = [cell for group in self.groups for cell in group.cells if cell.true != cell.predicted]
        return sorted(cells, key=lambda cell: -cell.count)


def confusion(scores: Scores, judged: Judged) -> Confusion:
    """Return the cells of the confusion matrix of `scores`, with images."""
    counts = scores.cells.tolist()
    is_matrix = scores.num_classes <= MAX_CLASSES
    wrong = sorted(((*pair, count) for *pair, count in counts if pair[0] != pair[1]), key=lambda one: -one[2])
    chosen = counts if is_matrix else wrong[:MAX_PAIRS]
    correct = {true: count for true, guess, count in counts if true == guess}
    cells: dict[int, list[Cell]] = {}
    for true, guess, count in sorted(chosen, key=lambda one: (one[0], -one[2])):
        share = count / scores.classes[true].support
        cells.setdefault(true, []).append(Cell(true, guess, count, share, judged.of_cell(true, guess, MAX_IMAGES)))
    groups = (
        Group(true, scores.classes[true].support, correct.get(true, 0), tuple(own)) for true, own in cells.items()
    )
    return Confusion(is_matrix, len(wrong), tuple(groups))


def rows_to_show(found: Confusion, most: int) -> list[int]:
    """Return the rows of at most so many images: of wrong cells before correct ones, of each cell in turn."""
    right = [cell for group in found.groups for cell in group.cells if cell.true == cell.predicted]
    return [image.row for cells in (found.pairs(), right) for image in _in_turn(cells)][:most]


def _in_turn(cells: Sequence[Cell]) -> Iterator[JudgedImage]:
    for place in range(MAX_IMAGES):
        for cell in cells:
            yield from cell.images[place : place + 1]
