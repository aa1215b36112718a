"""NUS-WIDE layout: ImageList/*.txt, Groundtruth/*/Labels_<concept>*.txt, ConceptsList/Concepts81.txt, Flickr/<tag>/.

The files may also lie in the root itself, as some copies keep them, and the images in one of several layouts.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cutsew.data.folder import read_lines
from cutsew.errors import UserError

ALL, OFFICIAL = "Imagelist", {"TrainImagelist": "Train", "TestImagelist": "Test"}
"""The list of all images; the lists of the two splits, and how their files of labels end."""

SAMPLE = 200
"""Images that are looked for to find out how a copy keeps them."""

HELP = "run cutsew check_dataset to see the required layout"


def _tagged(name: str) -> str:
    return name


def _plain(name: str) -> str:
    return PurePosixPath(name).name


def _number(name: str) -> str:
    return PurePosixPath(name).name.partition("_")[2]


FOLDERS = ("Flickr", "images", "image", "Images", ".")
NAMINGS: dict[str, Callable[[str], str]] = {
    "<tag>/0001_<number>.jpg": _tagged,
    "0001_<number>.jpg": _plain,
    "<number>.jpg": _number,
}
"""How copies name an image that the lists call `<tag>/0001_<number>.jpg`: as the release, without the tag's folder, or
by its Flickr number alone."""


@dataclass(frozen=True)
class Labels:
    """True labels of listed images.

    Attributes:
        rows: id -> row of `values`.
        concepts: names of the columns, in the order of the list of concepts.
        values: (images, concepts) int8: 1 positive, 0 negative, -1 not counted (a damaged entry of the file).

    """

    rows: dict[str, int]
    concepts: list[str]
    values: npt.NDArray[np.int8]

    def any(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return for each image whether any concept is positive.

        Raises:
            UserError: an image has no labels.

        """
        positive = (self.values == 1).any(axis=1)
        return positive[self.rows_of(names)]  # type: ignore[no-any-return]

    def rows_of(self, names: Sequence[str]) -> list[int]:
        """Return the row of each image.

        Raises:
            UserError: an image has no labels.

        """
        missing = next((name for name in names if name not in self.rows), None)
        if missing is not None:
            raise UserError(f"dataset.nus: {missing} is on a list, but not on one that comes with labels; fix the list")
        return [self.rows[name] for name in names]


def read_list(root: Path, name: str, setting: str) -> list[str]:
    """Read the ids of a list in order, each once: `<tag>/<file>` whatever the slashes and what stands before them.

    Args:
        root: folder of the layout.
        name: of an official list, without `.txt`, or the path of another.
        setting: dotted setting to name when the list is missing.

    Raises:
        UserError: the list is missing, not text, or names no image.

    """
    path = list_path(root, name)
    names = dict.fromkeys(_image_id(line) for line in read_lines(path, setting) if line.strip())
    if not names:
        raise UserError(f"{setting}: {path} names no image; name another list")
    return list(names)


def list_path(root: Path, name: str) -> Path:
    """Return where a list lies: in the release by its name, or at the path that is given."""
    if "/" in name or name.endswith(".txt"):
        return Path(name)
    return _first(root / "ImageList" / f"{name}.txt", root / f"{name}.txt")


