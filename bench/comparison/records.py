# SPDX-License-Identifier: MIT
"""Times of many runs, merged: one record for each library, form, case, direction, T and d."""
import json
import statistics

KEY = ("library", "form", "variant", "case", "direction", "T", "d", "threads")
CASES = {  # as layer_case.hpp has them
    "plain": "plain", "lora": "one LoRA", "top2": "top-2 of 8", "dense8": "dense 8",
    "rankwise": "rank-wise 8 of 64", "flylora": "FlyLoRA 8 of 32", "topp": "top-p 0.75",
}
DIRECTIONS = {"forward": "forward", "forward_backward": "forward + backward"}


def merged(lines):
    """Medians over runs; of the variants of a form, the fastest. Limits: the best seen."""
    samples, limits = {}, {}
    for line in lines:
        if line["library"] == "machine":
            best = limits.setdefault(line["d"], dict(line))
            best.update({what: max(best[what], line[what]) for what in ("flops", "bandwidth")})
        elif "seconds" in line:
            samples.setdefault(tuple(line.get(field) for field in KEY), []).append(line)
    fastest = {}
    for same in samples.values():
        record = dict(same[-1], seconds=statistics.median(line["seconds"] for line in same), runs=len(same))
        form = tuple(record.get(field) for field in KEY if field != "variant")
        if form not in fastest or record["seconds"] < fastest[form]["seconds"]:
            fastest[form] = record
    return list(limits.values()) + list(fastest.values())


class Comparison:
    """What a file of records holds."""

    def __init__(self, records):
        self.facts = next((r for r in records if r["library"] == "run"), {})
        self.limits = {r["d"]: r for r in records if r["library"] == "machine"}
        self.times = [r for r in records if "seconds" in r]
        self.widths = sorted({r["d"] for r in self.times})
        self.tokens = sorted({r["T"] for r in self.times})
        self.cases = [case for case in CASES if any(r["case"] == case and r["library"] == "mole" for r in self.times)]

    @classmethod
    def read(cls, path):
        with open(path, encoding="utf-8") as file:
            return cls([json.loads(line) for line in file if line.strip()])

    def keep(self, widths="", tokens="", cases=""):
        """Shows these alone, comma-separated; all where empty."""
        def chosen(all_of, wanted):
            return [one for one in all_of if not wanted or str(one) in wanted.split(",")]

        self.widths, self.tokens = chosen(self.widths, widths), chosen(self.tokens, tokens)
        self.cases = chosen(self.cases, cases)

    def find(self, library, case, direction, tokens, d, form=None):
        """The record, or None."""
        for r in self.times:
            if (r["library"], r["case"], r["direction"], r["T"], r["d"], r.get("form")) == (
                    library, case, direction, tokens, d, form):
                return r
        return None

    def peers(self):
        """Libraries beside mole and PyTorch."""
        return sorted({r["library"] for r in self.times} - {"mole", "PyTorch"})

    def has_torch(self):
        return any(r["library"] == "PyTorch" for r in self.times)

    def least_seconds(self, case, direction, tokens, d):
        """The roofline of one thread; None without the work that mole's program counted."""
        record, limits = self.find("mole", case, direction, tokens, d), self.limits.get(d)
        if not record or not limits or record["threads"] != 1:
            return None
        return max(record["flops"] / limits["flops"], record["bytes"] / limits["bandwidth"])
