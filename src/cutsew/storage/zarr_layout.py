"""Layouts of all Zarr groups: arrays, shapes, dtypes, dimensions and chunk files.

- How one array of a Zarr group lies on disk: shape, dtype, names of dimensions, chunk files.
- Layout of views.zarr: which file holds which passes of which images.
- Layout of the label artifacts: logits.zarr, fused.zarr, pseudo.zarr, refined.zarr, scores.zarr.
- Layout of tagclip.zarr: the two answers of TagCLIP, one chunk file of each per shard.
- Layout of maps.zarr: where teacher and student see classes, and what they make of a sample of images.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from cutsew.errors import UserError
from cutsew.method.crops import EDGES

if TYPE_CHECKING:
    import zarr
    from zarr.storage import LocalStore, MemoryStore

Array = npt.NDArray[Any]

INNER_IMAGES = 128
"""Images in an inner chunk of a sharded array: few enough that an auditor's read of one image is quick."""


@dataclass(frozen=True)
class ArraySpec:
    """Shape, dtype and layout of one array of a group.

    Attributes:
        shape: of the whole array.
        dtype: numpy name, such as "float32".
        dims: a name for each dimension.
        chunks: shape of a chunk file; cut at nothing, so it may exceed `shape`.
        inner: shape of the inner chunks of a chunk file (Zarr's sharding), None for one block.
        attributes: plain JSON values kept with the array.
        quick: chunks are packed for speed rather than size.

    """

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    inner: tuple[int, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    def create(
        self, store: "LocalStore | MemoryStore", name: str, shape: tuple[int, ...] | None = None
    ) -> "zarr.Array[Any]":
        """Create the array's metadata in a store."""
        import zarr
        from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

        packed = BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle)
        if self.quick:
            packed = BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.bitshuffle)
        return zarr.create_array(
            store,
            name=name,
            shape=self.shape if shape is None else shape,
            dtype=self.dtype,
            chunks=self.inner or self.chunks,
            shards=self.chunks if self.inner else None,
            compressors=(packed, Crc32cCodec()),
            dimension_names=self.dims,
            attributes=dict(self.attributes),
            config={"write_empty_chunks": True},
        )

    def chunk_keys(self) -> Iterator[str]:
        """Name all chunk files, relative to the array's folder."""
        grid = (range(math.ceil(n / c)) for n, c in zip(self.shape, self.chunks, strict=True))
        for index in itertools.product(*grid):
            yield "/".join(("c", *map(str, index)))


def inner_chunk(images_per_chunk: int) -> int:
    """Images per inner chunk: INNER_IMAGES where it divides the chunk, else the whole chunk."""
    return INNER_IMAGES if images_per_chunk % INNER_IMAGES == 0 else images_per_chunk


def folder_of(path: Path) -> Path:
    """Return the folder of a group given as that folder or as the `zarr.json` in it."""
    return path.parent if path.name == "zarr.json" else path


def spec_of(array: "zarr.Array[Any]") -> ArraySpec:
    """Describe an array that is there: shape, dtype and chunk files."""
    return ArraySpec(array.shape, str(array.dtype), (), array.shards or array.chunks)


def refuse_missing(folder: Path, spec: ArraySpec) -> None:
    """Refuse an array of which a chunk file is missing.

    Raises:
        UserError: one is.

    """
    for key in spec.chunk_keys():
        if not folder.joinpath(key).is_file():
            raise UserError(f"{folder / key}: this chunk is missing; run the workflow again to make it")


GLOBAL, CROPS, BOXES = "global", "crops", "boxes"


def view_specs(images: int, width: int, shard_size: int, passes: int, passes_per_job: int) -> dict[str, ArraySpec]:
    """Describe the arrays of views.zarr.

    Args:
        images: N.
        width: D of an embedding.
        shard_size: images in one chunk file.
        passes: M.
        passes_per_job: passes in one chunk file.

    """
    inner = inner_chunk(shard_size)
    return {
        GLOBAL: ArraySpec((images, width), "float16", ("image", "embedding"), (shard_size, width), (inner, width)),
        CROPS: ArraySpec(
            (passes, images, width),
            "float16",
            ("pass", "image", "embedding"),
            (passes_per_job, shard_size, width),
            (1, inner, width),
        ),
        BOXES: ArraySpec(
            (passes, images, len(EDGES)), "float32", ("pass", "image", "edge"), (passes_per_job, shard_size, len(EDGES))
        ),
    }


def view_chunk_file(group: Path, array: str, shard: int, block: int | None = None) -> Path:
    """Name the chunk file of one shard (and, but for GLOBAL, one block of passes)."""
    index = (shard,) if block is None else (block, shard)
    return group.joinpath(array, "c", *map(str, index), "0")


def view_chunk_files(group: Path, shard: int, block: int, passes: int) -> list[Path]:
    """Name the chunk files of one encoding job: a block of passes, and with the first block the whole images."""
    files = [view_chunk_file(group, GLOBAL, shard)] if block == 0 else []
    return files + [view_chunk_file(group, array, shard, block) for array in (CROPS, BOXES) if passes]


