"""Download a data set into a folder that an experiment can read, or print the steps to get it by hand.

Run: python -m experiments.download NAME --data_dir=DIR

NAME is a data set that this command downloads:
    oxford_pets (811 MB), cityscapes_pairs
or a data set that needs an account, for which this command prints the steps:
    cityscapes_pairs_kaggle, cityscapes, dubai_aerial

If a folder of the data set already exists in DIR, the folder is not downloaded again and is left unchanged.
If a download was interrupted, the next call downloads the interrupted file again from its beginning.
"""

import shlex
import shutil
import tarfile
import zlib
from pathlib import Path

from absl import flags

from core.runtime import cli, downloads, files
from core.runtime.errors import InputError

# Name of a data set -> its archives: tuples (URL, top folder in the archive, SHA-256 digest or None).
#
# oxford_pets: the URLs and digests are copied from TensorFlow Datasets, from the file
# tensorflow_datasets/datasets/oxford_iiit_pet/checksums.tsv.
# cityscapes_pairs: the URL is copied from the download script of pix2pix. The server uses plain HTTP, and the
# authors of pix2pix publish no digest.
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

# Name of a data set -> text about its licence, which is printed before the download.
TERMS = {
    "oxford_pets": "Licence: CC BY-SA 4.0, https://www.robots.ox.ac.uk/~vgg/data/pets/",
    "cityscapes_pairs": (
        "Licence: Cityscapes terms, non-commercial research only, https://www.cityscapes-dataset.com/license/\n"
        "If the server no longer has the file: python -m experiments.download cityscapes_pairs_kaggle"
    ),
}

# The first two steps to get any data set from Kaggle by hand.
KAGGLE = """
1. Make an account at https://www.kaggle.com; under Settings, API, create a token
   and save the file as ~/.kaggle/kaggle.json.
2. python -m pip install kaggle"""

# Name of a data set -> steps to get it by hand. {folder} is replaced by the value of --data_dir, or by DIR if
# the flag is not given.
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
    """Define the flag --data_dir."""
    flags.DEFINE_string(
        "data_dir", None, "Folder for the data set; it is created if it does not exist.", flag_values=values
    )


def run(flags, arguments):
    """Download a data set, or print the steps to get it by hand; return 0.

    arguments: a list with the name of the data set. Raises InputError in these cases: the list does not hold
    exactly one known name; the data set can be downloaded, but --data_dir is missing or tarfile has no "data"
    filter; the download fails; `_unpack` cannot unpack the archive; another process downloads into
    --data_dir.
    """
    if len(arguments) != 1 or arguments[0] not in ARCHIVES | BY_HAND:
        names = ", ".join(ARCHIVES | BY_HAND)
        given = " ".join(arguments) or "the name of the data set is missing"
        raise InputError(f"{given}: give one of {names}.")
    (name,) = arguments
    if name in BY_HAND:
        print(BY_HAND[name].format(folder=shlex.quote(flags.data_dir or "DIR")))
        return 0
    if not flags.data_dir:
        raise InputError(f"--data_dir: name the folder to put {name} in.")
    if not hasattr(tarfile, "data_filter"):
        raise InputError(
            f"{name}: this Python cannot unpack archives safely; use Python 3.10.12, 3.11.4, 3.12 or later."
        )
    print(TERMS[name])
    data_dir = Path(flags.data_dir).absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    busy = f"{data_dir}: another download into it is running; wait until it ends."
    with files.lock(data_dir / ".download.lock", busy=busy):
        for url, folder, sha256 in ARCHIVES[name]:
            _provide(url, data_dir / folder, sha256)
    return 0


def _provide(url, folder, sha256):
    """Download an archive into the parent of `folder` and unpack it to `folder`.

    If `folder` exists, do nothing. url, sha256: as for `downloads.fetch`.
    """
    if folder.exists():
        print(f"{folder}: already exists and is left unchanged")
        return
    archive = folder.with_name(url.rpartition("/")[2])
    cure = f"run the command again later, or download the file another way and put it at {archive}"
    downloads.fetch(url, archive, cure, sha256=sha256)
    print(f"unpacking {archive}")
    _unpack(archive, folder)
    print(f"{folder}: complete; you may delete {archive}")


def _unpack(archive, folder):
    """Unpack a tar archive whose top folder has the name of `folder`, and move this top folder to `folder`.

    If unpacking fails, `folder` is not created. The archive is unpacked in a temporary folder. tarfile's
    "data" filter (PEP 706) refuses device files, files that would be written outside of the temporary folder,
    and links to places outside of this folder. Raises InputError if the filter refuses a file, if the archive
    is damaged or has no such top folder, or if the files cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)  # a killed process may have left this folder
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        (partial / folder.name).rename(folder)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        cure = "delete the archive and run the command again to download a new copy"
        if isinstance(error, FileNotFoundError):
            reason = f"it holds no folder {folder.name}/"
        elif getattr(error, "errno", None) not in {None, *files.UNFIT}:  # the archive may be undamaged
            reason = error.strerror
            cure = f"free some space in {folder.parent} or make it writable, then run the command again"
        raise InputError(f"{archive}: cannot be unpacked to {folder} ({reason}); {cure}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    cli.main(define_flags, run, arguments=True)
