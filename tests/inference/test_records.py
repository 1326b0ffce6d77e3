"""shares.jsonl is read even if a killed process left an incomplete last line."""

import json

import pytest
from conftest import refused

from core.inference import records

INCOMPLETE = [
    '{"name": "b"}',
    '{"image": "/b.png"}',
    '{"name": "b", "image": 1}',
    '{"name": 1, "image": "/b.png"}',
]


@pytest.mark.parametrize("line", INCOMPLETE)
def test_a_line_that_is_not_a_record_is_ignored_at_the_end_and_refused_before(tmp_path, line):
    path, record = tmp_path / "shares.jsonl", json.dumps({"image": "/a.png", "name": "a"})
    path.write_text(f"{record}\n{line}")
    with records.opened(tmp_path) as log:
        assert log.names() == {("/a.png", None): "a"}
    path.write_text(f"{line}\n{record}\n")
    with refused("line 1 does not describe an image"):
        records.Records(path)


def test_records_are_written_in_the_given_order(tmp_path):
    path = tmp_path / "shares.jsonl"
    path.write_text('{"image": "cut')  # a line of a killed process
    with records.opened(tmp_path) as log:
        for name in "xcab":
            log.add({"image": f"/{name}.png", "name": name})
        assert [json.loads(line)["name"] for line in path.open()] == [*"xcab"]
        log.move_to_end(["a", "b", "missing", "c"])
    assert [json.loads(line)["name"] for line in path.open()] == ["x", "a", "b", "c"]