def view_chunk_record(group: Path, shard: int, block: int) -> Path:
    """Name the record of one encoding job."""
    return group.parent / "views.records" / f"{block}-{shard}.json"


Activation = Literal["softmax", "sigmoid"]

MOST_ROWS = 4096
CHUNK_BYTES = 32 * 2**20


def rows_per_chunk(classes: int) -> int:
    """Return how many images a chunk of (image, class) float32 logits holds, however large the shards are.

    Args:
        classes: C.

    Returns:
        MOST_ROWS, or a smaller power of two where that many would take more than CHUNK_BYTES; 1 at least.

    """
    return min(MOST_ROWS, 1 << (max(1, CHUNK_BYTES // (4 * classes)).bit_length() - 1))


@dataclass(frozen=True)
class Answers:
    """What a teacher's logits are; kept as attributes of logits.zarr and of what is fused from it.

    Attributes:
        activation: of the probabilities: a softmax over the classes, clamped on its way to logits, or a sigmoid per
            class, whose logits are not clamped.
        background: how many words of no class took part in the softmax.

    """

    activation: Activation = "softmax"
    background: int = 0

    @property
    def sum_to_one(self) -> bool:
        """Whether a view's probabilities of all classes sum to one."""
        return self.activation == "softmax" and not self.background

    def attributes(self) -> dict[str, Any]:
        """Return them as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, group: "zarr.Group") -> "Answers":
        """Read them from a group; a softmax over the classes alone where it does not say."""
        attributes: dict[str, Any] = dict(group.attrs)
        return cls(attributes.get("activation", cls.activation), attributes.get("background", cls.background))


def label_spec(images: int, classes: int, rows: int | None = None, dtype: str = "float32") -> ArraySpec:
    """Describe an (image, class) array whose chunks hold `rows` images; None: `rows_per_chunk`, or all if fewer."""
    if rows is None:
        rows = max(1, min(rows_per_chunk(classes), images))
    return ArraySpec((images, classes), dtype, ("image", "class"), (rows, classes))


EXTREMES = {"highest": "float32", "highest_view": "int16", "lowest": "float32", "lowest_view": "int16"}
"""Array -> dtype, of `method.fuse.Extremes` in logits.zarr, where the crops' logits are not stored."""


def logit_specs(images: int, classes: int, passes: int, rows: int | None = None) -> dict[str, ArraySpec]:
    """Describe logits.zarr: Z0 of the whole images and Z^k of the crops, a chunk for `rows` images of one pass.

    `rows` is as many as `rows_per_chunk` says, unless given.
    """
    rows = rows or rows_per_chunk(classes)
    return {
        "zero_shot": label_spec(images, classes, rows),
        "crops": ArraySpec((passes, images, classes), "float32", ("pass", "image", "class"), (1, rows, classes)),
    }


def extreme_specs(images: int, classes: int, *, lowest: bool) -> dict[str, ArraySpec]:
    """Describe logits.zarr without the crops' logits: Z0, and EXTREMES of the crops, the lowest ones if asked for."""
    rows = rows_per_chunk(classes)
    found = {name: dtype for name, dtype in EXTREMES.items() if lowest or name.startswith("highest")}
    return {
        "zero_shot": label_spec(images, classes, rows),
        **{name: label_spec(images, classes, rows, dtype) for name, dtype in found.items()},
    }


TAGCLIP_LOCAL, TAGCLIP_GLOBAL = "local_score", "global_score"
"""Score of a class's best patch; probability of the class from its region if it was scored again, else NaN."""


def tagclip_specs(images: int, classes: int, shard_size: int) -> dict[str, ArraySpec]:
    """Describe both arrays, (image, class)."""
    return {name: label_spec(images, classes, shard_size) for name in (TAGCLIP_LOCAL, TAGCLIP_GLOBAL)}


def tagclip_chunk_file(group: Path, array: str, shard: int) -> Path:
    """Name the chunk file of one shard."""
    return group / array / "c" / str(shard) / "0"


def tagclip_chunk_record(group: Path, shard: int) -> Path:
    """Name the record of one job."""
    return group.parent / "tagclip.records" / f"{shard}.json"


def map_specs(
    teacher: tuple[int, ...], student: tuple[int, ...], before: tuple[int, int], after: int
) -> dict[str, ArraySpec]:
    """Describe maps.zarr, each array in one chunk.

    Args:
        teacher: (n, g, g), its class activation maps of n (image, class) pairs; coordinates image and class.
        student: (n, h, w), the same for the student.
        before: (m, D), the teacher's embeddings of m images; coordinate sample.
        after: W, width of the student's features of the same images.

    """
    shapes = {
        "teacher": (teacher, ("pair", "teacher_row", "teacher_column")),
        "student": (student, ("pair", "student_row", "student_column")),
        "before": (before, ("sample", "embedding")),
        "after": ((before[0], after), ("sample", "feature")),
    }
    return {
        name: ArraySpec(
            shape, "float16", dims, shape, attributes={"coordinates": "image class"} if dims[0] == "pair" else {}
        )
        for name, (shape, dims) in shapes.items()
    }
