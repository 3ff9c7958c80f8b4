# SPDX-License-Identifier: MIT
"""The shared library of mole/c/mole.h: its functions, which release the GIL and raise where they fail."""
from __future__ import annotations

import ctypes
import os
import pathlib
import sys
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_size_t, c_ssize_t, c_ulong, c_void_p
from typing import Any

from .errors import error_of


class Weight(ctypes.Structure):
    """mole_weight"""
    _fields_ = [("data", c_void_p), ("out", c_ssize_t), ("in_", c_ssize_t), ("layout", c_int), ("stride", c_ssize_t),
                ("bias", c_void_p), ("pack", c_int)]


class Tensor(ctypes.Structure):
    """mole_tensor"""
    _fields_ = [("name", c_char_p), ("rows", c_ssize_t), ("cols", c_ssize_t), ("first", c_ssize_t),
                ("parameter", c_void_p), ("gradient", c_void_p)]


class Pass(ctypes.Structure):
    """mole_pass"""
    _fields_ = [("training", c_int), ("seed", c_ulong), ("layer", c_ulong), ("step", c_ulong), ("first_token", c_ulong),
                ("token_mask", c_void_p), ("routed", c_void_p), ("forced", c_void_p), ("labels", c_void_p),
                ("allowed", c_void_p), ("allowed_experts", c_ssize_t), ("sequence_begin", c_void_p),
                ("sequences", c_ssize_t)]


OF_LAYER, OF_ARRAY = 0, 1  # mole_numbers

_HANDLE, _OUT, _INDEX, _INDEX_OUT, _ARRAY = c_void_p, POINTER(c_void_p), c_ssize_t, POINTER(c_ssize_t), c_void_p
_OPTIONS, _DOUBLE_OUT, _SIZE_OUT = c_char_p, POINTER(c_double), POINTER(c_size_t)

# Functions that return a mole_status.
_CALLS: dict[str, list[Any]] = {
    "layer_create": [c_char_p, _OPTIONS, POINTER(Weight), _OUT],
    "layer_create_sharing": [c_char_p, _OPTIONS, POINTER(Weight), _HANDLE, _OUT],
    "layer_set_weight": [_HANDLE, POINTER(Weight)],
    "layer_set_trainable": [_HANDLE, c_int, c_int],
    "layer_merge": [_HANDLE, _ARRAY],
    "layer_tensor": [_HANDLE, _INDEX, POINTER(Tensor)],
    "layer_bind_parameters": [_HANDLE, _ARRAY, _INDEX, c_int],
    "layer_bind_gradients": [_HANDLE, _ARRAY, _INDEX, c_int],
    "layer_get_parameters": [_HANDLE, _ARRAY, _INDEX],
    "layer_set_parameters": [_HANDLE, _ARRAY, _INDEX],
    "layer_get_gradients": [_HANDLE, _ARRAY, _INDEX],
    "layer_zero_gradients": [_HANDLE],
    "workspace_create": [_HANDLE, _INDEX, _OUT],
    "gradients_create": [_HANDLE, _OUT],
    "gradients_set_zero": [_HANDLE],
    "gradients_get": [_HANDLE, _HANDLE, _ARRAY, _INDEX],
    "forward": [_HANDLE, _ARRAY, _ARRAY, _INDEX, POINTER(Pass), _HANDLE],
    "recompute": [_HANDLE, _ARRAY, _INDEX, POINTER(Pass), _HANDLE],
    "backward": [_HANDLE, _ARRAY, _ARRAY, _ARRAY, _INDEX, _HANDLE],
    "backward_into": [_HANDLE, _ARRAY, _ARRAY, _ARRAY, _INDEX, _HANDLE, _HANDLE],
    "routing_sizes": [_HANDLE, _INDEX_OUT, _INDEX_OUT, _INDEX_OUT, _INDEX_OUT],
    "routing_pairs": [_HANDLE, _ARRAY, _INDEX, _ARRAY, _ARRAY, _INDEX],
    "routing_loads": [_HANDLE, _ARRAY, _INDEX],
    "routing_logits": [_HANDLE, _OUT, _INDEX_OUT, _INDEX_OUT],
    "routing_scores": [_HANDLE, _OUT, _INDEX_OUT, _INDEX_OUT],
    "load_balance": [_HANDLE, _OPTIONS, _DOUBLE_OUT],
    "router_z": [_HANDLE, c_double, _DOUBLE_OUT],
    "layer_renew_router": [_HANDLE],
    "layer_discretize": [_HANDLE, c_double],
    "layer_balance": [_HANDLE, _ARRAY, _INDEX, c_double],
    "layer_save": [_HANDLE, c_char_p],
    "layer_save_to": [_HANDLE, _ARRAY, c_size_t, _SIZE_OUT],
    "layer_load": [_HANDLE, c_char_p],
    "layer_load_from": [_HANDLE, c_char_p, c_size_t],
    "layer_save_state_to": [_HANDLE, _ARRAY, c_size_t, _SIZE_OUT],
    "layer_load_state_from": [_HANDLE, c_char_p, c_size_t],
    "adamw_create": [_OPTIONS, _OUT],
    "adamw_set_learning_rate": [_HANDLE, c_double],
    "adamw_step": [_HANDLE, POINTER(c_void_p), _INDEX],
    "adamw_save": [_HANDLE, c_char_p],
    "adamw_load": [_HANDLE, c_char_p, POINTER(c_void_p), _INDEX],
    "clip_norm": [POINTER(c_void_p), _INDEX, c_double, _DOUBLE_OUT],
    "threads_create": [c_int, _OUT],
    "layer_set_threads": [_HANDLE, _HANDLE],
}

