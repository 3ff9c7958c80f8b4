# SPDX-License-Identifier: MIT
"""Tensors of a pickle as a safetensors file beside it, under the same names.

    python bin2safetensors.py FOLDER/adapter_model.bin

A pickle can run code when it is read. This reads tensors alone (weights_only) and refuses whatever else it holds. Needs
torch and safetensors.
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file


def main():
    if len(sys.argv) != 2:
        print("bin2safetensors: expected one argument, the path of a .bin file", file=sys.stderr)
        return 2
    source = pathlib.Path(sys.argv[1])
    target = source.with_suffix(".safetensors")
    if target.exists():
        print(f"bin2safetensors: expected no file {target} yet, found one", file=sys.stderr)
        return 2
    state = torch.load(source, map_location="cpu", weights_only=True)
    tensors = {name: value.clone().contiguous() for name, value in state.items() if isinstance(value, torch.Tensor)}
    for name in sorted(set(state) - set(tensors)):
        print(f"bin2safetensors: left out {name}, which is no tensor", file=sys.stderr)
    save_file(tensors, target, metadata={"format": "pt"})
    print(f"{target}: {len(tensors)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
