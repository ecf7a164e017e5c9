"""The page in a real browser: every view, on a real measurement and on a year of days."""

from __future__ import annotations

import datetime as dt
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import synthetic
from browser import Browser, browsing

from perfmeasure import jsonio
from perfmeasure.analysis.dayfigures import day_figures
from perfmeasure.web import figures, index
from perfmeasure.web.publisher import publish, publish_day

DAY = "2026-11-22"
HOSTILE = '<img src=x onerror="window.hacked=1">\'"&{{}}</script><script>window.hacked=2</script>'
VIEWS = ("now", "results", "transfers", f"transfers/{DAY}/2", "topology", "files")


@pytest.fixture(scope="module")
def window(require: Callable[..., None]) -> Iterator[Browser]:
    require("chromium", "chromedriver")
    with browsing() as found:
        yield found


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The one window, as if it were new."""
    window.driver.get("about:blank")
    window.like()
    window.requests()
    window.console()
    return window


def publish_days(docroot: Path, documents: Mapping[str, Mapping[str, Any]]) -> None:
    days = {}
    for date, document in documents.items():
        found = day_figures(document, date)
        days[date] = (found.points, found.summary, found.transfers)
    publish(docroot, figures.files_of_days(docroot, days))


def topology(name: str = "tor-relay exit0") -> dict[str, Any]:
    """Return a map of three services on one machine, one thing outside and one ambiguous."""
    services = ["tgen-client", "tor-client", name]
    ids = [f"testhost/{service}" for service in services]
    nodes: list[dict[str, Any]] = [
        {"id": node, "kind": "service", "service": service, "instance": "testhost",
         "instance_ips": ["10.0.0.1"], "ports": [{"port": 9050, "protocol": "tcp"}]}
        for node, service in zip(ids, services, strict=True)
    ]  # fmt: skip
    nodes.append({"id": "external/192.0.2.7:443", "kind": "external", "ip": "192.0.2.7"})
    nodes.append({"id": "ambiguous/10.0.0.9:80", "kind": "ambiguous", "candidates": ["a/b", "c/d"]})
    ids += ["external/192.0.2.7:443", "ambiguous/10.0.0.9:80"]
    start = 1795330000
    edges = [
        {"source": ids[source], "target": ids[target], "protocol": "tcp", "port": 9050,
         "bytes": size, "bytes_sent": size // 10, "bytes_received": size - size // 10,
         "connections": 3, "first_unix_ts": start, "last_unix_ts": start + 590,
         "sources": ["ebpf"], "is_inferred": source == 2}
        for source, target, size in ((0, 1, 52428800), (1, 2, 60000000), (2, 3, 4000), (2, 4, 900))
    ]  # fmt: skip
    buckets = [
        {"start_unix_ts": start, "edges": [[0, 52428800, 3]]},
        {"start_unix_ts": start + 300, "edges": [[1, 60000000, 3], [2, 4000, 3], [3, 900, 3]]},
    ]
    return {
        "type": "perfmeasure-topology", "version": "1.0", "group_by": "service",
        "window": {"start_unix_ts": start, "end_unix_ts": start + 600},
        "nodes": nodes, "edges": edges, "buckets": buckets,
        "coverage": {"input_bytes": 200000000, "matched_bytes": 180000000, "external_bytes": 4000,
                     "ambiguous_bytes": 900, "input_connections": 20, "matched_connections": 12,
                     "lost": {"ring_reservations": 7}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def real(
    serve_long: Callable[..., Any], fixtures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The docroot of a real measurement, with a topology, being served."""
    prefix = tmp_path_factory.mktemp("real")
    shutil.copytree(fixtures / "kernel-run", prefix, dirs_exist_ok=True)
    docroot = prefix / "docroot"
    publish_day(prefix, docroot, DAY, nickname="testhost")
    publish(docroot, {"topology.json": jsonio.canonical(topology())})
    return serve_long(docroot)


