# SPDX-License-Identifier: MIT
"""Mixtures of LoRA experts on the CPU: forward and backward, for NumPy. mole.torch has the same for torch."""
from __future__ import annotations

try:
    import numpy as _numpy  # noqa: F401
except ImportError as error:
    raise ImportError("mole: expected NumPy, found none: pip install numpy") from error

from ._core import TensorInfo
from ._library import library as _library
from .errors import (CapacityError, DtypeError, DuplicateIdError, Error, FileError, NotMergeableError, NotTrainableError,
                     OptionError, OrderError, OutOfMemoryError, ShapeError, UnexpectedError, UnknownIdError)
from .linear import AdamW, Linear
from .options import Option, presets
from .routing import Routing

__version__: str = _library.version().decode()

__all__ = ["AdamW", "CapacityError", "DtypeError", "DuplicateIdError", "Error", "FileError", "Linear", "NotMergeableError",
           "NotTrainableError", "Option", "OptionError", "OrderError", "OutOfMemoryError", "Routing", "ShapeError",
           "TensorInfo", "UnexpectedError", "UnknownIdError", "presets"]
