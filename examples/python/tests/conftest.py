# SPDX-License-Identifier: MIT
"""Numbers that the tests share, and how they are compared."""
from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are so small that threads of torch would wait for each other

IN, OUT, TOKENS = 16, 12, 7

# Options that fit a layer of this size.
OPTIONS = {
    "oft": dict(block=4), "vera": dict(rank=8), "randlora": dict(rank=4), "nola": dict(bases=6, rank=2),
    "moram": dict(ranks=[10, 8], k=6), "mos": dict(rank=6, layers=2), "vblora": dict(vectors=8, length=4, rank=3),
}
TASKS = {"poly", "mtl_lora"}  # each token has a task


def random(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def close(found, expected, tolerance=1e-5):
    """Relative to the largest number."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(found - expected).max(initial=0)) <= tolerance * scale


@pytest.fixture
def weight():
    return random(OUT, IN, seed=1, scale=0.3)


@pytest.fixture
def bias():
    return random(OUT, seed=2)


@pytest.fixture
def x():
    return random(TOKENS, IN, seed=3)


@pytest.fixture
def d_y():
    return random(TOKENS, OUT, seed=4)


def pytest_report_header():
    """What is left out, if anything."""
    left_out = []
    for name in ("torch", "transformers", "peft"):
        try:
            __import__(name)
        except ImportError:
            left_out.append(name)
    return "tests against " + ", ".join(left_out) + " are left out: it cannot be imported" if left_out else None
