import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutsew.data.folder import list_images
from cutsew.data.held_out import hint, in_folder, in_fraction, in_list
from cutsew.errors import UserError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_nested_sorted_by_suffix_without_hidden(tmp_path):
    touch(tmp_path, "b.jpg", "a/z.PNG", "a/b/c.JpEg", "a.webp", "t.tiff", "t.TIF", "notes.txt", "jpg", "x.jpg.part")
    touch(tmp_path, ".hidden.jpg", ".cache/a.jpg", "a/.b/c.jpg", "ein Bild ü.jpg")
    expected = ["a.webp", "a/b/c.JpEg", "a/z.PNG", "b.jpg", "ein Bild ü.jpg", "t.TIF", "t.tiff"]
    assert list_images(tmp_path) == expected


def test_ids_do_not_depend_on_how_the_root_is_written(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jpg", "in/b/c.jpg")
    monkeypatch.chdir(tmp_path / "in")
    for root in (Path(), Path("../in"), tmp_path / "in", Path(f"{tmp_path}/in/")):
        assert list_images(root) == ["a.jpg", "b/c.jpg"]


def test_loops_of_links_end(tmp_path):
    root = tmp_path / "root"
    touch(root, "a/1.jpg", "b/2.jpg")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "b" / "a").symlink_to(root / "a")
    (root / "above").symlink_to(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "back").symlink_to(root)
    assert list_images(root) == ["a/1.jpg", "b/2.jpg"]


def test_links_out_of_the_root_are_followed_once(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    touch(root, "a.jpg")
    touch(other, "x/1.jpg", "2.jpg")
    (root / "m").symlink_to(other)
    (root / "n").symlink_to(other)
    (root / "single.jpg").symlink_to(other / "2.jpg")
    assert list_images(root) == ["a.jpg", "m/2.jpg", "m/x/1.jpg", "single.jpg"]


def test_broken_links_are_listed_and_pipes_are_not(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert list_images(tmp_path) == ["gone.jpg"]


def test_names_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    with pytest.raises(UserError, match="rename it"):
        list_images(tmp_path)


def test_a_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.root: .* not a folder"):
        list_images(tmp_path / "none")


def test_split_by_folder():
    ids = ["a.jpg", "held/b.jpg", "held/deep/c.jpg", "heldout/d.jpg"]
    assert in_folder(ids, "held") == in_folder(ids, "held/") == in_folder(ids, "./held") == {ids[1], ids[2]}
    assert in_folder(ids, "held/deep") == {ids[2]}
    with pytest.raises(UserError, match=r"dataset\.test\.folder: no images in hel;"):
        in_folder(ids, "hel")


def test_split_by_folder_given_as_a_path(tmp_path):
    touch(tmp_path, "held/b.jpg")
    ids = ["a.jpg", "held/b.jpg"]
    assert in_folder(ids, str(tmp_path / "held"), tmp_path) == {"held/b.jpg"}
    for whole in (".", "./", str(tmp_path)):
        with pytest.raises(UserError, match="is dataset.root itself; name a folder below it"):
            in_folder(ids, whole, tmp_path)
    with pytest.raises(UserError, match=r"no images in \.\./held"):
        in_folder(ids, "../held", tmp_path)


def test_split_by_list(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text("b.jpg\n\n  ./c/d.jpg \r\n", encoding="utf-8-sig")
    assert in_list(["a.jpg", "b.jpg", "c/d.jpg"], path) == ({"b.jpg", "c/d.jpg"}, [])
    assert in_list(["b.jpg"], path) == ({"b.jpg"}, ["./c/d.jpg"])
    with pytest.raises(
        UserError, match=r"dataset\.test\.list: .* names 2 images, and none is an image below dataset.root"
    ):
        in_list(["e.jpg"], path)
    with pytest.raises(UserError, match=r"dataset\.test\.list: .* does not exist"):
        in_list([], tmp_path / "none")
    path.write_text("\n \n")
    with pytest.raises(UserError, match=r"dataset\.test\.list: .* is empty"):
        in_list(["b.jpg"], path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        in_list([], path)


def test_names_of_a_list_are_found_however_they_are_written(tmp_path):
    path = tmp_path / "test.txt"
    decomposed, composed = "cafe\u0301/a.jpg", "caf\u00e9/a.jpg"
    ids = [decomposed, "b/c.jpg", "d.jpg", "back\\slash.jpg"]
    lines = [composed, "b\\c.jpg", f"{tmp_path}/d.jpg", "back\\slash.jpg"]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert in_list(ids, path, tmp_path) == (set(ids), [])


def test_a_hint_says_how_a_name_has_to_be_written():
    ids = ["a/B.JPG", "c.png"]
    assert hint("images/a/b.jpg", ids) == "paths are relative to dataset.root and exact, so write a/B.JPG"
    assert hint("/elsewhere/c.png", ids).endswith("so write c.png")
    assert hint("d.png", ids) == "correct the list"


def test_split_by_fraction_by_hand():
    assert in_fraction("0" * 64, 0.001)
    assert not in_fraction("f" * 64, 0.999)
    assert in_fraction("7" + "f" * 63, 0.5)
    assert not in_fraction("8" + "0" * 63, 0.5)


digests = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(digests, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_fraction_keeps_what_was_held_out(digest, one, other):
    low, high = sorted((one, other))
    assert in_fraction(digest, high) or not in_fraction(digest, low)


@given(st.floats(0.05, 0.95))
def test_the_share_is_about_the_fraction(fraction):
    held = sum(in_fraction(sha256(str(i).encode()).hexdigest(), fraction) for i in range(2000))
    assert abs(held / 2000 - fraction) < 0.05
