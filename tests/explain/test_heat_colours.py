"""Colours of heat: lightness grows with it, and colour-blind people can tell the signs apart."""

import numpy as np

from cnnkit.figures import heat_colours, heat_overlay

LUMA = np.array([0.2126, 0.7152, 0.0722])
# Machado, Oliveira and Fernandes 2009: what people without red or green cones see, in linear light
PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])


def linear(colours: np.ndarray) -> np.ndarray:
    return (colours / 255) ** 2.2


def test_lightness_grows_with_the_heat() -> None:
    for signed, values in (
        (False, np.linspace(0, 1, 50)),
        (True, np.linspace(0, 1, 50)),
        (True, -np.linspace(0.01, 1, 50)),
    ):
        light = linear(heat_colours(values, signed)) @ LUMA
        assert (np.diff(light) > 0).all()


def test_signs_differ_for_every_colour_vision() -> None:
    values = np.linspace(0.2, 1, 20)
    plus, minus = (linear(heat_colours(sign * values, True)) for sign in (1, -1))
    for vision in (np.eye(3), PROTAN, DEUTAN):
        yellow = [colours @ vision.T @ np.array([0.5, 0.5, -1]) for colours in (plus, minus)]
        assert (yellow[0] - yellow[1] > 0.1).all()


def test_overlay_shows_the_image_where_there_is_no_heat() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 1), dtype=np.uint8)
    heat = np.zeros((6, 9))
    heat[2, 3], heat[4, 4] = 2.0, -1.0
    drawn = np.asarray(heat_overlay(image, heat, signed=True))
    same = (drawn == image).all(2)
    assert (~same).sum() == 2
    assert drawn[2, 3, 0] > drawn[2, 3, 2]  # orange
    assert drawn[4, 4, 0] < drawn[4, 4, 2]  # blue
    framed = np.asarray(heat_overlay(image, heat * 0, signed=False, box=(1, 2, 5, 8)))
    changed = (framed != image).any(2)
    assert not changed[0].any()
    assert changed[1, 2:8].all()
    assert changed[4, 2:8].all()
    assert changed[1:5, 2].all()
    assert changed[1:5, 7].all()
    assert not changed[2:4, 3:7].any()


def test_images_of_any_channels_are_shown() -> None:
    for channels in (1, 2, 3, 5):
        drawn = heat_overlay(np.full((4, 7, channels), 90, np.uint8), np.zeros((4, 7)), signed=False)
        assert (drawn.mode, drawn.size) == ("RGB", (7, 4))
        assert set(np.asarray(drawn).ravel().tolist()) == {90}
