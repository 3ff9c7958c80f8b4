# SPDX-License-Identifier: MIT
"""Presets and their options, between keywords of Python and the text of mole::c."""
from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Union

import numpy as np

from ._library import library
from .errors import OptionError

Option = Union[bool, int, float, str, Sequence[int], None]
"""Lists are for those of numbers; None is the word auto."""


def text_of(who: str, options: Mapping[str, Option]) -> bytes:
    """key=value key=value"""
    return " ".join(f"{key}={_value_text(who, key, value)}" for key, value in options.items()).encode()


def _value_text(who: str, key: str, value: Option) -> str:
    if value is None:
        return "auto"
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, str):
        if not value or any(c in " \t\r\n\v\f,;=\0" for c in value):
            raise OptionError(f"{who}: expected a word for '{key}', found '{value[:60]}'")
        return value
    if isinstance(value, Sequence) and value and all(isinstance(each, numbers.Integral) for each in value):
        return ":".join(str(int(each)) for each in value)
    raise OptionError(f"{who}: expected a number, a word, True, False or a list of integers for '{key}', "
                      f"found {type(value).__name__}")


def options_of(text: str) -> dict[str, Option]:
    """The options of a text: numbers where they are numbers, lists of those with colons, else words."""
    return {key: _value_of(value) for key, value in (pair.split("=", 1) for pair in text.split())}


def _value_of(text: str) -> Option:
    try:
        if ":" in text:
            return [int(part) for part in text.split(":")]
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None if text == "auto" else text


def presets() -> dict[str, dict[str, Option]]:
    """All presets of linear layers with their options and the defaults of these. Flags are 0 or 1."""
    names = [library.preset_name(number) for number in range(library.preset_count())]
    linear = [name for name in names if not library.preset_is_block(name)]
    return {name.decode(): options_of(library.preset_options(name).decode()) for name in linear}