def image_paths(root: Path, names: Sequence[str]) -> list[str]:
    """Return where the images of ids lie, in the layout in which most of some hundred of them are found.

    Raises:
        UserError: none of those is found in any known layout.

    """
    sample = names[:: max(1, len(names) // SAMPLE)]
    best, most = None, 0
    for folder in FOLDERS:
        for naming in NAMINGS.values():
            present = sum((root / folder / naming(name)).is_file() for name in sample)
            if present > most:
                best, most = (root / folder, naming), present
    if best is None:
        known = ", ".join(f"{folder}/{naming}" for folder in FOLDERS[:2] for naming in NAMINGS)
        raise UserError(f"dataset.root: no listed image was found below {root} in a known layout ({known}); {HELP}")
    start, naming = best
    return [f"{start}/{naming(name)}" for name in names]


def read_concepts(root: Path) -> list[str]:
    """Read the names of the concepts.

    Raises:
        UserError: the list is missing, not text, or empty.

    """
    path = _first(root / "ConceptsList" / "Concepts81.txt", root / "Concepts81.txt")
    names = [line.strip() for line in read_lines(path, "dataset.root") if line.strip()]
    if not names:
        raise UserError(f"dataset.root: {path} names no concept; download it again")
    invalid = next((name for i, name in enumerate(names) if "/" in name or name in names[:i]), None)
    if invalid is not None:
        raise UserError(f"dataset.root: {path} names the concept {invalid}, twice or as a path; download it again")
    return names


def label_files(root: Path) -> list[Path]:
    """Name the files of labels that `read_labels` reads, for a digest of their sizes and times."""
    concepts = read_concepts(root)
    return [file for _, files in _tables(root, concepts) for file in files]


def read_labels(root: Path) -> Labels:
    """Read the labels of all listed images: those of all where they are there, else of the two splits.

    AllLabels is preferred since one line of the other (78,372 of Labels_lake_Train.txt) is damaged in the release; what
    is neither 0 nor 1 is not counted.

    Raises:
        UserError: a file is missing, damaged, or not as long as its list.

    """
    concepts = read_concepts(root)
    rows: dict[str, int] = {}
    parts: list[npt.NDArray[np.int8]] = []
    start = 0
    for name, files in _tables(root, concepts):
        lines = [_image_id(line) for line in read_lines(list_path(root, name), "dataset.root") if line.strip()]
        if len(set(lines)) < len(lines):
            duplicate = next(line for line, count in Counter(lines).items() if count > 1)
            raise UserError(f"dataset.root: {list_path(root, name)} names {duplicate} twice; download it again")
        part = np.empty((len(lines), len(concepts)), dtype=np.int8)
        for column, file in enumerate(tqdm(files, desc=f"labels of {name}", unit="concept")):
            part[:, column] = _read_column(file, len(lines))
        rows |= {image: start + row for row, image in enumerate(lines)}
        parts.append(part)
        start += len(lines)
    return Labels(rows, concepts, np.concatenate(parts))


def _tables(root: Path, concepts: list[str]) -> list[tuple[str, list[Path]]]:
    """Pair lists of images with their files of labels, one per concept."""
    whole = _first(root / "Groundtruth" / "AllLabels", root / "AllLabels")
    if whole.is_dir() and list_path(root, ALL).is_file():
        return [(ALL, [whole / f"Labels_{concept}.txt" for concept in concepts])]
    split = _first(root / "Groundtruth" / "TrainTestLabels", root / "TrainTestLabels")
    if not split.is_dir():
        raise UserError(f"dataset.root: {root}/Groundtruth holds neither AllLabels nor TrainTestLabels; {HELP}")
    present = {name: end for name, end in OFFICIAL.items() if list_path(root, name).is_file()}
    if not present:
        raise UserError(f"dataset.root: {root} holds no list of the images that its labels are of; {HELP}")
    return [(name, [split / f"Labels_{c}_{end}.txt" for c in concepts]) for name, end in present.items()]


def _read_column(path: Path, images: int) -> npt.NDArray[np.int8]:
    try:
        entries = np.array(path.read_bytes().split())
    except FileNotFoundError:
        raise UserError(f"dataset.root: {path} does not exist; {HELP}") from None
    except OSError as error:
        raise UserError(f"dataset.root: {path} cannot be read ({error.strerror}); make it readable") from None
    if len(entries) != images:
        raise UserError(f"dataset.root: {path} has {len(entries)} entries for {images} images; download it again")
    return np.where(entries == b"1", 1, np.where(entries == b"0", 0, -1)).astype(np.int8)


def _image_id(line: str) -> str:
    r"""Bring a line such as `C:\ImageData\Flickr\actor\0001_2124494179.jpg` to `actor/0001_2124494179.jpg`."""
    parts = [part for part in line.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts[-2:])


def _first(*paths: Path) -> Path:
    """Return the first path that is there, or else the first."""
    return next((path for path in paths if path.exists()), paths[0])
