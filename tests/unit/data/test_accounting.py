"""Every file below a folder of images is accounted for: manifest, skipped.csv, log and record."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cutsew.data import accounting, folder, images
from cutsew.data.folder import Leftover
from cutsew.data.images import BadImage
from cutsew.errors import UserError
from cutsew.reporting.page import files_of
from cutsew.stages.manifest import manifest
from cutsew.storage.manifest import read_manifest


def image(path, level=9, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (level, 0, 0)).save(path, **options)
    return path


@pytest.fixture
def messy(tmp_path):
    """A folder as people have them: 7 images (3 held out), 3 that cannot be read, 10 files of other kinds or hidden."""
    root = tmp_path / "images"
    for level, name in enumerate(["a.jpg", "b.PNG", "c.bmp", "d.gif", "held/e.jpg", "held/f.tif", "held/g.webp"]):
        image(root / name, level)
    (root / "cut.jpg").write_bytes((root / "a.jpg").read_bytes()[:200])
    (root / "zero.JPG").touch()
    (root / "gone.png").symlink_to("nowhere.png")
    for name in ("x.txt", "y.txt", "film.mov", "raw.NEF", "Thumbs.db", ".DS_Store", "._a.jpg"):
        (root / name).write_bytes(b"\0\1\2\3")
    image(root / "IMG_1", format="JPEG")
    image(root / "h.jpg.part", format="JPEG")
    os.mkfifo(root / "pipe.jpg")
    image(root / "@eaDir" / "a.jpg" / "SYNOIMAGE_THUMB_XL.jpg")
    image(root / ".git" / "z.jpg")
    image(root / "album.jpg" / "inside.png", 99)
    (root / "again").symlink_to(root / "held")
    return root


def make(tmp_path, root, **dataset):
    settings = {"dataset": {"kind": "folder", "root": str(root), "on_bad_image": "skip", **dataset}}
    manifest(tmp_path / "out" / "images.parquet", settings=settings)
    table = read_manifest(tmp_path / "out" / "images.parquet")
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv", dtype=str)
    facts = json.loads((tmp_path / "out" / "images.json").read_text())["facts"]
    return table, skipped, facts


def test_every_file_stands_in_the_manifest_or_in_skipped_csv(tmp_path, messy):
    table, skipped, facts = make(tmp_path, messy, test={"folder": "held"})
    unsearched = [messy / "@eaDir", messy / ".git", messy / "again"]
    files = {
        Path(place, name)
        for place, _, names in os.walk(messy)
        for name in names
        if not any(Path(place).is_relative_to(other) for other in unsearched)
    }
    assert set(map(Path, table["path"])) | set(map(Path, skipped["path"])) == files | set(unsearched)
    assert len(table) + len(skipped) == len(files) + len(unsearched)
    assert skipped["path"].tolist() == sorted(skipped["path"])
    assert accounting.summary(facts) == (
        "21 files: 5 training, 3 held out, 3 unreadable, 8 of other kinds "
        "(.txt 2, .db 1, .jpg 1, .mov 1, .nef 1, .part 1, no suffix 1), 2 hidden, "
        "3 folders not searched (.git, @eaDir, again)"
    )


def test_each_file_has_its_reason(tmp_path, messy):
    reasons = make(tmp_path, messy)[1].set_index("path")["reason"]
    assert {str(Path(path).relative_to(messy)): reason for path, reason in reasons.items()} == {
        ".DS_Store": "hidden file",
        "._a.jpg": "hidden file",
        ".git": "hidden folder, not searched",
        "@eaDir": "system folder, not searched",
        "IMG_1": "holds a JPEG image; give it an image suffix if it should be read",
        "Thumbs.db": "of another kind",
        "again": "link to a folder that is searched anyway",
        "cut.jpg": "truncated",
        "film.mov": "of another kind (a video); extract frames as JPEG, for example with ffmpeg",
        "gone.png": "broken link",
        "h.jpg.part": "holds a JPEG image; give it an image suffix if it should be read",
        "pipe.jpg": "not a file: a pipe, socket or device",
        "raw.NEF": "of another kind (camera raw); export it as JPEG or TIFF",
        "x.txt": "of another kind",
        "y.txt": "of another kind",
        "zero.JPG": "empty file",
    }


def test_the_log_names_counts_reasons_and_ways_out(tmp_path, messy, caplog):
    caplog.set_level("INFO")
    facts = make(tmp_path, messy)[2]
    assert accounting.summary(facts) in caplog.messages
    assert "not read: 1 .nef file: of another kind (camera raw); export it as JPEG or TIFF" in caplog.messages
    assert "not read: 1 .jpg file: truncated; copy it again from its source" in caplog.messages
    assert not [m for m in caplog.messages if ".txt file" in m or "hidden file" in m]


def test_a_plain_folder_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    root = image(tmp_path / "images" / "a.jpg").parent
    facts = make(tmp_path, root)[2]
    assert accounting.summary(facts) == "1 file: 1 training, 0 held out"
    assert facts["left"] == []
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == []


def test_the_report_shows_the_account(tmp_path, messy):
    facts = make(tmp_path, messy)[2]
    shown = files_of([{"stage": "truth"}, {"stage": "manifest", "facts": facts}])
    assert shown["files"] == accounting.summary(facts)
    assert (".txt", "of another kind", "2") in shown["left"].rows
    assert (".jpg", "truncated", "1") in shown["left"].rows
    assert files_of([{"stage": "truth"}]) == {"files": None, "left": None}


def test_many_suffixes_are_counted_together_and_listed_one_by_one():
    left = [Leftover(f"/p/a.{i:04d}", "other", "of another kind") for i in range(1000)]
    result = accounting.groups([], left)
    assert len(result) == accounting.MOST_GROUPS + 1
    assert sum(row["count"] for row in result) == 1000
    assert len(accounting.rows([], left)) == 1000
    (text,) = accounting.counts(result)
    assert text.startswith("1,000 of other kinds (further suffixes 960, .0000 1")
    assert len(text) < 200


def test_advice_is_short_however_many_kinds_there_are():
    bad = [BadImage(Path(f"/p/{i}.x{i}"), "truncated") for i in range(20)]
    facts = {"left": accounting.groups(bad, [])}
    lines = accounting.advice(facts)
    assert len(lines) == accounting.MOST_SHOWN + 1
    assert lines[-1] == "12 more kinds of files that are not read: see skipped.csv"


def test_pixel_counts_do_not_split_a_group():
    bad = [BadImage(Path("/p/a.png"), f"too large: {n} x 40000 pixels") for n in (20000, 30000)]
    assert accounting.advice({"left": accounting.groups(bad, [])}) == ["2 .png files: too large; scale it down"]


def test_names_that_are_not_text(tmp_path):
    root = image(tmp_path / "images" / "a.jpg").parent
    (root / os.fsdecode(b"caf\xe9.txt")).touch()
    _, skipped, facts = make(tmp_path, root)
    assert skipped["path"].tolist() == [str(root / "caf\\udce9.txt")]
    assert facts["left"][0]["label"] == ".txt"


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder that cannot be listed, as it is for all but root."""
    root = image(tmp_path / "images" / "a.jpg").parent
    image(root / "locked" / "b.jpg")
    real = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return root


