# SPDX-License-Identifier: MIT
"""The programs of README.md run."""
from __future__ import annotations

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_a_program_of_the_readme_runs(number, tmp_path, monkeypatch):
    program = PROGRAMS[number]
    if "import torch" in program:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(program, str(README), "exec"), names)
    assert int(names["step"]) == 99


def test_the_readme_has_two_programs():
    assert len(PROGRAMS) == 2
