"""Build sdist and wheel of the last commit into dist/, byte for byte the same on any machine at any time.

`build` and setuptools leave today's times, the builder's umask and user in them. So the commit is unpacked afresh,
times are its own (SOURCE_DATE_EPOCH), and the sdist is packed again in order; the wheel is built from that sdist.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = "setuptools==84.2.1"
"""What builds; another version may write other metadata."""


def main() -> None:
    """Build both and print their digests."""
    os.umask(0o022)
    epoch = subprocess.check_output(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], text=True).strip()
    out = ROOT / "dist"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tree = subprocess.check_output(["git", "-C", str(ROOT), "archive", "--prefix=commit/", "HEAD"])
        with tarfile.open(fileobj=io.BytesIO(tree)) as packed:
            packed.extractall(folder, filter="data")
        pins = folder / "pins.txt"
        pins.write_text(f"{SETUPTOOLS}\n")
        environment = os.environ | {
            "SOURCE_DATE_EPOCH": epoch,
            "PIP_BUILD_CONSTRAINT": str(pins),
            "PIP_CONSTRAINT": str(pins),
        }
        build("--sdist", folder / "commit", folder / "made", environment)
        (result,) = (folder / "made").glob("*.tar.gz")
        source = repack(result, out / result.name, int(epoch))
        with tarfile.open(source) as packed:
            packed.extractall(folder / "source", filter="data")
        (unpacked,) = (folder / "source").iterdir()
        build("--wheel", unpacked, folder / "made", environment)
        (wheel,) = (folder / "made").glob("*.whl")
        shutil.copyfile(wheel, out / wheel.name)
    for path in (source, out / wheel.name):
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(ROOT))


def build(what: str, source: Path, out: Path, environment: dict[str, str]) -> None:
    """Run `build` in silence."""
    command = [sys.executable, "-m", "build", what, "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def repack(result: Path, path: Path, epoch: int) -> Path:
    """Pack a .tar.gz again: files alone, in order, with one time, one owner and plain rights."""
    with (
        tarfile.open(result) as old,
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted((entry for entry in old if entry.isfile()), key=lambda entry: entry.name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mtime = member.size, epoch
            plain.mode = 0o755 if member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member))
    return path


if __name__ == "__main__":
    main()
