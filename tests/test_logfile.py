from __future__ import annotations

import gzip
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmeasure.errors import MeasurementError
from perfmeasure.logfile import DAY_SECONDS, LogFile, compress_archive
from perfmeasure.units import log_stamp

MIDNIGHT = 1_795_305_600  # 2026-11-22 00:00:00 UTC


def line(unix_ts: float, text: str = "x") -> bytes:
    return f"{log_stamp(unix_ts)} {text}\n".encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tgen-client" / "perfmeasure.tgen.log"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "log_archive"


def archived(archive: Path) -> dict[str, bytes]:
    return {str(p.relative_to(archive)): p.read_bytes() for p in archive.rglob("*.log*")}


def test_lines_are_appended_across_openings(path: Path) -> None:
    for text in "ab":
        log = LogFile(path)
        log.write(line(MIDNIGHT, text), MIDNIGHT)
        log.close()
    assert path.read_bytes() == line(MIDNIGHT, "a") + line(MIDNIGHT, "b")


def test_first_line_of_a_new_day_rotates(path: Path, archive: Path) -> None:
    log = LogFile(path, archive)
    log.write(line(MIDNIGHT - 0.000001, "old"), MIDNIGHT - 0.000001)
    log.write(line(MIDNIGHT, "new"), MIDNIGHT)
    log.close()
    assert path.read_bytes() == line(MIDNIGHT, "new")
    assert archived(archive) == {
        "2026-11-21/tgen-client/perfmeasure_2026-11-21_23:59:59.tgen.log": line(
            MIDNIGHT - 0.000001, "old"
        )
    }


def test_a_log_that_has_grown_too_big_rotates_within_its_day(path: Path, archive: Path) -> None:
    log = LogFile(path, archive, rotate_at_bytes=100)
    assert log.is_empty
    entry = line(MIDNIGHT, "y" * 30)
    for _ in range(5):
        log.write(entry, MIDNIGHT)
    assert not log.is_empty
    folder = "2026-11-22/tgen-client/perfmeasure_2026-11-22_23:59:59"
    assert archived(archive) == {
        f"{folder}.tgen.log": entry * 2, f"{folder}.2.tgen.log": entry * 2,
    }  # fmt: skip
    assert path.read_bytes() == entry


def test_an_idle_log_rotates_when_asked_and_an_empty_one_leaves_no_archive(
    path: Path, archive: Path
) -> None:
    log = LogFile(path, archive, 20)
    log.rotate_if_due(MIDNIGHT)
    log.write(line(MIDNIGHT + 5), MIDNIGHT + 5)
    log.rotate_if_due(MIDNIGHT + 19.9)
    assert archived(archive) == {}
    log.rotate_if_due(MIDNIGHT + 20)
    log.rotate_if_due(MIDNIGHT + 40)
    log.close()
    assert list(archived(archive)) == [
        "2026-11-22/tgen-client/perfmeasure_2026-11-22_00:00:19.tgen.log"
    ]
    assert path.read_bytes() == b""


def test_a_period_that_does_not_divide_the_day_is_cut_at_midnight(
    path: Path, archive: Path
) -> None:
    log = LogFile(path, archive, 50_000)
    for moment in (MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 49_999, MIDNIGHT + 50_000):
        log.write(line(moment), moment)
    log.close()
    assert sorted(archived(archive)) == [
        "2026-11-21/tgen-client/perfmeasure_2026-11-21_23:59:59.tgen.log",
        "2026-11-22/tgen-client/perfmeasure_2026-11-22_13:53:19.tgen.log",
    ]


def test_a_restart_after_midnight_archives_yesterday_by_the_date_of_its_lines(
    path: Path, archive: Path
) -> None:
    log = LogFile(path, archive)
    log.write(line(MIDNIGHT - 10, "yesterday"), MIDNIGHT - 10)
    log.close()
    again = LogFile(path, archive)
    again.write(line(MIDNIGHT + 10, "today"), MIDNIGHT + 10)
    again.close()
    assert path.read_bytes() == line(MIDNIGHT + 10, "today")
    assert [b"yesterday" in text for text in archived(archive).values()] == [True]


def test_two_archives_of_one_period_keep_both(path: Path, archive: Path) -> None:
    for text in ("one", "two"):
        log = LogFile(path, archive)
        log.write(line(MIDNIGHT - 10, text), MIDNIGHT - 10)
        log.rotate_if_due(MIDNIGHT)
        log.close()
        compress_archive(archive)
    names = sorted(archived(archive))
    assert [Path(name).name for name in names] == [
        "perfmeasure_2026-11-21_23:59:59.2.tgen.log.gz",
        "perfmeasure_2026-11-21_23:59:59.tgen.log.gz",
    ]
    assert [gzip.decompress((archive / name).read_bytes()) for name in names] == [
        line(MIDNIGHT - 10, "two"),
        line(MIDNIGHT - 10, "one"),
    ]


