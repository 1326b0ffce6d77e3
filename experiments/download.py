"""Download a data set into the folder that its experiment reads, or print how to get it.

Run: python -m experiments.download NAME --data_dir=DIR

Downloaded:              oxford_pets (811 MB), cityscapes_pairs
Only steps are printed:  cityscapes_pairs_kaggle, cityscapes, dubai_aerial

An existing folder is left unchanged. An interrupted download starts from the beginning.
"""

import shlex
import shutil
import socket
import sys
import tarfile
import zlib
from pathlib import Path

import tensorflow as tf
from absl import flags

from core.runtime import cli, files
from core.runtime.errors import InputError

SILENCE_SECONDS = 60  # a download fails after this time without a byte from the server

# Data set -> (URL, top folder in the archive, SHA-256 digest or None) of each archive.
#
# Oxford pets: URLs and digests from TensorFlow Datasets, file
# tensorflow_datasets/datasets/oxford_iiit_pet/checksums.tsv. Pairs: the URL in the
# download script of pix2pix, over plain HTTP; its authors publish no digest.
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
        "Licence: Cityscapes terms, non-commercial research only, https://www.cityscapes-dataset.com/license/\n"
        "If the server no longer has the file: python -m experiments.download cityscapes_pairs_kaggle"
    ),
}

KAGGLE = """
1. Make an account at https://www.kaggle.com; under Settings, API, create a token
   and save the file as ~/.kaggle/kaggle.json.
2. python -m pip install kaggle"""

BY_HAND = {
    "cityscapes_pairs_kaggle": f"""Downloading the Kaggle copy of the pairs needs an account:
{KAGGLE}
3. kaggle datasets download dansbecker/cityscapes-image-pairs --unzip -p {{folder}}
4. python -m experiments.cityscape_road --data_dir={{folder}} --run_dir=runs/cityscapes""",
    "cityscapes": """Downloading Cityscapes needs an account and the acceptance of its terms:

1. Register at https://www.cityscapes-dataset.com/register/ and wait for the approval.
2. python -m pip install cityscapesscripts
3. mkdir -p {folder}
   csDownload -d {folder} gtFine_trainvaltest.zip leftImg8bit_trainvaltest.zip
   (asks for user name and password; 241 MB and 11 GB)
4. unzip -n {folder}/gtFine_trainvaltest.zip -d {folder}
   unzip -n {folder}/leftImg8bit_trainvaltest.zip -d {folder}
   The folders are now {folder}/gtFine and {folder}/leftImg8bit.
5. python -m experiments.cityscapes_labels --data_dir={folder} --run_dir=runs/cityscapes_34""",
    "dubai_aerial": f"""The MBRSC aerial photos of Dubai are on Kaggle; downloading them needs an account:
{KAGGLE}
3. kaggle datasets download humansintheloop/semantic-segmentation-of-aerial-imagery --unzip -p {{folder}}
   The folder 'Semantic segmentation dataset' in it now holds Tile 1 .. Tile 8.
4. python -m experiments.dubai_aerial --data_dir={{folder}} --run_dir=runs/dubai""",
}


def define_flags(values):
    """Define this command's only flag, --data_dir."""
    flags.DEFINE_string(
        "data_dir", None, "Folder for the data set; created if it is missing.", flag_values=values
    )


def run(flags, arguments):
    """Download the data set that arguments name, or print the steps to get it by hand; return 0.

    Raises InputError for an unknown name, a missing --data_dir, a failed download and
    an archive that is damaged or would write outside its folder.
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
    data_dir = Path(flags.data_dir).absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with files.lock(data_dir / ".download.lock", wait=False):
            for url, folder, sha256 in ARCHIVES[name]:
                _provide(url, data_dir / folder, sha256)
    except BlockingIOError:
        raise InputError(f"{data_dir}: another download into it is running; wait until it ends.") from None
    return 0


def _provide(url, folder, sha256):
    """Download and unpack one archive, unless its folder exists."""
    if folder.exists():
        print(f"{folder}: exists already and is left unchanged")
        return
    archive = _download(url, folder.parent, sha256)
    print(f"unpacking {archive}")
    _unpack(archive, folder)
    print(f"{folder}: complete; {archive.name} is no longer needed")


def _download(url, data_dir, sha256):
    """Download a file into data_dir and return its path; an existing file is reused if its digest fits.

    Raises InputError if the download fails or the digest differs.
    """
    archive = data_dir / url.rpartition("/")[2]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    if not sys.stdout.isatty():
        tf.keras.utils.disable_interactive_logging()  # otherwise the progress bar prints a line per update
    try:
        tf.keras.utils.get_file(
            archive.name,
            url,
            file_hash=sha256,
            hash_algorithm="sha256",
            cache_dir=data_dir,
            cache_subdir="",
        )
    except Exception as error:  # get_file raises a plain Exception for HTTP errors
        archive.unlink(missing_ok=True)
        reason = str(error).rpartition(" -- ")[2].rstrip(".") or type(error).__name__
        raise InputError(
            f"{url}: download failed ({reason}); run the command again later, or download the file"
            f" another way and put it at {archive}."
        ) from None
    finally:
        socket.setdefaulttimeout(before)
        tf.keras.utils.enable_interactive_logging()
    return archive


def _unpack(archive, folder):
    """Unpack a tar archive and move its top folder to `folder`, completely or not at all.

    Uses tarfile's "data" filter (PEP 706), which refuses devices, and members and links that lead
    outside of the archive's folder. Raises InputError for a refused or damaged archive.
    """
    partial = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)  # left over if an earlier process was killed
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        (partial / folder.name).rename(folder)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such folder in it" if missing else str(error).partition("\n")[0].rstrip(":")
        raise InputError(
            f"{archive}: cannot be unpacked to {folder} ({reason}); delete the archive and run the"
            " command again to download a new copy."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