@pytest.fixture(scope="module")
def year(serve_long: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A year of days of two hosts, of 5 transfers an hour each."""
    docroot = tmp_path_factory.mktemp("year")
    first = dt.date(2025, 11, 22)
    # Two different days are enough: what counts is how many the page has to load and to draw.
    kinds = [
        day_figures(synthetic.day(DAY, nicknames=("one", "two"), failing=part), DAY)
        for part in (0.02, 0.06)
    ]
    days = {}
    for number in range(365):
        found = kinds[number % 2]
        points = _shifted(found.points, 86400.0 * (number - 365))
        days[str(first + dt.timedelta(number))] = (points, found.summary, found.transfers[:1])
    files = figures.files_of_days(docroot, days)
    last = str(max(days))
    publish(docroot, {name: files[name] for name in files if name.count("/") == 1 or last in name})
    return serve_long(docroot)


def _shifted(points: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the figures of a day as of another day."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: [ts + seconds for ts in of] if key == "unix_ts" else moved(of)
                for key, of in value.items()
            }
        return [moved(of) for of in value] if isinstance(value, list) else value

    found: dict[str, Any] = moved(points)
    return found


def url(served: Any, view: str = "now") -> str:
    return f"http://127.0.0.1:{served.port}/#{view}"


def check_is_clean(browser: Browser, served: Any) -> None:
    """Nothing on the console, no request to anybody else."""
    assert browser.console() == []
    assert browser.hosts() == {f"127.0.0.1:{served.port}"}


# ---- on a real measurement --------------------------------------------------------------------


def test_now_says_that_nothing_runs_and_shows_the_latest_day(browser: Browser, real: Any) -> None:
    browser.open(url(real))
    assert browser.wait_for_figures("#now") == 1
    assert "No measurement" in browser.text("#now")
    assert "10 points in 2 series" in browser.run(
        "return document.querySelector('#now .figure').getAttribute('aria-label')"
    )
    check_is_clean(browser, real)


def test_results_show_all_that_a_day_has(browser: Browser, real: Any) -> None:
    browser.open(url(real, "results"))
    assert browser.wait_for_figures("#results") == 8
    text = browser.text("#results")
    assert "No transfer of this choice failed" in text
    assert "1 MiB by onion" in text
    assert "First relays of the circuits" in text
    day = jsonio.loads((real.docroot / "figures" / DAY / "day.json").read_bytes())
    (host,) = day["nicknames"].values()
    assert {series["ttlb"]["count"] for series in host["series"]} == {5}
    # A click on a point opens its transfer.
    points = host["series"][0]["ttlb"]
    browser.click_figure(
        "#results section[aria-label='Time to last byte'] .figure",
        points["unix_ts"][2] * 1000,
        points["values"][2],
        "return location.hash === arguments[0]",
        f"#transfers/{DAY}/{points['transfers'][2]}",
    )
    browser.wait_for_figures("#transfers")
    check_is_clean(browser, real)


def test_what_is_not_chosen_is_not_drawn(browser: Browser, real: Any) -> None:
    browser.open(url(real, "results"))
    browser.wait_for_figures("#results")
    browser.run("document.querySelector('#results input[type=checkbox]').click()")
    browser.until("return location.hash.includes('hide=')")
    browser.until("return document.querySelectorAll('#results tbody')[0].rows.length === 1")
    browser.wait_for_figures("#results")
    assert "5 points in 1 series" in browser.run(
        "return document.querySelector('#results .figure').getAttribute('aria-label')"
    )
    check_is_clean(browser, real)


def test_one_transfer_from_the_generator_to_the_kernel(browser: Browser, real: Any) -> None:
    browser.open(url(real, f"transfers/{DAY}/2"))
    assert browser.wait_for_figures("#transfers") == 1
    shard = jsonio.loads((real.docroot / "figures" / DAY / "transfers-0.json").read_bytes())
    transfer = shard["transfers"][2]
    text = browser.text("#transfers")
    assert f"Transfer {transfer['id']}" in text
    for relay in transfer["circuit"]["path"]:
        assert relay["nickname"] in text
    assert "generator to tor" in text
    assert "tor to first relay" in text
    # A click on a bar says what it is.
    phases = transfer["phases"]
    middle = transfer["steps"]["last_byte"] - phases["payload"] / 2
    said = "return document.querySelector('#transfers .note').innerText"
    browser.click_figure("#transfers .figure", middle, "payload", said + ".startsWith('payload')")
    # The table says the same, and can be reached by the keyboard.
    browser.run("document.querySelector('#transfers details').open = true")
    rows = browser.run(
        "const [details] = document.querySelectorAll('#transfers details');"
        "return [...details.querySelectorAll('tbody tr')].map((row) => row.cells[0].innerText)"
    )
    assert set(rows) == set(phases)
    browser.run("document.querySelector('#transfers details tbody button').focus()")
    browser.press("Enter", 13)
    browser.until(said + ".startsWith(arguments[0])", rows[0], what="the chosen row")
    check_is_clean(browser, real)


def test_the_list_of_a_day_leads_to_each_transfer_by_keyboard(browser: Browser, real: Any) -> None:
    browser.open(url(real, "transfers"))
    browser.until("return document.querySelectorAll('#transfers tbody tr').length === 10")
    browser.run("document.querySelector('#transfers tbody a').focus()")
    browser.press("Enter", 13)
    browser.until("return location.hash.endsWith('/0')", what="the first transfer")
    browser.wait_for_figures("#transfers")
    check_is_clean(browser, real)


def test_the_map_can_be_clicked_grouped_and_cut_by_time(browser: Browser, real: Any) -> None:
    browser.open(url(real, "topology"))
    assert browser.wait_for_figures("#topology") == 1
    panel = "return document.querySelector('#topology .panel').innerText"
    # The callers are on the left: the client of the transfers calls tor, and tor the relay.
    browser.click_figure("#topology .figure", 1, 1, panel + ".startsWith('testhost/tor-client')")
    assert "57.2 MiB" in browser.run(panel)
    browser.click_figure(
        "#topology .figure", 0.5, 1,
        panel + ".startsWith('testhost/tgen-client → testhost/tor-client')",
    )  # fmt: skip
    rows = "document.querySelectorAll('#topology table')[0].tBodies[0].rows.length"
    assert browser.run(f"return {rows}") == 4
    browser.run(
        "const slider = document.getElementById('topology-time'); slider.value = 1;"
        "slider.dispatchEvent(new Event('input'))"
    )
    browser.until(f"return {rows} === 1", what="the edges of the first bucket")
    browser.run(
        "document.getElementById('topology-time').value = 0;"
        "document.getElementById('topology-time').dispatchEvent(new Event('input'));"
        "const group = document.getElementById('topology-group'); group.value = 'instance';"
        "group.dispatchEvent(new Event('change'))"
    )
    browser.until(f"return {rows} === 3", what="machines")
    assert "lost: ring reservations" in browser.text("#topology")
    assert "90.0 %" in browser.text("#topology section[aria-label='Coverage']")
    browser.wait_for_figures("#topology")
    check_is_clean(browser, real)


def test_files_have_their_checksums(browser: Browser, real: Any) -> None:
    browser.open(url(real, "files"))
    listed = jsonio.loads((real.docroot / "index.json").read_bytes())["files"]
    browser.until("return document.querySelectorAll('#file-table th[scope=col]').length === 4")
    rows = browser.run(
        "return [...document.querySelectorAll('#file-table tbody tr')]"
        ".map((row) => [row.cells[0].innerText, row.cells[3].innerText])"
    )
    sums = {file["name"]: file["sha256"] for file in listed}
    assert len(rows) == 4
    for name, checksum in rows:
        assert sums[name] == checksum
    browser.run(
        "const box = document.getElementById('file-filter'); box.value = 'onionperf';"
        "box.dispatchEvent(new Event('input'))"
    )
    assert "1 of 4 files" in browser.text("#file-tools")
    check_is_clean(browser, real)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_has_nothing_against_any_view(
    browser: Browser, real: Any, scheme: str
) -> None:
    browser.like(scheme=scheme)
    rules = () if scheme == "light" else ("color-contrast",)  # the rest is the same
    for view in VIEWS:
        browser.open(url(real, view))
        if view not in ("transfers", "files"):
            browser.wait_for_figures(f"#{view.partition('/')[0]}")
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        assert browser.violations(*rules) == [], view
    assert browser.run("return document.documentElement.dataset.theme") == scheme


def test_the_theme_can_be_chosen_and_stays(browser: Browser, real: Any) -> None:
    browser.open(url(real))
    browser.run("document.getElementById('theme').click()")
    try:
        browser.open(url(real, "files"))
        assert browser.run("return document.documentElement.dataset.theme") == "dark"
    finally:
        browser.run("localStorage.clear()")


def test_on_a_phone_nothing_sticks_out(browser: Browser, real: Any) -> None:
    browser.like(width=390, height=800)
    try:
        for view in VIEWS:
            browser.open(url(real, view))
            browser.until(
                "return document.querySelector('section.shown').innerText.length > 50", what=view
            )
            assert browser.run("return document.documentElement.scrollWidth") <= 390, view
    finally:
        browser.like()


def test_the_skip_link_and_the_views_are_reached_by_tab(browser: Browser, real: Any) -> None:
    browser.open(f"http://127.0.0.1:{real.port}/")
    browser.wait_for_figures("#now")
    reached = []
    for _ in range(7):
        browser.press("Tab", 9)
        reached.append(browser.run("return document.activeElement.innerText"))
    assert reached[:6] == ["Skip to content", "Now", "Results", "Transfers", "Topology", "Files"]
    assert browser.run("return document.activeElement.id") == "theme"


# ---- on a year ----------------------------------------------------------------------------------


def test_a_year_is_small_on_the_wire_and_all_there(browser: Browser, year: Any) -> None:
    browser.requests()
    browser.open(url(year, "results"))
    assert browser.wait_for_figures("#results") == 9
    asked = browser.requests()
    assert sum(request["bytes"] for request in asked) < 2_000_000
    assert not [request for request in asked if "day.json" in request["url"]]
    assert "by week" in browser.text("#results")
    counted = browser.run(
        "return document.querySelector('#results tbody tr').cells[1].innerText.replaceAll(',', '')"
    )
    assert int(counted) == 365 * 20
    assert (
        browser.run("return document.querySelectorAll('[aria-label=Nicknames] label').length") == 2
    )
    browser.run("[...document.querySelectorAll('#results button')].find((one) => "
                "one.innerText === 'Last day').click()")  # fmt: skip
    browser.until("return location.hash.includes('from=2026-11-21')")
    browser.until("return document.querySelector('#results').innerText.includes('over time')")
    browser.wait_for_figures("#results")
    assert browser.console() == []
    points = browser.run(
        "return Math.max(...Bokeh.documents.flatMap((one) => one.roots().flatMap((plot) => "
        "plot.renderers.map((glyph) => glyph.data_source.get_length() ?? 0))))"
    )
    assert 0 < points <= 1000


# ---- live ---------------------------------------------------------------------------------------


def status(**changes: Any) -> bytes:
    document = {
        "type": "perfmeasure-status", "version": "1.0", "program": "perfmeasure 1.0",
        "state": "running", "unix_ts": dt.datetime.now(dt.UTC).timestamp(),
        "started_unix_ts": dt.datetime.now(dt.UTC).timestamp() - 60, "nickname": "testhost",
        "network": "testnet", "transfer_size_bytes": 51200, "phases": ["transfers: 3 by exit"],
        "transfers": {"exit": {"succeeded": 3, "failed": 0, "wanted": 5}},
        "children": [{"name": "tor-client", "is_running": True, "restarts": 0}],
        "sources": [], "warnings": [],
    }  # fmt: skip
    return jsonio.canonical({**document, **changes})


def put(docroot: Path, name: str, content: bytes) -> None:
    new = docroot / f".{name}.tmp"
    new.write_bytes(content)
    new.replace(docroot / name)


def test_now_follows_the_measurement_without_reloading(
    browser: Browser, serve: Callable[..., Any], tmp_path: Path
) -> None:
    publish(tmp_path, {})
    put(tmp_path, index.STATUS_NAME, status())
    served = serve(tmp_path)
    browser.open(url(served))
    browser.until("return document.querySelector('#now')?.innerText.includes('3 of 5')")
    browser.run("window.isSame = true")
    assert "Running" in browser.text("#now .state")
    put(
        tmp_path,
        index.STATUS_NAME,
        status(
            transfers={"exit": {"succeeded": 3, "failed": 1, "wanted": 5}},
            children=[{"name": "tor-client", "is_running": False, "restarts": 2}],
            warnings=[{"unix_ts": 1795330000.0, "text": "tor-client ended with status 1"}],
        ),
    )
    browser.until("return document.querySelector('#now').innerText.includes('4 of 5')")
    text = browser.text("#now")
    assert "without tor-client" in text
    assert "tor-client ended with status 1" in text
    put(tmp_path, index.STATUS_NAME, status(unix_ts=dt.datetime.now(dt.UTC).timestamp() - 3600))
    browser.until("return document.querySelector('#now').innerText.includes('Silent')")
    put(tmp_path, index.STATUS_NAME, status(state="ended"))
    browser.until("return document.querySelector('#now').innerText.includes('Ended')")
    # Figures that are published meanwhile come by themselves, too.
    assert "No transfer has been published yet" in browser.text("#now")
    publish_days(tmp_path, {DAY: synthetic.day(DAY, transfers=1)})
    assert browser.wait_for_figures("#now") == 1
    assert browser.run("return window.isSame")
    check_is_clean(browser, served)


# ---- what is not as it should be ----------------------------------------------------------------


def test_names_and_errors_from_logs_stay_text(
    browser: Browser, serve: Callable[..., Any], tmp_path: Path
) -> None:
    document = synthetic.day(DAY, transfers=8, nicknames=(HOSTILE,), errors=(HOSTILE,), failing=0.5)
    (node,) = document["data"].values()
    for transfer in list(node["tgen"]["transfers"].values()):
        transfer["error_code"] = HOSTILE if transfer["is_error"] else "NONE"
    for circuit in node["tor"]["circuits"].values():
        circuit["path"] = [[f"{hop}{HOSTILE}", when] for hop, when in circuit["path"]]
    node["tgen"]["transfers"] = {f"{HOSTILE}{n}": t for n, t in node["tgen"]["transfers"].items()}
    publish_days(tmp_path, {DAY: document})
    publish(tmp_path, {"topology.json": jsonio.canonical(topology(HOSTILE))})
    put(
        tmp_path,
        index.STATUS_NAME,
        status(nickname=HOSTILE, warnings=[{"unix_ts": 1.0, "text": HOSTILE}], phases=[HOSTILE]),
    )
    served = serve(tmp_path)
    for view in (*VIEWS, "results?hide=" + HOSTILE, f"transfers/{HOSTILE}/{HOSTILE}"):
        browser.open(url(served, view))
        name = view.partition("/")[0].partition("?")[0]
        if name != "files":
            browser.until(
                "return document.querySelector(arguments[0]).innerText.includes('<img src=x')",
                f"#{name}",
                what=f"the name as text in {name}",
            )
        assert browser.run("return document.images.length + (window.hacked ?? 0)") == 0, view
    # What floats over a figure is made by Bokeh.
    browser.open(url(served, f"transfers/{DAY}/0"))
    browser.wait_for_figures("#transfers")
    browser.open(url(served, "topology"))
    browser.wait_for_figures("#topology")
    x, y = browser.figure_point("#topology .figure", 2, 1)
    browser.driver.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y}
    )
    shown = (
        "const walk = (node) => [...node.querySelectorAll('*')].flatMap((one) => "
        "[one, ...(one.shadowRoot ? walk(one.shadowRoot) : [])]); const all = walk(document);"
    )
    browser.until(
        shown + "return all.some((one) => one.childElementCount === 0 && one.tagName !== 'BUTTON' "
        "&& one.closest?.('section') === null && one.textContent.includes('<img src=x'))",
        what="the name over the map",
    )
    assert browser.run(shown + "return all.filter((one) => one.tagName === 'IMG').length") == 0
    assert browser.run("return window.hacked ?? 0") == 0
    check_is_clean(browser, served)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Any]:
    """A docroot that another web server serves, one that knows nothing of us."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    server.docroot = tmp_path  # type: ignore[attr-defined]
    server.port = server.server_address[1]  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_with_no_data_every_view_says_so(browser: Browser, plain: Any) -> None:
    publish(plain.docroot, {})
    words = {
        "now": "No transfer has been published yet",
        "results": "No results yet",
        "transfers": "No transfers yet",
        "topology": "No topology has been published",
        "files": "Nothing has been published yet",
    }
    for view, said in words.items():
        browser.open(url(plain, view))
        browser.until(
            "return document.querySelector(arguments[0]).innerText.includes(arguments[1])",
            f"#{view}",
            said,
        )
    check_is_clean(browser, plain)


def test_one_transfer_alone_is_shown(browser: Browser, plain: Any) -> None:
    publish_days(plain.docroot, {DAY: synthetic.day(DAY, transfers=1, failing=0)})
    browser.open(url(plain, "results"))
    browser.wait_for_figures("#results")
    text = browser.text("#results")
    assert "50 KiB by exit" in text
    assert "Throughput is told of transfers of 1 MiB and 5 MiB" in text
    browser.open(url(plain, f"transfers/{DAY}/0"))
    browser.wait_for_figures("#transfers")
    assert "connections were not recorded" in browser.text("#transfers")
    assert "None were recorded" in browser.text("#transfers")
    check_is_clean(browser, plain)


def test_packets_are_a_link_or_what_to_ask_for_them_with(browser: Browser, plain: Any) -> None:
    document = synthetic.day(DAY, transfers=2, failing=0)
    [node] = document["data"].values()
    for transfer in node["tgen"]["transfers"].values():
        transfer["packets"] = {"count": 12, "bytes": 2048}
    found = day_figures(document, DAY)
    name = f"packets/{DAY}/host.t_3a1.pcapng"
    found.transfers[1]["packets_file"] = {"name": name, "count": 13, "bytes": 2100}
    days = {DAY: (found.points, found.summary, found.transfers)}
    publish(plain.docroot, {name: b"packets", **figures.files_of_days(plain.docroot, days)})
    browser.open(url(plain, f"transfers/{DAY}/0"))
    browser.wait_for_figures("#transfers")
    text = browser.text("#transfers")
    assert "12 packets, 2 KiB, were on the disk" in text
    assert f'query --prefix DIR "transfer {found.transfers[0]["id"]}"' in text
    browser.open(url(plain, f"transfers/{DAY}/1"))
    browser.wait_for_figures("#transfers")
    assert "packets (pcapng, 13 packets)" in browser.text("#transfers")
    link = "return document.querySelector('#transfers a[download]').href"
    assert browser.run(link).endswith(f"/{name}")
    check_is_clean(browser, plain)


def test_a_day_of_failures_is_told_in_words(browser: Browser, plain: Any) -> None:
    publish_days(plain.docroot, {DAY: synthetic.day(DAY, transfers=6, failing=1)})
    browser.open(url(plain, "results"))
    browser.wait_for_figures("#results")
    text = browser.text("#results")
    assert "No transfer of this choice got its last byte" in text
    assert "0 %" in text
    assert "TGEN/" in text or "TOR" in text
    browser.open(url(plain))
    browser.until("return document.querySelector('#now').innerText.includes('No transfer of this')")
    check_is_clean(browser, plain)


def test_a_link_to_nothing_leads_to_what_there_is(browser: Browser, plain: Any) -> None:
    publish_days(plain.docroot, {DAY: synthetic.day(DAY, transfers=2)})
    for odd in ("nowhere", "transfers/2020-01-01/7", "transfers/x/y/z", f"transfers/{DAY}/99999",
                "results?from=2030-01-01&to=2031-01-01", "results?from=x", "%E0%A4%A"):  # fmt: skip
        browser.open(url(plain, odd))
        browser.until(
            "return document.querySelector('section.shown')?.innerText.length > 20", what=odd
        )
        assert "could not be shown" not in browser.text("main"), odd
    check_is_clean(browser, plain)