def test_a_late_line_goes_to_an_archive_of_its_own_date(path: Path, archive: Path) -> None:
    log = LogFile(path, archive)
    log.write(line(MIDNIGHT + 1, "new"), MIDNIGHT + 1)
    log.write(line(MIDNIGHT - 1, "late"), MIDNIGHT - 1)
    log.write(line(MIDNIGHT + 2, "newer"), MIDNIGHT + 2)
    log.close()
    assert path.read_bytes() == line(MIDNIGHT + 2, "newer")
    assert archived(archive) == {
        f"{day}/tgen-client/perfmeasure_{day}_23:59:59.tgen.log": text
        for day, text in (
            ("2026-11-21", line(MIDNIGHT - 1, "late")),
            ("2026-11-22", line(MIDNIGHT + 1, "new")),
        )
    }


def test_a_clock_that_was_set_back_costs_one_archive(path: Path, archive: Path) -> None:
    log = LogFile(path, archive)
    log.write(line(MIDNIGHT + 1), MIDNIGHT + 1)
    for second in range(-100, 100):
        log.write(line(MIDNIGHT + second), MIDNIGHT + second)
    log.close()
    assert len(archived(archive)) == 2


def test_a_cut_last_line_is_ended_so_that_the_next_one_stays_whole(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(line(MIDNIGHT) + b"2026-11-22 00:0")
    log = LogFile(path)
    log.write(line(MIDNIGHT + 1, "next"), MIDNIGHT + 1)
    log.close()
    assert path.read_bytes() == line(MIDNIGHT) + b"2026-11-22 00:0\n" + line(MIDNIGHT + 1, "next")


@pytest.mark.parametrize("number", [b"inf", b"nan", b"1e300", b"-1", b"x"])
def test_a_first_line_with_an_impossible_stamp_is_passed_over(path: Path, number: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(b"a b " + number + b" c\n")
    log = LogFile(path)
    log.write(line(MIDNIGHT), MIDNIGHT)
    log.close()
    assert path.read_bytes().endswith(b" c\n" + line(MIDNIGHT))


def test_a_full_disk_leaves_whole_lines(path: Path) -> None:
    log = LogFile(path)
    log.write(line(MIDNIGHT), MIDNIGHT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.write(line(MIDNIGHT, "y" * 200), MIDNIGHT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == line(MIDNIGHT)
    log.write(line(MIDNIGHT, "again"), MIDNIGHT)
    log.close()
    assert path.read_bytes() == line(MIDNIGHT) + line(MIDNIGHT, "again")


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MeasurementError, match="cannot be written"):
        LogFile(tmp_path / "file" / "perfmeasure.tgen.log")


def test_compression_keeps_every_byte_and_what_a_killed_run_left_is_done_again(
    path: Path, archive: Path
) -> None:
    log = LogFile(path, archive)
    text = b"".join(line(MIDNIGHT - 100 + i) for i in range(100))
    log.write(text, MIDNIGHT - 100)
    log.rotate_if_due(MIDNIGHT)
    log.close()
    (original,) = archive.rglob("*.log")
    original.with_name(f".{original.name}.gz").write_bytes(b"half")
    (made,) = compress_archive(archive)
    assert gzip.decompress(made.read_bytes()) == text
    assert [p.name for p in archive.rglob("*") if p.is_file()] == [made.name]
    assert compress_archive(archive) == []


@given(
    st.lists(st.integers(-3 * DAY_SECONDS, 3 * DAY_SECONDS), min_size=1, max_size=40),
    st.sampled_from([20, 3600, DAY_SECONDS]),
    st.data(),
)
def test_no_line_is_lost_and_each_is_filed_under_its_date(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[int], every: int, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("log")
    live = root / "tgen-client" / "perfmeasure.tgen.log"
    archive = root / "log_archive"
    written = []
    steps = [(offset, data.draw(st.booleans()), data.draw(st.booleans())) for offset in offsets]
    log = LogFile(live, archive, every)
    for number, (offset, is_restart, is_compression) in enumerate(steps):
        entry = line(MIDNIGHT + offset, str(number))
        log.write(entry, MIDNIGHT + offset)
        written.append(entry)
        if is_restart:
            log.close()
            log = LogFile(live, archive, every)
        if is_compression:
            compress_archive(archive)
    log.close()
    compress_archive(archive)
    found = live.read_bytes().splitlines(keepends=True)
    for packed in archive.glob("*/*/*.gz"):
        lines = gzip.decompress(packed.read_bytes()).splitlines(keepends=True)
        assert {entry[:10].decode() for entry in lines} == {packed.parent.parent.name}
        found += lines
    assert sorted(found) == sorted(written)
