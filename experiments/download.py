"""Fetch a data set into a folder that its experiment reads, or say how to get it by hand.

Run: python -m experiments.download NAME --data_dir=DIR

NAME, fetched:  oxford_pets (811 MB), cityscapes_pairs
NAME, by hand:  cityscapes_pairs_kaggle, cityscapes, dubai_aerial

An interrupted download goes on where it stopped. A folder that exists is left as it is.
"""

import shlex
from pathlib import Path

from absl import flags

from core.data import download
from core.runtime import cli, files
from core.runtime.errors import InputError

# Data set -> (address, folder that the archive makes, sha256) of each archive.
#
# Oxford: address and digests as TensorFlow Datasets publishes them, in
# tensorflow_datasets/datasets/oxford_iiit_pet/checksums.tsv. Pairs: the address from
# which pix2pix's script took its data sets, over plain HTTP; no digest is published.
ARCHIVES = {
    "oxford_pets": (
        (
            "https://thor.robots.ox.ac.uk/~vgg/data/pets/annotations.tar.gz",
            "annotations",
            "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        ),
        (
            "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
            "images",
            "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
    ),
    "cityscapes_pairs": (
        ("http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/cityscapes.tar.gz", "cityscapes", None),
    ),
}

TERMS = {
    "oxford_pets": "Licence: CC BY-SA 4.0, https://www.robots.ox.ac.uk/~vgg/data/pets/",
    "cityscapes_pairs": (
        "Licence: Cityscapes', non-commercial research alone, https://www.cityscapes-dataset.com/license/\n"
        "Should the address be gone: python -m experiments.download cityscapes_pairs_kaggle"
    ),
}

KAGGLE = """
1. Make an account at https://www.kaggle.com; under Settings, API, create a token
   and save the file as ~/.kaggle/kaggle.json.
2. python -m pip install kaggle"""

BY_HAND = {
    "cityscapes_pairs_kaggle": f"""The Kaggle copy of the pairs needs an account:
{KAGGLE}
3. kaggle datasets download dansbecker/cityscapes-image-pairs --unzip -p {{folder}}
4. python -m experiments.cityscape_road --data_dir={{folder}} --run_dir=runs/cityscapes""",
    "cityscapes": """Cityscapes needs an account and its terms accepted:

1. Register at https://www.cityscapes-dataset.com/register/ and wait for the approval.
2. python -m pip install cityscapesscripts
3. mkdir -p {folder}
   csDownload -d {folder} gtFine_trainvaltest.zip leftImg8bit_trainvaltest.zip
   (asks for the account; 241 MB and 11 GB)
4. unzip -n {folder}/gtFine_trainvaltest.zip -d {folder}
   unzip -n {folder}/leftImg8bit_trainvaltest.zip -d {folder}
   which makes {folder}/gtFine and {folder}/leftImg8bit
5. python -m experiments.cityscapes_labels --data_dir={folder} --run_dir=runs/cityscapes_34""",
    "dubai_aerial": f"""The MBRSC aerial photos of Dubai are on Kaggle, which needs an account:
{KAGGLE}
3. kaggle datasets download humansintheloop/semantic-segmentation-of-aerial-imagery --unzip -p {{folder}}
   which makes 'Semantic segmentation dataset' there, with Tile 1 .. Tile 8 in it
4. python -m experiments.dubai_aerial --data_dir={{folder}} --run_dir=runs/dubai""",
}


def define_flags(values):
    """The one flag."""
    flags.DEFINE_string(
        "data_dir", None, "Folder to put the data set in; made if missing.", flag_values=values
    )


def run(flags, arguments):
    """Fetch the data set that arguments name, or print the steps by hand; 0.

    Raises InputError for an unknown name, no --data_dir, and what core.data.download refuses.
    """
    if len(arguments) != 1 or arguments[0] not in ARCHIVES | BY_HAND:
        names = ", ".join(ARCHIVES | BY_HAND)
        raise InputError(f"{' '.join(arguments) or 'no data set'}: give one of {names}.")
    (name,) = arguments
    if name in BY_HAND:
        print(BY_HAND[name].format(folder=shlex.quote(flags.data_dir or "DIR")))
        return 0
    if not flags.data_dir:
        raise InputError(f"--data_dir: name the folder to put {name} in.")
    print(TERMS[name])
    data_dir = Path(flags.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with files.lock(data_dir / ".download.lock", wait=False):
            for url, folder, sha256 in ARCHIVES[name]:
                _provide(url, data_dir / folder, sha256)
    except BlockingIOError:
        raise InputError(f"{data_dir}: another download into it is under way; let it end.") from None
    return 0


def _provide(url, folder, sha256):
    if folder.exists():
        print(f"{folder}: there already, left as it is")
        return
    archive = folder.with_name(url.rpartition("/")[2])
    download.fetch(url, archive, sha256=sha256)
    print(f"unpacking {archive}")
    download.unpack(archive, folder)
    print(f"{folder}: complete; {archive.name} is no longer needed")


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
