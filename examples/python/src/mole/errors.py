# SPDX-License-Identifier: MIT
"""Errors of the library: each is also the exception of Python that programs expect there."""
from __future__ import annotations


class Error(Exception):
    """Anything that mole refuses. Its text says who, what was expected and what was found."""


class ShapeError(Error, ValueError):
    """Two sizes that must agree differ, or rows of an array have gaps."""


class DtypeError(Error, TypeError):
    """An array of another type than float32, or none at all."""


class OptionError(Error, ValueError):
    """A preset or an option is not known, or lies outside its range."""


class FileError(Error, OSError):
    """A file cannot be read or written, or does not hold what its format demands."""


class CapacityError(Error, ValueError):
    """Something is made for less than it is asked for."""


class NotMergeableError(Error, ValueError):
    """A mixture that depends on the token has no single weight."""


class NotTrainableError(Error, RuntimeError):
    """Gradients of what has none."""


class OrderError(Error, RuntimeError):
    """Calls in an order without meaning, such as a backward without its forward."""


class UnknownIdError(Error, LookupError):
    """An id that nothing has."""


class DuplicateIdError(Error, ValueError):
    """An id that something else has already."""


class OutOfMemoryError(Error, MemoryError):
    """There is no memory for what was asked for."""


class UnexpectedError(Error, RuntimeError):
    """Anything else that went wrong inside."""


# By the numbers of mole_status in mole/c/mole.h.
_OF_STATUS: dict[int, type[Error]] = {
    1: ShapeError, 2: OptionError, 3: FileError, 4: CapacityError, 5: NotMergeableError, 6: NotTrainableError,
    7: OrderError, 8: UnknownIdError, 9: DuplicateIdError, 101: OutOfMemoryError,
}


def error_of(status: int, text: str) -> Error:
    return _OF_STATUS.get(status, UnexpectedError)(text)
