"""Pixels of panels and of pictures of a confusion matrix have the expected colours."""

import numpy as np

from core.inference import render

PALETTE = ((0, 0, 0), (128, 64, 128))


def test_a_panel_shows_photo_truth_prediction_and_errors():
    photo = np.random.RandomState(0).randint(0, 256, (2, 20, 60, 3)).astype(np.uint8)
    truth, prediction = np.zeros([2, 2, 20, 60], np.uint8)
    truth[1, :10] = 1
    prediction[1, 5:10] = 1
    sheet = np.asarray(render.panel(photo, truth, prediction, PALETTE, ["a", "b"]))
    top = 20 + 2 * render.CAPTION  # where the pictures of the second row begin
    second = [sheet[top : top + 20, 60 * column : 60 * (column + 1)] for column in range(4)]
    np.testing.assert_array_equal(second[0], photo[1])
    np.testing.assert_array_equal(second[1], np.array(PALETTE)[truth[1]])
    np.testing.assert_array_equal(second[2], np.array(PALETTE)[prediction[1]])
    grey = second[3].max(axis=-1) == second[3].min(axis=-1)
    np.testing.assert_array_equal(grey, truth[1] == prediction[1])  # wrong pixels are red


def test_a_long_caption_ends_at_its_column():
    blank = np.zeros([1, 20, 60], np.uint8)
    photo = np.zeros([1, 20, 60, 3], np.uint8)
    short, long = (
        np.asarray(render.panel(photo, blank, blank, PALETTE, [caption]))
        for caption in ("a", "a very long name of a file.jpg")
    )
    np.testing.assert_array_equal(short[:, 60:], long[:, 60:])
    assert (short[:, :60] != long[:, :60]).any()


def test_the_confusion_picture_has_a_cell_for_each_pair_of_classes():
    picture = render.confusion(np.array([[90, 10], [0, 5]]), ("background", "road"))
    assert picture.width == picture.height > 2 * 36
    corners = np.asarray(picture, int)[-70::36, -70::36, 0]  # corners of the cells, away from the numbers
    np.testing.assert_allclose(corners, [[26, 230], [255, 0]], atol=1)