def test_a_folder_that_cannot_be_listed_stops_or_is_accounted_for(tmp_path, locked):
    with pytest.raises(UserError, match=r"locked: cannot be listed: permission denied; make it readable"):
        make(tmp_path, locked, on_bad_image="stop")
    table, skipped, facts = make(tmp_path, locked)
    assert table["id"].tolist() == ["a.jpg"]
    assert skipped["reason"].tolist() == ["cannot be listed: permission denied"]
    assert accounting.summary(facts) == "1 file: 1 training, 0 held out, 1 folder not searched (locked)"


def test_names_of_a_list_without_a_image(tmp_path, messy):
    listed = tmp_path / "test.txt"
    listed.write_text("a.jpg\nnone/b.jpg\n")
    with pytest.raises(
        UserError, match=r"names none/b\.jpg, not an image below dataset\.root; correct the list, or set"
    ):
        make(tmp_path, messy, on_bad_image="stop", test={"list": str(listed)})
    table, skipped, facts = make(tmp_path, messy, test={"list": str(listed)})
    assert table.loc[table["split"] == "test", "id"].tolist() == ["a.jpg"]
    reason = f"named in {listed} (dataset.test.list), but no such image"
    assert skipped.set_index("path")["reason"][str(messy / "none/b.jpg")] == reason
    assert "1 name of a list without an image" in accounting.summary(facts)
    assert f"1 .jpg file: {reason}; correct the list" in accounting.advice(facts)


def test_heic_without_its_extra_is_named_with_it(tmp_path, monkeypatch):
    root = image(tmp_path / "images" / "a.jpg").parent
    (root / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    monkeypatch.setattr(images, "reads_heif", lambda: False)
    with pytest.raises(
        UserError, match=r"b\.heic: HEIC, which needs an extra; install it with pip install 'cutsew\[heic"
    ):
        make(tmp_path, root, on_bad_image="stop")
    table, skipped, facts = make(tmp_path, root)
    assert table["id"].tolist() == ["a.jpg"]
    assert skipped["reason"].tolist() == ["HEIC, which needs an extra"]
    line = "1 .heic file: HEIC, which needs an extra; install it with pip install 'cutsew[heic]'"
    assert accounting.advice(facts) == [line]


def test_system_folders_are_told_whatever_their_case(tmp_path):
    for name in ("@eaDir", "@EADIR", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "#recycle"):
        image(tmp_path / name / "a.jpg")
    image(tmp_path / "eaDir" / "a.jpg")
    leftovers = []
    assert folder.list_images(tmp_path, leftovers) == ["eaDir/a.jpg"]
    assert {left.reason for left in leftovers} == {"system folder, not searched"}
