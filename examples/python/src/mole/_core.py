# SPDX-License-Identifier: MIT
"""Core, Call, Settings: a layer of the library with the workspaces of its calls. Addresses go in, not arrays."""
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from ctypes import byref, c_double, c_size_t, c_ssize_t, c_void_p
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from ._arrays import memory_at, per_token
from ._library import OF_ARRAY, OF_LAYER, Pass, Tensor, Weight, bytes_of, handle, library
from .errors import ShapeError
from .options import Option, options_of, text_of
from .routing import Routing


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor among the trained numbers of a layer."""

    name: str
    shape: tuple[int, int]
    first: int
    """where it begins in the array of all numbers"""
    trained: bool
    parameter: int
    gradient: int
    """addresses; 0 where there is no gradient"""

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclasses.dataclass(eq=False)
class Settings:
    """mole_pass: how a forward is computed. Arrays have an entry for each token, and are kept with the call."""

    training: bool = False
    seed: int = 0
    layer: int = 0
    step: int = 0
    first_token: int = 0
    token_mask: Any = None
    routed: Any = None
    forced: Any = None
    labels: Any = None
    allowed: Any = None
    sequence_begin: Any = None

    def as_pass(self, tokens: int) -> tuple[Optional[Pass], list[Any]]:
        """None for the settings of inference; and what must live until the backward."""
        if all(each is None or isinstance(each, int) and not each for each in vars(self).values()):
            return None, []
        given, keep = Pass(), []

        def kept(name: str, dtype: Any, count: int) -> Optional[int]:
            array = getattr(self, name)
            if array is None:
                return None
            keep.append(per_token(array, dtype, count, f"forward: {name}"))
            return int(keep[-1].ctypes.data)

        given.training = int(self.training)
        for name in ("seed", "layer", "step", "first_token"):
            setattr(given, name, int(getattr(self, name)) & ((1 << 64) - 1))
        given.token_mask, given.routed = kept("token_mask", np.uint8, tokens), kept("routed", np.uint8, tokens)
        given.forced, given.labels = kept("forced", np.int32, tokens), kept("labels", np.int32, tokens)
        if self.allowed is not None:
            experts = np.shape(self.allowed)[-1] if np.ndim(self.allowed) else 0
            given.allowed = kept("allowed", np.uint8, tokens * experts)
            given.allowed_experts = experts
        if self.sequence_begin is not None:
            given.sequences = len(self.sequence_begin)
            given.sequence_begin = kept("sequence_begin", np.intp, given.sequences)
        return given, keep


_INFERENCE = Settings()


class Call:
    """A forward in flight. Its workspace goes back to the layer when nobody refers to it any longer."""

    __slots__ = ("core", "work", "room", "x", "tokens", "given", "kept", "finished")

    def __init__(self, core: Core, tokens: int, settings: Settings) -> None:
        self.given, self.kept = settings.as_pass(tokens)
        self.core, self.tokens, self.x = core, tokens, 0
        self.room, self.work = core.take_workspace(tokens)
        self.finished = False  # has its backward been?

    def without_workspace(self) -> Call:
        """What recompute() needs."""
        spent = Call.__new__(Call)
        spent.core, spent.tokens, spent.x, spent.given, spent.kept = self.core, self.tokens, self.x, self.given, self.kept
        spent.finished = True
        return spent

    def __del__(self) -> None:
        if hasattr(self, "work"):
            self.core.give_workspace(self.room, self.work)


class Core:
    """Owns a mole_layer. forward(), recompute(), backward_into(), routing() may run in several threads at once."""

    def __init__(self, preset: str, options: Mapping[str, Option], weight: Weight, keep: list[Any],
                 owner: Optional[Core] = None) -> None:
        self.lock = threading.RLock()  # for calls that change the layer
        self._free: list[tuple[int, int]] = []
        self._free_gradients: list[int] = []
        self._layer = 0
        self.keep = keep
        text = text_of(preset, options)
        if owner is None:
            self._layer = handle(library.layer_create, preset.encode(), text, byref(weight))
        else:
            self._layer = handle(library.layer_create_sharing, preset.encode(), text, byref(weight), owner._layer)
        self.owner = owner
        self.preset, self.out, self.in_ = preset, int(weight.out), int(weight.in_)
        self.has_pool = preset in ("mos", "vblora", "diffora")
        self.options_text: str = library.layer_options(self._layer).decode()
        self.size: int = library.layer_size(self._layer)

    def __del__(self) -> None:
        for _, work in getattr(self, "_free", []):
            library.workspace_destroy(work)
        for gradients in getattr(self, "_free_gradients", []):
            library.gradients_destroy(gradients)
        library.layer_destroy(getattr(self, "_layer", 0) or None)

    @property
    def address(self) -> int:
        """The mole_layer."""
        return self._layer

    # ---- numbers

    def tensors(self) -> list[TensorInfo]:
        found = []
        for number in range(library.layer_tensor_count(self._layer)):
            tensor = Tensor()
            library.layer_tensor(self._layer, number, byref(tensor))
            found.append(TensorInfo(tensor.name.decode(), (tensor.rows, tensor.cols), tensor.first,
                                    bool(tensor.gradient), tensor.parameter or 0, tensor.gradient or 0))
        return found

    def bind(self, parameters: int, gradients: int, *, numbers_of_array: bool = False) -> None:
        """Addresses of arrays that live as long as the layer; 0: as they are."""
        if parameters:
            library.layer_bind_parameters(self._layer, parameters, self.size, OF_ARRAY if numbers_of_array else OF_LAYER)
        if gradients:
            library.layer_bind_gradients(self._layer, gradients, self.size, OF_LAYER)

    # ---- calls

    def take_workspace(self, tokens: int) -> tuple[int, int]:
        """(room, workspace), with room for so many tokens at least."""
        too_small = []
        try:
            while True:
                room, work = self._free.pop()  # atomic
                if room >= tokens:
                    return room, work
                too_small.append(work)
        except IndexError:
            pass
        for work in too_small:
            library.workspace_destroy(work)
        room = -(-tokens // 32) * 32
        return room, handle(library.workspace_create, self._layer, room)

    def give_workspace(self, room: int, work: int) -> None:
        self._free.append((room, work))

    def forward(self, x: int, y: int, tokens: int, settings: Settings = _INFERENCE) -> Call:
        call = Call(self, tokens, settings)
        call.x = x
        library.forward(self._layer, x, y, tokens, call.given and byref(call.given), call.work)
        return call

    def recompute(self, call: Call, x: int) -> Call:
        """Another call with what the forward of this one left, for the same numbers at x."""
        again = call.without_workspace()
        again.x, again.finished = x, False
        again.room, again.work = self.take_workspace(call.tokens)
        library.recompute(self._layer, again.x, again.tokens, again.given and byref(again.given), again.work)
        return again

    def backward(self, call: Call, d_y: int, d_x: int) -> None:
        """Adds to the gradients of the layer."""
        with self.lock:
            library.backward(self._layer, call.x, d_y, d_x, call.tokens, call.work)
        call.finished = True

    def backward_into(self, call: Call, d_y: int, d_x: int, array: int) -> None:
        """Writes the gradients of this call alone to an array of `size` numbers."""
        if self.has_pool:  # their gradients are in the pool
            with self.lock:
                library.layer_zero_gradients(self._layer)
                library.backward(self._layer, call.x, d_y, d_x, call.tokens, call.work)
                library.layer_get_gradients(self._layer, array, self.size)
        else:
            try:
                gradients = self._free_gradients.pop()
            except IndexError:
                gradients = handle(library.gradients_create, self._layer)
            try:
                library.gradients_set_zero(gradients)
                library.backward_into(self._layer, call.x, d_y, d_x, call.tokens, gradients, call.work)
                library.gradients_get(self._layer, gradients, array, self.size)
            finally:
                self._free_gradients.append(gradients)
        call.finished = True

    def forget_gradients(self) -> None:
        """After another choice of what learns."""
        while self._free_gradients:
            library.gradients_destroy(self._free_gradients.pop())

    # ---- routing and losses

    def routing(self, call: Call) -> Routing:
        tokens, experts, pairs, nan_tokens = c_ssize_t(), c_ssize_t(), c_ssize_t(), c_ssize_t()
        library.routing_sizes(call.work, byref(tokens), byref(experts), byref(pairs), byref(nan_tokens))
        first = np.empty(tokens.value + 1, np.intp)
        chosen, gates = np.empty(pairs.value, np.int32), np.empty(pairs.value, np.float32)
        library.routing_pairs(call.work, first.ctypes.data, tokens, chosen.ctypes.data, gates.ctypes.data, pairs)
        return Routing(self.loads(call).astype(np.int64), first.astype(np.int64), chosen, gates,
                       _copied(library.routing_logits, call.work, tokens.value),
                       _copied(library.routing_scores, call.work, tokens.value), nan_tokens.value)

    def loads(self, call: Call) -> npt.NDArray[np.intp]:
        experts = c_ssize_t()
        library.routing_sizes(call.work, None, byref(experts), None, None)
        loads = np.empty(experts.value, np.intp)
        library.routing_loads(call.work, loads.ctypes.data, experts)
        return loads

    def load_balance(self, call: Call, options: Mapping[str, Option]) -> float:
        value = c_double()
        library.load_balance(call.work, text_of("load_balance", options), byref(value))
        return value.value

    def router_z(self, call: Call, coefficient: float) -> float:
        value = c_double()
        library.router_z(call.work, coefficient, byref(value))
        return value.value

    def balance(self, loads: npt.ArrayLike, rate: float) -> None:
        numbers = np.ascontiguousarray(loads, np.intp)
        if numbers.ndim != 1:
            raise ShapeError(f"balance: expected a count for each expert, found the shape {numbers.shape}")
        shared = options_of(self.options_text).get("shared")
        if isinstance(shared, int):
            numbers = numbers[:numbers.size - shared]  # these come last, and have no logit
        with self.lock:
            library.layer_balance(self._layer, numbers.ctypes.data, numbers.size, rate)

    # ---- the rest

    def set_weight(self, weight: Weight, keep: list[Any]) -> None:
        with self.lock:
            library.layer_set_weight(self._layer, byref(weight))
            self.keep = keep

    def set_threads(self, count: int) -> None:
        with self.lock:
            library.layer_set_threads(self._layer, _pool_of(count))

    def to_bytes(self) -> bytes:
        with self.lock:
            return bytes_of(library.layer_save_to, self._layer)

    def from_bytes(self, data: bytes) -> None:
        with self.lock:
            library.layer_load_from(self._layer, data, c_size_t(len(data)))

    def state_bytes(self) -> bytes:
        with self.lock:
            return bytes_of(library.layer_save_state_to, self._layer)

    def load_state_bytes(self, data: bytes) -> None:
        with self.lock:
            library.layer_load_state_from(self._layer, data, c_size_t(len(data)))


def _copied(function: Any, work: int, tokens: int) -> npt.NDArray[np.float32]:
    """A matrix of a workspace."""
    data, columns, stride = c_void_p(), c_ssize_t(), c_ssize_t()
    function(work, byref(data), byref(columns), byref(stride))
    rows = tokens if columns.value else 0
    if not data.value or not rows:
        return np.zeros((tokens, columns.value), np.float32)
    numbers = memory_at(data.value, (rows - 1) * stride.value + columns.value)
    strides = (stride.value * 4, 4)
    return np.lib.stride_tricks.as_strided(numbers, (rows, columns.value), strides).copy()


_pools: dict[int, int] = {}
_pools_lock = threading.Lock()


def _pool_of(count: int) -> Optional[int]:
    """A pool that all layers with so many threads share, until the process ends; None for the calling thread alone."""
    if count == 1:
        return None
    with _pools_lock:
        if count not in _pools:
            _pools[count] = handle(library.threads_create, count)
        return _pools[count]
