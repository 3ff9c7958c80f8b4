# SPDX-License-Identifier: MIT
"""Linear: a layer of experts around a frozen weight, for NumPy and whatever has __dlpack__."""
from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from ctypes import byref, c_double, c_void_p
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from ._arrays import FloatArray, Floats, as_result, as_rows, described_weight, memory_at
from ._core import Call, Core, Settings
from ._library import handle, library
from .errors import OrderError, ShapeError
from .options import Option, options_of, text_of
from .routing import Routing


class Linear:
    """y = W x + b + what the experts of a preset add.

        layer = mole.Linear("mola", weight, bias, experts=8, rank=16, k=2, alpha=32)
        y = layer.forward(x, training=True, step=0)
        d_x = layer.backward(d_y)

    weight is float32 [out x in]; it is borrowed: what is written there, the next call computes with. With pack=True it
    is copied once into the form that is computed with, which is faster and takes twice its memory. prompt_bank has no
    weight: pass (out, in). share is a layer of mos, vblora or diffora whose pool this one uses. Options are those of
    mole.presets(); one that is not known is named, with those that are.

    forward() and routing are those of the calling thread, so threads may share a layer; backward() adds to gradients,
    and takes turns. Everything else is for one thread at a time.
    """

    def __init__(self, preset: str, weight: Union[Floats, tuple[int, int]], bias: Floats = None, *, pack: bool = False,
                 threads: int = 1, share: Optional[Linear] = None, **options: Option) -> None:
        described, keep = described_weight(weight, bias, pack, preset)
        self._core: Core = Core(preset, options, described, keep, None if share is None else share._core)
        self._weight, self._bias, self._pack, self._share = weight, bias, pack, share
        self._last = threading.local()
        self._threads = 1
        self._bind()
        if threads != 1:
            self.threads = threads

    def _bind(self) -> None:
        """Parameters and gradients are arrays of NumPy, which outlive the layer."""
        size = self._core.size
        self._gradient_numbers: FloatArray = np.zeros(size, np.float32)
        self._core.bind(0, self._gradient_numbers.ctypes.data if size else 0)
        numbers: FloatArray = np.empty(size, np.float32)
        self._parameters: dict[str, FloatArray]
        if self._core.preset == "moram":  # its tensors are parts of larger ones
            self._parameters = {t.name: memory_at(t.parameter, t.size, self._core).reshape(t.shape)
                                for t in self._core.tensors()}
        else:
            self._core.bind(numbers.ctypes.data if size else 0, 0)
            self._core.keep.append(numbers)
            self._parameters = {t.name: numbers[t.first:t.first + t.size].reshape(t.shape)
                                for t in self._core.tensors()}
        self._core.keep.append(self._gradient_numbers)

    # ---- what it is

    @property
    def preset(self) -> str:
        return self._core.preset

    @property
    def options(self) -> dict[str, Option]:
        """All of them, those that were not named, too."""
        return options_of(self._core.options_text)

    @property
    def in_features(self) -> int:
        return self._core.in_

    @property
    def out_features(self) -> int:
        return self._core.out

    @property
    def parameters(self) -> dict[str, FloatArray]:
        """By name, the memory that is computed with."""
        return dict(self._parameters)

    @property
    def gradients(self) -> dict[str, FloatArray]:
        """By name, the memory that backward() adds to; those that do not learn are left out."""
        return {t.name: self._gradient_numbers[t.first:t.first + t.size].reshape(t.shape)
                for t in self._core.tensors() if t.trained}

    @property
    def threads(self) -> int:
        """How many compute a call; the bits do not depend on it. Layers with as many share them."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        self._core.set_threads(count)
        self._threads = count

    def __repr__(self) -> str:
        return f"mole.Linear({self.preset!r}, in={self.in_features}, out={self.out_features}, {self._core.options_text})"

    # ---- calls

    def forward(self, x: Floats, y: Floats = None, *, training: bool = False, seed: int = 0, layer: int = 0, step: int = 0,
                first_token: int = 0, token_mask: npt.ArrayLike | None = None, routed: npt.ArrayLike | None = None,
                forced: npt.ArrayLike | None = None, labels: npt.ArrayLike | None = None,
                allowed: npt.ArrayLike | None = None, sequence_begin: npt.ArrayLike | None = None) -> FloatArray:
        """y [..., out] of x [..., in], float32 without gaps; y is made unless it is given.

        training is with dropout and noise, whose key are seed, layer, step and the number of the token. Of the arrays
        with an entry for each token, 0 in token_mask leaves a token out of losses, 0 in routed leaves it to the frozen
        layer, forced names its only expert (-1: the gate chooses) or, for poly and mtl_lora, its task, labels its task
        for routers that read it, and allowed [N x E] rules experts out. sequence_begin has the first rows of sequences.
        """
        rows = as_rows(x, self.in_features, "forward: x")
        shape = rows.shape[:-1] + (self.out_features,)
        result = np.empty(shape, np.float32) if y is None else as_result(y, shape, "forward: y", rows)
        settings = Settings(training, seed, layer, step, first_token, token_mask, routed, forced, labels, allowed,
                            sequence_begin)
        self._last.call = self._last.x = None  # its workspace serves this call
        call = self._core.forward(rows.ctypes.data, result.ctypes.data, rows.size // self.in_features, settings)
        self._last.call, self._last.x = call, rows
        return result

    __call__ = forward

    def backward(self, d_y: Floats, d_x: Floats = None, *, input_gradient: bool = True) -> FloatArray | None:
        """After a forward of this thread, once: adds to gradients, and to d_x, which is made unless it is given.

        x must hold what it held in forward. Without input_gradient d_x is not computed, and the result is None.
        """
        call = self._last_call("backward")
        x: FloatArray = self._last.x
        shape = x.shape[:-1] + (self.out_features,)
        given = as_rows(d_y, self.out_features, "backward: d_y")
        if given.size != call.tokens * self.out_features:
            raise ShapeError(f"backward: d_y: expected the shape {shape}, found {given.shape}")
        result: FloatArray | None = None
        if d_x is not None:
            result = as_result(d_x, x.shape, "backward: d_x", x, given)
        elif input_gradient:
            result = np.zeros(x.shape, np.float32)
        self._core.backward(call, given.ctypes.data, 0 if result is None else result.ctypes.data)
        return result

    def zero_gradients(self) -> None:
        self._gradient_numbers[...] = 0
        if self._share is not None:
            library.layer_zero_gradients(self._core.address)

    @property
    def routing(self) -> Routing:
        """Of the last forward of this thread."""
        return self._core.routing(self._last_call("routing"))

    def load_balance(self, coefficient: float = 1.0, **options: Option) -> float:
        """The loss that spreads tokens over experts, between forward and backward, which sends its gradient to the router
        together with that of y. Options are those of mole/loss/load_balance.hpp."""
        return self._core.load_balance(self._last_call("load_balance"), {"coefficient": coefficient, **options})

    def router_z(self, coefficient: float = 1.0) -> float:
        """The same for the loss that keeps logits small."""
        return self._core.router_z(self._last_call("router_z"), coefficient)

    def balance(self, rate: float, counts: npt.ArrayLike | None = None) -> None:
        """Moves the balancing bias of deepseek_v3, smora and flylora by `rate`, after a step, towards experts with fewer
        tokens than the mean: by sums of routing.counts, or else by those of the last forward."""
        if counts is None:
            counts = self._core.loads(self._last_call("balance"))
        self._core.balance(counts, rate)

    def _last_call(self, who: str) -> Call:
        call: Call | None = getattr(self._last, "call", None)
        if call is None:
            raise OrderError(f"{who}: expected a forward in this thread before, found none")
        return call

    # ---- training, merging, files

    def set_trainable(self, *, router: bool = True, experts: bool = True) -> None:
        """Which parts learn from now on. All gradients start at zero."""
        with self._core.lock:
            library.layer_set_trainable(self._core.address, int(router), int(experts))
            self._gradient_numbers[...] = 0
            self._core.bind(0, self._gradient_numbers.ctypes.data if self._core.size else 0)
            self._core.forget_gradients()

    def set_weight(self, weight: Floats, bias: Floats = None, *, pack: Optional[bool] = None) -> None:
        """Another weight of the same sizes: of one that was packed, after it has changed."""
        pack = self._pack if pack is None else pack
        described, keep = described_weight(weight, bias, pack, self.preset)
        self._core.set_weight(described, keep + [each for each in self._parameters.values()] + [self._gradient_numbers])
        self._weight, self._bias, self._pack = weight, bias, pack

    def renew_router(self) -> None:
        """Of arrow, whose router is computed from its experts: anew, of these as they are now."""
        library.layer_renew_router(self._core.address)

    def discretize(self, ratio: float) -> None:
        """Of diffora: keeps the largest ceil(ratio * modules) gates of each layer as 1, the others are 0, for all layers
        that share them. A negative ratio makes them as they were trained again."""
        library.layer_discretize(self._core.address, ratio)

    def merged_weight(self) -> FloatArray:
        """A copy of W with what the experts add. NotMergeableError for a layer whose experts depend on the token."""
        merged = np.array(self._weight, np.float32, order="C")
        library.layer_merge(self._core.address, merged.ctypes.data)
        return merged

    def save(self, path: Union[str, os.PathLike[str]]) -> None:
        """Parameters and state as safetensors, beside the file at first and then renamed."""
        library.layer_save(self._core.address, os.fsencode(path))

    def load(self, path: Union[str, os.PathLike[str]]) -> None:
        """Into a layer of the same preset, options and sizes; after a failure it is as before."""
        library.layer_load(self._core.address, os.fsencode(path))

    def to_bytes(self) -> bytes:
        """What save() writes."""
        return self._core.to_bytes()

    def from_bytes(self, data: bytes) -> None:
        self._core.from_bytes(data)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._share is not None:
            raise OrderError(f"{self.preset}: expected a layer with numbers of its own to copy, found one that shares a pool")
        return _rebuilt, (self.preset, self._weight, self._bias, self._pack, self._threads, self.options, self.to_bytes())


def _rebuilt(preset: str, weight: Any, bias: Any, pack: bool, threads: int, options: dict[str, Any],
             data: bytes) -> Linear:
    layer = Linear(preset, weight, bias, pack=pack, threads=threads, **options)
    layer.from_bytes(data)
    return layer


class AdamW:
    """Steps all trained tensors of some layers by their gradients, which stay as they are.

    Options are learning_rate, beta1, beta2, epsilon, weight_decay, epsilon_on_raw and bias_correction.
    """

    def __init__(self, layers: Union[Linear, Sequence[Linear]], **options: Option) -> None:
        self._layers = [layers] if isinstance(layers, Linear) else list(layers)
        self._handles = (c_void_p * len(self._layers))(*(layer._core.address for layer in self._layers))
        self._adamw = handle(library.adamw_create, text_of("AdamW", options))

    def __del__(self) -> None:
        library.adamw_destroy(getattr(self, "_adamw", None))

    def step(self) -> None:
        library.adamw_step(self._adamw, self._handles, len(self._layers))

    def set_learning_rate(self, learning_rate: float) -> None:
        library.adamw_set_learning_rate(self._adamw, learning_rate)

    def zero_gradients(self) -> None:
        for layer in self._layers:
            layer.zero_gradients()

    def clip_norm(self, max_norm: float) -> float:
        """Scales all gradients so that their common norm is at most max_norm; that before."""
        norm = c_double()
        library.clip_norm(self._handles, len(self._layers), max_norm, byref(norm))
        return norm.value

    def save(self, path: Union[str, os.PathLike[str]]) -> None:
        library.adamw_save(self._adamw, os.fsencode(path))

    def load(self, path: Union[str, os.PathLike[str]]) -> None:
        library.adamw_load(self._adamw, os.fsencode(path), self._handles, len(self._layers))
