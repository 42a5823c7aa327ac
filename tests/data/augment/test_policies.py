"""The policies trivial and rand: their operations and magnitudes."""

import pytest
import torch

from cnnkit.data.augment.batch import Augment
from cnnkit.data.augment.policies import operations
from helpers.augment import SIZE, pictures, read_like_a_photo, uniform


@pytest.mark.parametrize("sign", [0.2, 0.7])
@pytest.mark.parametrize("level", [0, 1, 17, 30])
def test_trivial_reaches_every_operation(level: int, sign: float) -> None:
    images, table = pictures(14, 3, 28, 28), operations(28, 28)
    u = torch.tensor([[(which + 0.5) / 14, (level + 0.5) / 31, sign] for which in range(14)])
    result = Augment(["trivial"], (28, 28))(images, u)
    for row, operation in enumerate(table.values()):
        amount = level / 30 * operation.trivial * (-1 if operation.signed and sign >= 0.5 else 1)
        assert result[row].equal(operation.apply(images[row : row + 1], [amount])[0])


def test_trivial_draws_all_alike() -> None:
    """A picture that each operation leaves its own mark on tells which ones were drawn."""
    image, table = read_like_a_photo(28, 28) // 2 + 40, operations(28, 28)
    u = uniform(2800, 3)
    u[:, 1:] = torch.tensor([0.9, 0.1])
    result = Augment(["trivial"], (28, 28))(image.expand(2800, -1, -1, -1), u)
    marks = [operation.apply(image, [27 / 30 * operation.trivial])[0] for operation in table.values()]
    found = [int((result == mark).flatten(1).all(1).sum()) for mark in marks]
    assert sum(found) == 2800
    assert sum((count - 200) ** 2 / 200 for count in found) < 34.5  # 13 degrees of freedom: one in a thousand


@pytest.mark.parametrize("magnitude", [0, 5, 10])
def test_rand_is_several_of_one_magnitude(magnitude: int) -> None:
    images, table = pictures(14 * 14, 3, 28, 28), [*operations(28, 28).values()]
    augment = Augment([f"rand:2:{magnitude}"], (28, 28))
    assert augment.numbers == 4
    assert Augment(["rand"], SIZE).numbers == 4
    assert Augment(["rand:5"], SIZE).numbers == 10
    pairs = [(first, second) for first in range(14) for second in range(14)]
    u = torch.tensor([[(first + 0.5) / 14, 0.9, (second + 0.5) / 14, 0.1] for first, second in pairs])
    result = augment(images, u)
    for row, (first, second) in enumerate(pairs):
        once = table[first].apply(
            images[row : row + 1], [magnitude / 10 * table[first].rand * (-1 if table[first].signed else 1)]
        )
        twice = table[second].apply(once, [magnitude / 10 * table[second].rand])
        assert result[row].equal(twice[0]), (first, second)


def test_ranges_are_the_papers_but_nothing_moves_by_more_than_half_a_side() -> None:
    table = operations(224, 320)
    assert {name: (operation.trivial, operation.rand) for name, operation in table.items()} == {
        "identity": (0, 0),
        "shear_x": (0.99, 0.3),
        "shear_y": (0.99, 0.3),
        "translate_x": (32, 100),
        "translate_y": (32, 100),
        "rotate": (135, 30),
        "brightness": (0.99, 0.9),
        "saturation": (0.99, 0.9),
        "contrast": (0.99, 0.9),
        "sharpness": (0.99, 0.9),
        "posterize": (6, 4),
        "solarize": (1, 1),
        "autocontrast": (0, 0),
        "equalize": (0, 0),
    }
    small = operations(8, 28)
    assert [(small[f"translate_{axis}"].trivial, small[f"translate_{axis}"].rand) for axis in "xy"] == [
        (14, 14),
        (4, 4),
    ]
