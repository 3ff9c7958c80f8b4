# SPDX-License-Identifier: MIT
"""Arrays of callers, as NumPy arrays in the same memory."""
from __future__ import annotations

import ctypes
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from ._library import Weight
from .errors import DtypeError, ShapeError

FloatArray = npt.NDArray[np.float32]
Floats = Any
"""A float32 array on the CPU: of NumPy, or of anything that has __dlpack__, such as torch.Tensor."""


def as_floats(array: Floats, what: str) -> FloatArray:
    """The array in its own memory, never a copy."""
    if not isinstance(array, np.ndarray):
        if not hasattr(array, "__dlpack__"):
            raise DtypeError(f"{what}: expected a float32 array of NumPy, or one with __dlpack__, "
                             f"found {type(array).__name__}")
        if getattr(array, "requires_grad", False):
            raise DtypeError(f"{what}: expected an array without autograd, found a tensor that requires grad: "
                             "detach() it, or use mole.torch")
        try:
            array = np.from_dlpack(array)
        except (BufferError, TypeError, RuntimeError) as error:
            raise DtypeError(f"{what}: expected float32 on the CPU, found {type(array).__name__} of "
                             f"{getattr(array, 'dtype', 'another type')}: {error}") from error
    floats: npt.NDArray[Any] = array
    if floats.dtype != np.float32 or not floats.dtype.isnative:
        raise DtypeError(f"{what}: expected float32, found {floats.dtype}")
    return floats


def memory_at(address: int, count: int, owner: object = None) -> FloatArray:
    """So many numbers of the library's, whose owner lives as long as the array."""
    memory: Any = (ctypes.c_float * count).from_address(address)
    memory.owner = owner
    numbers: FloatArray = np.frombuffer(memory, np.float32)
    return numbers


def as_rows(array: Floats, cols: int, what: str) -> FloatArray:
    """[..., cols] without gaps."""
    floats = as_floats(array, what)
    if floats.ndim < 1 or floats.shape[-1] != cols:
        raise ShapeError(f"{what}: expected rows of {cols} numbers, found the shape {floats.shape}")
    if not floats.flags.c_contiguous:
        raise ShapeError(f"{what}: expected rows without gaps (C-contiguous), found strides {floats.strides}: "
                         "pass a copy, as numpy.ascontiguousarray makes it")
    return floats


def as_result(array: Floats, shape: tuple[int, ...], what: str, *inputs: FloatArray) -> FloatArray:
    """An array that a call writes to, in other memory than `inputs`."""
    floats = as_rows(array, shape[-1], what)
    if floats.shape != shape:
        raise ShapeError(f"{what}: expected the shape {shape}, found {floats.shape}")
    if not floats.flags.writeable:
        raise ShapeError(f"{what}: expected an array to write to, found a read-only one")
    if any(np.may_share_memory(floats, each) for each in inputs):
        raise ShapeError(f"{what}: expected other memory than that of the input, found the same")
    return floats


def per_token(array: Any, dtype: Any, count: int, what: str) -> npt.NDArray[Any]:
    """So many integers or flags, copied unless they are of this type."""
    numbers = np.asarray(array)
    if numbers.dtype.kind not in "biu":
        raise DtypeError(f"{what}: expected integers or flags, found {numbers.dtype}")
    if numbers.size != count:
        raise ShapeError(f"{what}: expected {count} entries, found {numbers.size}")
    return np.ascontiguousarray(numbers.reshape(-1), dtype)


def described_weight(weight: Union[Floats, tuple[int, int]], bias: Floats, pack: bool, who: str) -> tuple[Weight, list[Any]]:
    """mole_weight, and what must live as long as it."""
    if isinstance(weight, tuple):
        out, in_ = weight
        return Weight(None, out, in_, 0, 0, None, int(pack)), []
    floats = as_floats(weight, f"{who}: weight")
    if floats.ndim != 2:
        raise ShapeError(f"{who}: weight: expected a matrix [out x in], found the shape {floats.shape}")
    out, in_ = floats.shape
    by_row, by_column = floats.strides
    size = floats.itemsize
    if (by_column == size or in_ == 1) and (by_row >= in_ * size or out == 1) and by_row % size == 0:
        layout, stride = 0, max(by_row // size, in_)
    elif (by_row == size or out == 1) and by_column >= out * size and by_column % size == 0:
        layout, stride = 1, by_column // size  # [in x out], transposed
    else:
        raise ShapeError(f"{who}: weight: expected numbers of a row, or of a column, one behind the other, "
                         f"found strides {floats.strides}")
    keep: list[Any] = [floats, weight]
    bias_address = None
    if bias is not None:
        biases = as_rows(bias, out, f"{who}: bias")
        if biases.ndim != 1:
            raise ShapeError(f"{who}: bias: expected {out} numbers, found the shape {biases.shape}")
        bias_address = biases.ctypes.data
        keep += [biases, bias]
    return Weight(floats.ctypes.data, out, in_, layout, stride, bias_address, int(pack)), keep
