"""A folder's images packed as WebDataset, img2dataset and Hugging Face do."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def names_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def pack_tars(folder: Path, target: Path, count: int = 2) -> list[Path]:
    """Write `count` tars, `photos-000000.tar` on, with labels and metadata next to each image."""
    names, paths = names_of(folder), []
    size = -(-len(names) // count)
    target.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        paths.append(target / f"photos-{number:06d}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for name in names[number * size : (number + 1) * size]:
                key = name.rpartition(".")[0]
                add(tar, name, (folder / name).read_bytes())
                add(tar, f"{key}.cls", b"7")
                add(tar, f"{key}.json", b'{"label": "cat"}')
    return paths


def pack_img2dataset(folder: Path, path: Path, group: int = 3) -> None:
    """Write a Parquet file as img2dataset does: key, url, status and the bytes, whose column is called `jpg`."""
    names = names_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "url": [f"http://x/{name}" for name in names],
            "key": names,
            "status": ["success"] * len(names),
            "jpg": pa.array([(folder / name).read_bytes() for name in names], pa.binary()),
        }
    )
    pq.write_table(table, path, row_group_size=group)


def pack_huggingface(folder: Path, path: Path, group: int = 3) -> None:
    """Write a Parquet file as `datasets` does: a struct of bytes and path, and labels, which are never read."""
    names = names_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": list(range(len(names)))})
    pq.write_table(table, path, row_group_size=group)
