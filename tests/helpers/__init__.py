"""Builders and checks that several test modules share, by subject."""

import pkgutil

import pytest

pytest.register_assert_rewrite(*(module.name for module in pkgutil.iter_modules(__path__, "helpers.")))
