"""Pictures of what a network does: panels of photo, truth, prediction and errors."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION = 18  # pixels above each row
WRONG = (225, 45, 60)


def colours(class_ids, palette):
    """Class ids uint8 [H, W] -> RGB uint8 [H, W, 3]."""
    return np.array(palette, np.uint8)[class_ids]


def errors(photo, truth, prediction):
    """The photo, grey, tinted red where the prediction is wrong: uint8 [H, W, 3]."""
    grey = photo.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    wrong = (truth != prediction)[..., None]
    return np.where(wrong, 0.3 * grey + 0.7 * np.array(WRONG), grey).astype(np.uint8)


def panel(photos, truths, predictions, palette, captions):
    """One PIL image, a row for each example: photo, truth, prediction, errors.

    photos: uint8 [N, H, W, 3]; truths, predictions: class ids uint8 [N, H, W];
    captions: N texts, put before the titles of the columns.
    """
    height, width = truths.shape[1:]
    sheet = Image.new("RGB", (4 * width, len(photos) * (height + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (photo, truth, prediction) in enumerate(zip(photos, truths, predictions)):
        top = row * (height + CAPTION)
        share = np.mean(truth != prediction)
        titles = (captions[row], "truth", "prediction", f"errors {share:.1%}")
        pictures = (
            photo,
            colours(truth, palette),
            colours(prediction, palette),
            errors(photo, truth, prediction),
        )
        for column, (title, picture) in enumerate(zip(titles, pictures)):
            draw.text((column * width + 3, top + 2), title, "black", font)
            sheet.paste(Image.fromarray(picture), (column * width, top + CAPTION))
    return sheet


def curves(history):
    """Loss and figures over the epochs, a matplotlib Figure; None without matplotlib.

    history: a list of dicts with the same keys, one for each epoch.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:  # the optional extra `plots`
        return None
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name in ("train_loss", "val_loss"):
        left.plot(epochs, [row[name] for row in history], label=name)
    for name in history[0]:
        if name.startswith("val_") and "/" not in name and "averaged" not in name and name != "val_loss":
            right.plot(epochs, [row[name] for row in history], label=name)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
