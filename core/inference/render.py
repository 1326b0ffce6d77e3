"""Draw results: example photos with truth, prediction and errors; confusion matrices; curves over epochs."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.experiment import IGNORE
from core.metrics import is_metric, is_wrong

CAPTION = 18  # height, in pixels, of the line of text above each row of pictures
WRONG = (225, 45, 60)  # colour of wrong pixels: red
IGNORED = (128, 128, 128)  # colour of pixels whose class id is IGNORE: grey


def colours(class_ids, palette):
    """Convert class ids, uint8 [H, W], to the colours of the classes, RGB uint8 [H, W, 3].

    palette: the RGB colour of each class, 0..255. Pixels with class id IGNORE get the colour IGNORED.
    """
    table = np.zeros([256, 3], np.uint8)
    table[: len(palette)], table[IGNORE] = palette, IGNORED
    return table[class_ids]


def errors(photo, truth, prediction):
    """Return the photo in grey, with wrong pixels tinted red: RGB uint8 [H, W, 3].

    photo: RGB uint8 [H, W, 3]. truth, prediction: class ids, uint8 [H, W]. A pixel is wrong if its predicted
    class differs from its true class. A pixel whose true class is IGNORE is never wrong.
    """
    grey = photo.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    wrong = is_wrong(truth, prediction)[..., None]
    return np.where(wrong, 0.3 * grey + 0.7 * np.array(WRONG), grey).astype(np.uint8)


def panel(photos, truths, predictions, palette, captions):
    """Draw photo, truth, prediction and errors of each example side by side; return a PIL image.

    The image has one row per example. photos: RGB uint8 [N, H, W, 3]. truths, predictions: class ids, uint8
    [N, H, W]. palette: the RGB colour of each class, 0..255. captions: a list of N texts; each is shown above
    the photo of its example.
    """
    height, width = truths.shape[1:]
    sheet = Image.new("RGB", (4 * width, len(photos) * (height + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (photo, truth, prediction) in enumerate(zip(photos, truths, predictions)):
        top = row * (height + CAPTION)
        counted = truth != IGNORE
        share = np.sum((truth != prediction) & counted) / max(np.sum(counted), 1)
        titles = (captions[row], "truth", "prediction", f"errors {share:.1%}")
        pictures = (
            photo,
            colours(truth, palette),
            colours(prediction, palette),
            errors(photo, truth, prediction),
        )
        for column, (title, picture) in enumerate(zip(titles, pictures)):
            left = column * width
            # if the title of the picture to the left is too long, its end is covered with white
            draw.rectangle((left, top, left + width, top + CAPTION), "white")
            draw.text((left + 3, top + 2), title, "black", font)
            sheet.paste(Image.fromarray(picture), (left, top + CAPTION))
    return sheet


def examples_panel(examples, rows, predict, palette):
    """Predict chosen examples and draw them with `panel`; return a PIL image.

    The captions are the file names of the photos. examples: `core.data.cache.Examples`. rows: the indices of
    the chosen examples in examples.images. predict: a function: images uint8 [1, H, W, 3] -> class ids uint8
    [1, H, W]. palette: the RGB colour of each class, 0..255.
    """
    return panel(
        examples.images[rows],
        examples.masks[rows],
        np.concatenate([predict(examples.images[row : row + 1]) for row in rows]),
        palette,
        captions=[examples.files[examples.owner[row]][0].name for row in rows],
    )


def confusion(confusion, classes):
    """Draw a confusion matrix as a PIL image, with one row per true class and one column per predicted class.

    A cell shows a percentage: the share of the pixels of the row's class that were predicted as the column's
    class. Percentages below 0.5 % are not written.
    confusion: int [classes, classes], pixel counts, with one row per true class. classes: the names of the
    classes.
    """
    font, cell = ImageFont.load_default(12), 36
    margin = 12 + int(max(font.getlength(name) for name in classes))
    side = margin + cell * len(classes)
    sheet = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(sheet)
    upright = Image.new("RGB", (margin, side - margin), "white")  # the column names, before their rotation
    for row, name in enumerate(classes):
        middle = cell * (row + 0.5)
        draw.text((margin - 6, margin + middle), name, "black", font, anchor="rm")
        ImageDraw.Draw(upright).text((6, middle), name, "black", font, anchor="lm")
    sheet.paste(upright.rotate(90, expand=True), (margin, 0))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for (row, column), share in np.ndenumerate(shares):
        left, top = margin + cell * column, margin + cell * row
        shade = round(255 * (1 - share))
        draw.rectangle((left, top, left + cell - 2, top + cell - 2), (shade, shade, 255))
        if share >= 0.005:
            colour = "white" if share > 0.5 else "black"
            draw.text((left + cell / 2, top + cell / 2), f"{share:.0%}", colour, font, anchor="mm")
    return sheet


def curves(history):
    """Plot the losses and the validation metrics of a run over its epochs; return a matplotlib Figure.

    Metrics of a single class, such as `val_iou/road`, and the column `val_classes_averaged` are not plotted.
    history: a list with one dict per epoch, column of metrics.csv -> value. Returns None if matplotlib is not
    installed.
    """
    figure = _figure(10, 4)
    if figure is None:
        return None
    losses, metrics = figure.axes
    epochs = [row["epoch"] for row in history]
    for name in ("train_loss", "val_loss"):
        losses.plot(epochs, [row[name] for row in history], label=name)
    for name in history[0]:
        if is_metric(name) and name not in ("train_loss", "val_loss"):
            metrics.plot(epochs, [row[name] for row in history], label=name)
    for axes in figure.axes:
        axes.legend()
    return figure


def compared_curves(histories, metric):
    """Plot the losses and one metric of several runs over their epochs; return a matplotlib Figure.

    histories: a dict, label of a run -> history of the run. `curves` describes a history. metric: the column
    of metrics.csv to plot, such as "val_iou". Returns None if matplotlib is not installed.
    """
    figure = _figure(12, 5)
    if figure is None:
        return None
    losses, metrics = figure.axes
    for number, (label, history) in enumerate(histories.items()):
        epochs, colour = [row["epoch"] for row in history], f"C{number % 10}"
        losses.plot(epochs, [row["train_loss"] for row in history], color=colour, linestyle=":")
        losses.plot(epochs, [row["val_loss"] for row in history], color=colour, label=label)
        metrics.plot(epochs, [row[metric] for row in history], color=colour, label=label)
    losses.set_title("val_loss (dotted: train_loss)")
    metrics.set_title(metric)
    for axes in figure.axes:
        axes.legend()
    return figure


def _figure(width, height):
    """Return a matplotlib Figure with two empty plots side by side, whose x axes are labelled "epoch".

    width, height: the size of the Figure in inches. Returns None if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:  # the optional extra `plots` installs matplotlib
        return None
    figure = Figure(figsize=(width, height), layout="tight")
    for axes in figure.subplots(1, 2):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    return figure
