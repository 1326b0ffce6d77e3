"""NumPy archives are read completely or refused."""

import numpy as np

from core.runtime import files
from core.runtime.errors import InputError


def test_an_archive_with_any_byte_inverted_is_refused_or_read_correctly(tmp_path):
    """Some damaged archives are read correctly, because readers ignore some bytes of the Zip headers."""
    path, arrays = tmp_path / "arrays.npz", {"a": np.arange(9), "b": np.arange(3.0)}
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    refusals = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            found = files.read_arrays(path, arrays)
        except InputError:
            refusals += 1
        else:
            np.testing.assert_equal(found, arrays)
    assert refusals > len(whole) / 2
