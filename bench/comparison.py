"""How often `compare` claims what is not there, and finds what is; and what a comparison costs.

Simulated pairs of datasets (log-normal times, 2 % failures), seeded::

    python -m bench.comparison [--pairs 1000] [--count 500]

Wanted: with no difference, any metric is called different in at most 6 % of the pairs; with times
a tenth longer, the time to first byte is called different in at least 95 %. Exit status 1 when
missed. The cost is in CPU seconds, of pairs as given and of two datasets of a year, 5 an hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import numpy as np

from perfmeasure.analysis.comparison import Verdict, compare
from tests.analysis.simulated import dataset

YEAR = 5 * 24 * 365


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--count", type=int, default=500, help="transfers in each dataset")
    arguments = parser.parse_args()
    claimed: Counter[str] = Counter()
    pairs_claimed = found = 0
    begun = time.process_time()
    for seed in range(arguments.pairs):
        random = np.random.default_rng(seed)
        first, second, slower = (
            dataset(name, random, count=arguments.count, factor=factor)
            for name, factor in (("A", 1.0), ("B", 1.0), ("B", 1.1))
        )
        names = [
            each.name for each in compare(first, second, seed) if each.verdict is Verdict.DIFFERENT
        ]
        claimed.update(names)
        pairs_claimed += bool(names)
        verdicts = {each.name: each.verdict for each in compare(first, slower, seed)}
        found += verdicts["ttfb_p50"] is Verdict.DIFFERENT
    each_seconds = (time.process_time() - begun) / (2 * arguments.pairs)
    false, power = pairs_claimed / arguments.pairs, found / arguments.pairs
    print(f"{arguments.pairs} pairs of {arguments.count} transfers")
    print(f"  nothing differs, any metric called different: {false:.1%} (at most 6 %)")
    for name, count in claimed.most_common():
        print(f"    {name}: {count / arguments.pairs:.1%}")
    print(f"  a tenth slower, ttfb_p50 called different: {power:.1%} (at least 95 %)")
    print(f"  CPU of a comparison: {each_seconds:.2f} s")
    random = np.random.default_rng(0)
    first, second = (dataset(name, random, count=YEAR) for name in "AB")
    begun = time.process_time()
    compare(first, second)
    print(f"  CPU of two years ({YEAR} transfers each): {time.process_time() - begun:.1f} s")
    return int(false > 0.06 or power < 0.95)


if __name__ == "__main__":
    sys.exit(main())
