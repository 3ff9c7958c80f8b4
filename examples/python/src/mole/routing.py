# SPDX-License-Identifier: MIT
"""Routing: which experts served which token, as arrays."""
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Routing:
    """Of one forward, copied. The pairs of token n are at first[n] ... first[n + 1] - 1 of experts and gates."""

    counts: npt.NDArray[np.int64]
    """[E] tokens that each expert served"""
    first: npt.NDArray[np.int64]
    """[N + 1] where the pairs of a token begin"""
    experts: npt.NDArray[np.int32]
    """[pairs] the largest gates of a token need not come first: the order is that of the selection"""
    gates: npt.NDArray[np.float32]
    """[pairs]"""
    logits: npt.NDArray[np.float32]
    """[N x columns] what the router said; the experts with a logit come first"""
    scores: npt.NDArray[np.float32]
    """[N x columns] what the gate chose by"""
    nan_tokens: int
    """tokens with a NaN among their logits"""

    @property
    def tokens(self) -> int:
        return len(self.first) - 1

    def of_token(self, token: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Experts and gates of one token."""
        part = slice(int(self.first[token]), int(self.first[token + 1]))
        return self.experts[part], self.gates[part]

    def token_of_pair(self) -> npt.NDArray[np.int64]:
        """[pairs]"""
        return np.repeat(np.arange(self.tokens, dtype=np.int64), np.diff(self.first))

    def dense(self) -> npt.NDArray[np.float32]:
        """[N x E] gates, 0 where an expert did not serve a token."""
        gates: npt.NDArray[Any] = np.zeros((self.tokens, len(self.counts)), np.float32)
        gates[self.token_of_pair(), self.experts] = self.gates
        return gates
