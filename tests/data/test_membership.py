"""The run folder records which photos the run was trained on."""

import numpy as np
from conftest import decoded, refused

from core.data import membership


def examples(folder, values):
    folder.mkdir()
    images = np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 4, 4, 3))
    return decoded(folder, images, images[..., 0])


def test_photos_are_recognised_after_the_data_moved_and_grew(tmp_path):
    train, val = examples(tmp_path / "train", [1, 2, 3]), examples(tmp_path / "val", [3, 4])
    membership.write(tmp_path, train, val)
    record = membership.read(tmp_path)
    moved = examples(tmp_path / "moved", [9, 4, 2, 8])
    assert np.isin(moved.split_hashes, record["train"]).tolist() == [False, False, True, False]
    assert np.isin(moved.split_hashes, record["val"]).tolist() == [False, True, False, False]


def test_old_runs_have_no_record_and_a_damaged_record_is_named(tmp_path):
    assert membership.read(tmp_path) is None
    path = tmp_path / membership.NAME
    for content in (b"", b"no archive", b"PK\x03\x04"):
        path.write_bytes(content)
        with refused(membership.NAME):
            membership.read(tmp_path)
    np.savez(path, train=np.arange(9))
    with refused(membership.NAME):
        membership.read(tmp_path)
