# SPDX-License-Identifier: MIT
"""Runs the programs that are compared, in turn."""
import json
import os
import platform
import subprocess
import sys
import time

PEER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peers", "torch_layers.py")


def python_with_torch():
    """An interpreter that imports torch, or None: a virtual environment's often does not, the system's may."""
    for interpreter in (sys.executable, "python3", "/usr/bin/python3"):
        try:
            if subprocess.run([interpreter, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
                return interpreter
        except OSError:
            continue
    return None


def processor():
    """Its name and instruction sets."""
    name, flags = platform.processor() or platform.machine(), ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                field, _, value = line.partition(":")
                if field.strip() == "model name":
                    name = value.strip()
                if field.strip() == "flags":
                    flags = value
    except OSError:
        pass
    return name, flags.split()


def openblas_core(flags):
    """An OpenBLAS that does not know a processor computes as for one of 2004, 5 times slower: name one that fits."""
    if "avx512f" in flags:
        return "SKYLAKEX"
    return "HASWELL" if "avx2" in flags else ""


def lines_of(command, environment):
    result = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def run(options, say):
    """All lines of all rounds, and facts about the run."""
    name, flags = processor()
    environment = dict(os.environ)
    core = environment.get("OPENBLAS_CORETYPE") or openblas_core(flags)
    if core:
        environment["OPENBLAS_CORETYPE"] = core
    torch = None if options.without_torch else python_with_torch()
    if not torch:
        say("PyTorch is left out: " + ("as asked" if options.without_torch else "no interpreter here imports torch"))
    shape = ["--T", options.T, "--threads", str(options.threads)]
    lines = []
    for turn in range(options.rounds):
        for d in options.d.split(","):
            say(f"round {turn + 1} of {options.rounds}, d = {d}")
            program = os.path.join(options.programs, "layer_times")
            lines += lines_of([program, "--d", d, "--rounds", "3", *shape], environment)
            if torch:
                lines += lines_of([torch, PEER, "--d", d, "--slice", str(options.slice), *shape], environment)
    builds = [line for line in lines if line["library"] == "build"]
    versions = sorted({line["version"] for line in lines if "version" in line})
    loads = [build["load"] for build in builds]
    return lines, {
        "library": "run", "date": time.strftime("%Y-%m-%d"), "processor": name, "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}", "compiler": builds[0]["compiler"],
        "flags": builds[0]["flags"], "PyTorch": ", ".join(versions), "OPENBLAS_CORETYPE": core,
        "threads": options.threads, "rounds": options.rounds, "load": [min(loads), max(loads)],
    }
