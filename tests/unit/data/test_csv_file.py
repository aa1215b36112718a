"""CSVs as people make them, and the names by which they call images."""

import unicodedata
from pathlib import Path

import pytest

from cutsew.data.csv_file import ImageNames, find_images, read_csv
from cutsew.errors import UserError

ROWS = [["a.jpg", "dog"], ["caf\u00e9.jpg", "cat"]]


def read(tmp_path, content, encoding="utf-8", columns=()):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_csv(path, "some.setting", columns)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_every_separator_line_end_and_encoding(tmp_path, end, encoding, separator):
    lines = [["path", "labels"], *ROWS]
    table = read(tmp_path, end.join(separator.join(line) for line in lines) + end, encoding)
    assert table.columns.tolist() == ["path", "labels"]
    assert table.to_numpy().tolist() == ROWS
    assert table.index.tolist() == [2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\npath;labels\na.jpg;dog\ncaf\u00e9.jpg;cat\n",
        "\n\npath , labels\n\na.jpg,dog\n,\ncaf\u00e9.jpg , cat\n\n",
        'path,labels,,\n"a.jpg", "dog",,\ncaf\u00e9.jpg,cat,,\n',
        'path;labels\n"a.jpg";"dog"\ncaf\u00e9.jpg;cat',
    ],
)
def test_what_spreadsheets_add_is_dropped(tmp_path, text):
    assert read(tmp_path, text).to_numpy().tolist() == ROWS


def test_quotes_lines_and_columns(tmp_path):
    table = read(tmp_path, 'PATH,Labels,By,Dog\n"a, ""b""\nc.jpg",x\n\nd.jpg,y,z,w\n', columns=("labels", "by"))
    assert table.columns.tolist() == ["path", "labels", "by", "Dog"]
    assert table.to_numpy().tolist() == [['a, "b"\nc.jpg', "x", "", ""], ["d.jpg", "y", "z", "w"]]
    assert table.index.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"t\.csv is not a readable CSV \(it is empty\)"),
        (b"\xef\xbb\xbf\r\n", r"t\.csv is not a readable CSV \(it is empty\)"),
        (b"path,labels\na.jpg,dog\ncaf\xe9.jpg,cat\n", r"t\.csv, line 3: not a readable CSV \(not UTF-8\); save it as"),
        ("path,labels\n".encode("utf-16-le"), r"t\.csv is not a readable CSV \(it holds NUL"),
        (b'path,labels\n\na.jpg,"dog\nb.jpg,cat\n', r"t\.csv, line 3: not a readable CSV .*check the quotes"),
        (b"path,labels\na.jpg,dog\nb.jpg,dog,cat\n", r"t\.csv, line 3: .*3 fields, but the first line has 2"),
        (b"id,x,x\n1,2,3\n", r"names the column 'x' twice"),
        (b"Path,path\n1,2\n", r"names the column 'path' twice"),
    ],
)
def test_what_is_no_csv_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(UserError, match=r"some\.setting: .*" + message):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"some\.setting: .*none\.csv does not exist"):
        read_csv(tmp_path / "none.csv", "some.setting")
    with pytest.raises(UserError, match=r"some\.setting: .* cannot be read"):
        read_csv(tmp_path, "some.setting")


IDS = ["b/a.jpg", "b/a.png", "IMG_1.JPG", "caf\u00e9/x.jpg", "n\u0303/y.jpg", "v1.2.jpg", "z.tif"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("b/a.jpg", ["b/a.jpg"]),
        ("./b//a.jpg", ["b/a.jpg"]),
        ("b\\a.jpg", ["b/a.jpg"]),
        ("images/b/a.jpg", ["b/a.jpg"]),
        ("images\\b\\a.jpg", ["b/a.jpg"]),
        ("B/A.JPG", ["b/a.jpg"]),
        ("img_1.jpg", ["IMG_1.JPG"]),
        ("IMG_1", ["IMG_1.JPG"]),
        ("v1.2", ["v1.2.jpg"]),
        (unicodedata.normalize("NFD", "caf\u00e9/x.jpg"), ["caf\u00e9/x.jpg"]),
        (unicodedata.normalize("NFC", "n\u0303/y.jpg"), ["n\u0303/y.jpg"]),
        ("b/a", ["b/a.jpg", "b/a.png"]),
        ("b/a.tif", []),
        ("z.jpg", []),
        ("a.jpg", []),
        ("../b/a.jpg", []),
        ("v1", []),
        ("", []),
    ],
)
def test_names_of_images(name, found):
    assert ImageNames(IDS, [f"images/{name}" for name in IDS], Path("images")).find(name) == found


def test_absolute_paths_and_ids_without_a_suffix(tmp_path):
    root = tmp_path / "voc"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    images = ImageNames(["x", "y 1"], [f"{tmp_path}/link/JPEGImages/{n}.jpg" for n in ("x", "y 1")], tmp_path / "link")
    for name in (
        "x",
        "x.jpg",
        "X.JPEG",
        "JPEGImages/x.jpg",
        f"{root}/JPEGImages/x.jpg",
        f"{tmp_path}/link/JPEGImages/x",
    ):
        assert images.find(name) == ["x"], name
    assert images.find("y 1.jpg") == ["y 1"]
    assert images.find("/elsewhere/JPEGImages/x.jpg") == []


def test_two_images_that_differ_in_case_or_accents_keep_their_own_rows():
    names = ["A.jpg", "a.jpg", "\u00e9.jpg", "e\u0301.jpg"]
    images = ImageNames(names)
    assert [images.find(name) for name in names] == [[name] for name in names]
    assert images.find("a.JPG") == ["A.jpg", "a.jpg"]


def test_the_column_that_names_most_images_is_taken_and_strangers_are_told(tmp_path, caplog):
    table = read(tmp_path, "id,path,labels\n0,b\\a.jpg,\n1,other.jpg,\n2,z.tif,\n")
    result = find_images(table, ImageNames(IDS), tmp_path / "t.csv", "some.setting")
    assert result == ["b/a.jpg", None, "z.tif"]
    (reported,) = caplog.messages
    assert (
        "1 of 3 rows of" in reported and "line 3 'other.jpg' for one (an image of it is called 'b/a.jpg')" in reported
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,x\nother.jpg,1\n",
            r"names none of the images: line 2, column path, has 'other\.jpg', where .*'b/a\.jpg'",
        ),
        ("image,x\nz,1\nb/a,1\n", r"t\.csv, line 3, column image: 'b/a' fits 2 images, 'b/a\.jpg' and 'b/a\.png'"),
    ],
)
def test_no_match_and_two_matches_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        find_images(read(tmp_path, text), ImageNames(IDS), tmp_path / "t.csv", "some.setting")
