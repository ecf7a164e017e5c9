# ruff: noqa: S608 - the statements are made of what stands here

from __future__ import annotations

from perfmeasure.topology import exposition, families, series
from tests.topology import fleet_rows

BEGIN = fleet_rows.BEGIN


def test_what_is_now_is_told_and_what_was_is_not() -> None:
    connection = fleet_rows.empty()
    connection.execute(
        f"""
        INSERT INTO listeners VALUES
            ('a', 1, 'w"e\\b{chr(10)}', 'tcp', '10.0.0.1', 80, false, 1, {BEGIN - 9e6}, NULL),
            ('a', 1, 'gone', 'tcp', '10.0.0.1', 81, false, 1, {BEGIN}, {BEGIN + 5});
        INSERT INTO connections VALUES
            ('a', 1, 'app', 1, 'active', 'tcp', '10.0.0.1', 5, '10.0.0.1', 80, 100, 23, {BEGIN},
             {BEGIN + 60}, 'ebpf'),
            ('a', 1, 'yesterday', 1, 'active', 'tcp', '10.0.0.1', 5, '10.0.0.1', 80, 1, 1,
             {BEGIN - 60}, {BEGIN - 50}, 'ebpf'),
            ('a', 1, NULL, 1, 'unknown', 'tcp', '10.0.0.1', 500, '10.0.0.1', 80, 4, 5, {BEGIN},
             NULL, 'polling');
        """
    )
    series.build(connection)
    text = exposition.text(connection, families.RAW).decode()
    changed = families.protected('w"e\\b\n').replace("\\", "\\\\").replace('"', '\\"')
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    called = 'src_instance_id="a",dst_ip="10.0.0.1",dst_port="80",protocol="tcp"'
    app = f'{{src_service="app",{called},source="ebpf"}}'
    unknown = f'{{{called},source="polling"}}'
    place = 'instance_id="a",instance_ip="10.0.0.1"'
    web = f'name="{changed}",listen_ports="80",listen_port="80",protocol="tcp"'
    assert lines == [
        f"services{{{place},{web}}} 1",
        f"service_connection{app} 123",
        f"service_connection_sent{app} 100",
        f"service_connection_count{app} 1",
        f"service_connection_open{unknown} 9",
        f"service_connection_open_sent{unknown} 4",
        f"service_connection_open_count{unknown} 1",
    ]
    assert "# TYPE service_connection counter\n" in text
    assert "# HELP services 1 while" in text


def test_the_same_rows_give_the_same_bytes() -> None:
    texts = set()
    for _ in range(2):
        connection = fleet_rows.fleet(hosts=2, calls=30)
        series.build(connection)
        texts.add(exposition.text(connection, families.RAW))
    assert len(texts) == 1