# ... a number, a text, or nothing.
_OTHERS: dict[str, tuple[Any, list[Any]]] = {
    "last_error": (c_char_p, []),
    "version": (c_char_p, []),
    "preset_count": (_INDEX, []),
    "preset_name": (c_char_p, [_INDEX]),
    "preset_options": (c_char_p, [c_char_p]),
    "preset_is_block": (c_int, [c_char_p]),
    "layer_options": (c_char_p, [_HANDLE]),
    "layer_tensor_count": (_INDEX, [_HANDLE]),
    "layer_size": (_INDEX, [_HANDLE]),
    "layer_destroy": (None, [_HANDLE]),
    "workspace_destroy": (None, [_HANDLE]),
    "gradients_destroy": (None, [_HANDLE]),
    "adamw_destroy": (None, [_HANDLE]),
    "threads_destroy": (None, [_HANDLE]),
}


class Library:
    """One attribute for each function, named as in mole.h without its mole_."""

    def __init__(self, path: str) -> None:
        loaded = ctypes.CDLL(path)  # not PyDLL: calls release the GIL
        for name, arguments in _CALLS.items():
            function = getattr(loaded, "mole_" + name)
            function.argtypes, function.restype, function.errcheck = arguments, c_int, self._raise_unless_ok
            setattr(self, name, function)
        for name, (result, arguments) in _OTHERS.items():
            function = getattr(loaded, "mole_" + name)
            function.argtypes, function.restype = arguments, result
            setattr(self, name, function)

    def _raise_unless_ok(self, status: int, _function: object, _arguments: object) -> int:
        if status != 0:
            raise error_of(status, self.last_error_text())
        return status

    def last_error_text(self) -> str:
        text: bytes = self.last_error()
        return text.decode("utf-8", "replace")

    def __getattr__(self, name: str) -> Any:  # for type checkers: attributes are set above
        raise AttributeError(name)


def _path() -> str:
    """Of the library beside this file, or that which MOLE_LIBRARY names."""
    named = os.environ.get("MOLE_LIBRARY")
    if named:
        return named
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    beside = pathlib.Path(__file__).with_name("libmole_c" + suffix)
    if not beside.exists():
        raise ImportError(f"mole: expected its library {beside}, found none: install the package by "
                          "pip install ./examples/python, or let MOLE_LIBRARY name a libmole_c")
    return str(beside)


def handle(create: Any, *arguments: Any) -> int:
    """What a ..._create() makes."""
    made = c_void_p()
    create(*arguments, ctypes.byref(made))
    assert made.value is not None
    return made.value


def bytes_of(save_to: Any, layer: int) -> bytes:
    """What a ..._save_to() writes."""
    size = c_size_t()
    save_to(layer, None, 0, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    save_to(layer, ctypes.addressof(buffer), size.value, ctypes.byref(size))
    return buffer.raw


library = Library(_path())
