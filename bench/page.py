"""What a visitor of a year waits for: time and bytes until the first curve, and until all of them.

Makes a docroot of 365 days of synthetic transfers, serves it over loopback by the docroot's own
server, and opens it with Chromium without a window, each time with an empty cache:

    python bench/page.py [--transfers-an-hour 5] [--rounds 5]

Times are the browser's, from the start of the navigation to the moment at which a figure is on
the page. Bytes are what came over the wire, headers included. Also: CPU seconds to publish one day
into that docroot.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perfmeasure.analysis.dayfigures import day_figures
from perfmeasure.web import figures
from perfmeasure.web.publisher import publish

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))

import synthetic
from browser import Browser, browsing

DAYS = 365
LAST = dt.date(2026, 11, 22)


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfers-an-hour", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perfmeasure-bench-") as name:
        docroot = Path(name)
        make(docroot, 24 * arguments.transfers_an_hour)
        server = subprocess.Popen(
            [sys.executable, "-m", "perfmeasure", "serve", name, "--http-port", "0"],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stderr is not None
            url = server.stderr.readline().split(" at ")[1].split()[0].rstrip("/")
            with browsing() as browser:
                browser.like()
                for view in ("now", "results"):
                    show(browser, f"{url}/#{view}", view, arguments.rounds)
        finally:
            server.terminate()
            server.wait(20)
    return 0


def make(docroot: Path, transfers: int) -> None:
    """Publish the year, and say what it takes on the disk and to publish one more day."""
    days = {}
    for number in range(DAYS):
        date = str(LAST - dt.timedelta(number))
        found = day_figures(synthetic.day(date, transfers=transfers), date)
        days[date] = (found.points, found.summary, found.transfers)
    publish(docroot, figures.files_of_days(docroot, days))
    stored = sum(path.stat().st_size for path in docroot.rglob("*.json"))
    print(f"{DAYS} days of {transfers} transfers: {stored / 1e6:.0f} MB of figures")
    document = synthetic.day(str(LAST), transfers=transfers + 1)
    before = time.process_time()
    found = day_figures(document, str(LAST))
    day = {str(LAST): (found.points, found.summary, found.transfers)}
    publish(docroot, figures.files_of_days(docroot, day))
    print(f"one day more: {time.process_time() - before:.2f} CPU s")


def show(browser: Browser, url: str, view: str, rounds: int) -> None:
    """Open a view again and again, and print its times and bytes."""
    first, last, sizes = [], [], []
    count = 0
    for _ in range(rounds):
        browser.driver.get("about:blank")
        browser.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        browser.requests()
        browser.open(url)
        count = browser.wait_for_figures(f"#{view}")
        marks = browser.run(
            "return performance.getEntriesByName('figure drawn').map((mark) => mark.startTime)"
        )
        first.append(marks[0])
        last.append(max(marks))
        sizes.append(sum(request["bytes"] for request in browser.requests()))
    print(
        f"{view}: first curve after {statistics.median(first):.0f} ms "
        f"({min(first):.0f} to {max(first):.0f}), all {count} figures after "
        f"{statistics.median(last):.0f} ms ({min(last):.0f} to {max(last):.0f}), "
        f"{statistics.median(sizes) / 1e3:.0f} kB on the wire"
    )


if __name__ == "__main__":
    sys.exit(main())
