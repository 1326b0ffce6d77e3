"""Remarks about readable files are shown to the user, whether the files are decoded or cached."""

from conftest import write_pair
from PIL import Image

from core.data import cache, cityscapes_pairs, remarks


def test_remarks_of_one_kind_become_one_line_with_a_count():
    with remarks.collect() as found:
        remarks.add("turned", "a.jpg: turned")
        remarks.add("white", "b.tif: white is 4095")
        remarks.add("turned", "c.jpg: turned")
    assert remarks.summary(found) == ["a.jpg: turned (2 such files in total)", "b.tif: white is 4095"]
    remarks.add("turned", "nobody collects this one")


def test_a_cache_repeats_the_remarks_of_its_files(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        write_pair(tmp_path / split / "1.jpg")
        write_pair(tmp_path / split / "2.jpg", exif=exif)
        write_pair(tmp_path / split / "3.jpg", exif=exif)
    dataset = cityscapes_pairs.road_dataset(size=16, road_rgb=(128, 64, 128), road_tolerance=30)
    for _ in range(2):  # the first call decodes, the second reads the cache
        cache.prepare(dataset, tmp_path, "train", tmp_path / "cache")
        warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 1
        assert "2.jpg: turned upright by its EXIF" in warnings[0] and "(2 such files in total)" in warnings[0]
