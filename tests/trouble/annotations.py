"""True labels and corrections: VOC's XML, COCO's JSON, NUS-WIDE's lists, CSVs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from cutsew.data import coco, nus, voc
from cutsew.data.corrections_csv import corrections_of
from cutsew.stages.truth import truth
from cutsew.storage.manifest import write_manifest
from trouble.case import ACCEPTED, OUT, REFUSED, Case

CLASSES = ["cat", "dog"]
IDS = ["a", "b", "c"]


def manifest_of(folder: Path, root: Path) -> Path:
    table = pd.DataFrame({"id": IDS, "path": [f"{root}/{i}.jpg" for i in IDS], "width": 8, "height": 6, "bytes": 9})
    table = table.assign(digest=IDS, split=["train", "train", "test"], shard=0)
    write_manifest(folder / "images.parquet", table)
    return folder / "images.parquet"


def read_truth(folder: Path, **dataset) -> str:
    """Run the stage truth; return what it wrote."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    settings = {"classes": CLASSES, "dataset": {"root": str(root), **dataset}}
    truth(manifest_of(folder, root), folder / OUT / "truth.parquet", settings=settings)
    table = pd.read_parquet(folder / OUT / "truth.parquet")
    return "; ".join(f"{row['id']} cat={row['cat']} dog={row['dog']}" for row in table.to_dict("records"))


def things(*names: str, difficult: str = "0") -> str:
    objects = "".join(f"<object><name>{n}</name><difficult>{difficult}</difficult></object>" for n in names)
    return f"<annotation>{objects}</annotation>"


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(10))
XML = [
    ("nothing in it", b"", r"a\.xml: not XML"),
    ("a web page", b"<!doctype html><p>404", r"a\.xml: not XML"),
    ("a tag that is not closed", b"<annotation><object>", r"a\.xml: not XML"),
    ("two roots", b"<annotation/><annotation/>", r"a\.xml: not XML"),
    ("text after the root", things("cat").encode() + b"junk", r"a\.xml: not XML"),
    ("an entity bomb", f"<!DOCTYPE a [{LAUGHS}]><annotation>&l9;</annotation>".encode(), "declares a document type"),
    (
        "an entity that reads a file",
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>',
        r"a\.xml: declares a document type, which is refused; remove its DOCTYPE",
    ),
    ("an external document type", b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><annotation/>', "document type"),
    ("an entity that is not declared", b"<annotation>&cat;</annotation>", r"a\.xml: not XML"),
    ("a control character", b"<annotation>\x01</annotation>", r"a\.xml: not XML"),
    ("NUL bytes", bytes(40), r"a\.xml: not XML"),
    ("an unknown encoding", b'<?xml version="1.0" encoding="klingon"?><annotation/>', r"a\.xml: not XML"),
    (
        "bytes that are not its encoding",
        b'<?xml version="1.0" encoding="utf-8"?><a>\xff\xfe\xfa</a>',
        r"a\.xml: not XML",
    ),
    ("an object without a name", b"<annotation><object/></annotation>", r"a\.xml: an object has no name"),
    ("an object with an empty name", things(" ").encode(), r"a\.xml: an object has no name"),
    ("an attribute given twice", b'<annotation a="1" a="2"/>', r"a\.xml: not XML"),
]
GOOD_XML = [
    ("UTF-16", things("cat").encode("utf-16"), "a cat=1 dog=0"),
    ("UTF-8 with a byte order mark", b"\xef\xbb\xbf" + things("cat").encode(), "a cat=1 dog=0"),
    ("no object", b"<annotation/>", "a cat=0 dog=0"),
    ("an unknown class", things("cat", "griffin").encode(), "a cat=1 dog=0"),
    ("difficult objects alone", things("cat", difficult="1").encode(), "a cat=0 dog=0"),
    ("nested 5,000 deep", b"<annotation>" + b"<x>" * 5000 + b"</x>" * 5000 + b"</annotation>", "a cat=0 dog=0"),
    ("markup as a class", things("&lt;script&gt;alert(1)&lt;/script&gt;").encode(), "a cat=0 dog=0"),
]


def voc_case(name: str, content: bytes | None, outcome: str, says: str) -> Case:
    def act(folder: Path) -> str:
        path = folder / "root" / "Annotations"
        path.mkdir(parents=True)
        for image in IDS[1:]:
            path.joinpath(f"{image}.xml").write_text(things("cat", "dog"))
        if content is not None:
            path.joinpath("a.xml").write_bytes(content)
        return read_truth(folder, kind="voc")

    return Case("annotations", f"VOC XML: {name}", outcome, says, act)


def voc_cases() -> Iterator[Case]:
    for name, content, says in XML:
        yield voc_case(name, content, REFUSED, says)
    for name, content, says in GOOD_XML:
        yield voc_case(name, content, ACCEPTED, says)
    yield voc_case("missing", None, REFUSED, r"a\.xml: no such annotation")

    def other_classes(folder: Path) -> str:
        path = folder / "root" / "Annotations"
        path.mkdir(parents=True)
        for image in IDS:
            path.joinpath(f"{image}.xml").write_text(things("lynx", "wolf"))
        return read_truth(folder, kind="voc")

    says = r"^classes: dataset\.root: .*/Annotations names none of the 2 classes, and not cat, dog; .*: lynx, wolf\)"
    yield Case("annotations", "VOC XML: other classes", REFUSED, says, other_classes)

    def list_of(content: bytes | None, reader: Callable[[Path], object]) -> Callable[[Path], object]:
        def act(folder: Path) -> object:
            path = folder / "ImageSets" / "Main" / "train.txt"
            path.parent.mkdir(parents=True)
            if content is not None:
                path.write_bytes(content)
            return reader(folder)

        return act

    def read(root: Path) -> object:
        return voc.read_list(root, "train", "dataset.voc.train")

    yield Case("annotations", "VOC list: missing", REFUSED, r"dataset\.voc\.train: .*train\.txt", list_of(None, read))
    yield Case("annotations", "VOC list: empty", REFUSED, r"train\.txt names no image", list_of(b"\n \n", read))
    yield Case("annotations", "VOC list: not UTF-8", REFUSED, r"train\.txt is not a UTF-8", list_of(b"\xff\xfe", read))
    yield Case("annotations", "VOC list: an id twice", ACCEPTED, r"\['a', 'b'\]", list_of(b"a\r\nb\r\na\r\n", read))
    yield Case("annotations", "VOC list: ../ in an id", REFUSED, r"train\.txt.*\.\./x", list_of(b"../../x\n", read))
    for name, content, effect in (
        ("spaces in ids", b"my photo 0\n my photo 1 \nother\n", "my photo 0', 'my photo 1', 'other"),
        ("labels beside ids", b"a  1\r\nb -1\r\nc  0\r\n", "a', 'b', 'c"),
        ("labels beside ids with spaces", b"my photo  1\nyour image -1\n", "my photo', 'your image"),
    ):
        yield Case("annotations", f"VOC list: {name}", ACCEPTED, rf"^\['{effect}'\]$", list_of(content, read))
    yield Case("annotations", "VOC list: an absolute id", REFUSED, r"train\.txt.*/etc/x", list_of(b"/etc/x\n", read))


def instances(**changes) -> dict:
    result = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    }
    return result | changes


def coco_case(name: str, content: bytes | dict | None, outcome: str, says: str) -> Case:
    def act(folder: Path) -> str:
        (folder / "train2014").mkdir()
        path = coco.instances_path(folder, "train2014")
        path.parent.mkdir()
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        listed = coco.list_images(folder, "train2014", "dataset.coco.train", drop=True)
        result, names = coco.read_instances(folder, "train2014", "dataset.coco.train")
        return f"{listed[0]} {listed[2]} left out, {dict(result)} of {names}"

    return Case("annotations", f"COCO JSON: {name}", outcome, says, act)


def image(**changes) -> list[dict]:
    return [{"id": 1, "file_name": "a.jpg"} | changes]


def coco_cases() -> Iterator[Case]:
    not_one = r"instances_train2014\.json: not an instances JSON"

    def other_classes(folder: Path) -> str:
        path = coco.instances_path(folder / "root", "train2014")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(instances(categories=[{"id": 1, "name": "lynx"}, {"id": 2, "name": "wolf"}])))
        return read_truth(folder, kind="coco", coco={"train": "train2014", "test": None})

    says = r"^classes: dataset\.root: .*instances_train2014\.json names none of the 2 classes, .*: lynx, wolf\)"
    yield Case("annotations", "COCO JSON: other classes", REFUSED, says, other_classes)
    yield coco_case("missing", None, REFUSED, r"dataset\.coco\.train: .*instances_train2014\.json does not exist")
    for name, content in [
        ("empty", b""),
        ("a web page", b"<html>"),
        ("cut in the middle", json.dumps(instances()).encode()[:90]),
        ("not UTF-8", b'{"images": [{"id": 1, "file_name": "\xff.jpg"}]}'),
        ("UTF-16", json.dumps(instances()).encode("utf-16")),
        ("nested 100,000 deep", b'{"images": ' + b"[" * 100_000),
        ("images that are no objects", instances(images=[1, 2])),
        ("an image without an id", instances(images=[{"file_name": "a.jpg"}])),
        ("an image whose id is an object", instances(images=image(id={}))),
        ("an image whose id is infinite", b'{"images": [{"id": 1e999, "file_name": "a.jpg"}]}'),
        ("an annotation whose image is a list", instances(annotations=[{"image_id": [1], "category_id": 1}])),
        ("a category whose id is a list", instances(categories=[{"id": [1], "name": "cat"}])),
        ("two images of one id", instances(images=image() + image(file_name="b.jpg"))),
        ("two images of one name", instances(images=image() + image(id=2))),
    ]:
        yield coco_case(name, content, REFUSED, not_one)
    yield coco_case("a list instead of an object", b"[]", REFUSED, r"train2014\.json names no image")
    yield coco_case("no image", instances(images=[]), REFUSED, r"train2014\.json names no image")
    for name in ("../../a.jpg", "/etc/passwd", "..\\a.jpg", ".hidden.jpg", ""):
        stated = r"train2014\.json: image 1 has no file name below its folder"
        yield coco_case(f"an image named {name!r}", instances(images=image(file_name=name)), REFUSED, stated)
    unknown_names = r"train2014\.json: annotation 7 refers to an image or category that the file does not list"
    for key in ("image_id", "category_id"):
        item = {"id": 7, "image_id": 1, "category_id": 1} | {key: 99}
        yield coco_case(f"an annotation of an unknown {key}", instances(annotations=[item]), REFUSED, unknown_names)
    for number in ("x", "1", "001", 1.0):
        item = {"id": 7, "image_id": number, "category_id": 1}
        text = instances(images=image(id=number) + [{"id": 2, "file_name": "b.jpg"}], annotations=[item])
        effect = r"^\['a'\] 1 left out, \{'a\.jpg': Counter\(\{'cat': 1\}\)\}"
        yield coco_case(f"ids that are {number!r}", text, ACCEPTED, effect)
    unlike = instances(images=image(id="001") + [{"id": 2, "file_name": "b.jpg"}])
    yield coco_case("an id written in two ways", unlike, REFUSED, r"annotation 1 refers to an image .*image_id 1\)")
    for name, file in (("a sub-folder", "sub/a.jpg"), ("backslashes", "sub\\a.jpg"), ("a leading ./", "./sub/a.jpg")):
        yield coco_case(
            f"an image in {name}", instances(images=image(file_name=file)), ACCEPTED, r"^\['sub/a'\] 0 left"
        )
    stems = image() + [{"id": 2, "file_name": "a.png"}, {"id": 3, "file_name": "b.a.jpg"}]
    both = [{"id": i, "image_id": i, "category_id": 2} for i in (1, 2, 3)]
    yield coco_case(
        "two images of one stem",
        instances(images=stems, annotations=both),
        ACCEPTED,
        r"^\['a\.jpg', 'a\.png', 'b\.a'\] 0",
    )
    for what, categories in (
        ("without a name", [{"id": 1}]),
        ("without an id", [{"name": "cat"}]),
        ("with two names", [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]),
    ):
        yield coco_case(f"a category {what}", instances(categories=categories), REFUSED, r"train2014\.json: category")
    gaps = instances(categories=[{"id": 90, "name": "dog"}, {"id": 1, "name": "cat"}])
    yield coco_case("category ids with gaps", gaps, ACCEPTED, r"'cat': 1.* of \['dog', 'cat'\]")
    yield coco_case(
        "an annotation without a category", instances(annotations=[{"id": 7, "image_id": 1}]), REFUSED, unknown_names
    )
    yield coco_case("a crowd", instances(), ACCEPTED, r"^\['a'\] 1 left out, \{'a\.jpg': Counter\(\{'cat': 1\}\)\}")


def nus_case(name: str, change: Callable[[Path], object], outcome: str, says: str) -> Case:
    def act(folder: Path) -> str:
        for path, text in {
            "ImageList/Imagelist.txt": "actor\\0001_1.jpg\nbeach\\0002_2.jpg\n",
            "ConceptsList/Concepts81.txt": "cat\ndog\n",
            "Groundtruth/AllLabels/Labels_cat.txt": "1\n0\n",
            "Groundtruth/AllLabels/Labels_dog.txt": "0\n1\n",
        }.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        change(folder)
        names = nus.read_list(folder, "Imagelist", "dataset.nus.train")
        labels = nus.read_labels(folder)
        return f"{names} {labels.values[labels.rows_of(names)].tolist()}"

    return Case("annotations", f"NUS lists: {name}", outcome, says, act)


def nus_cases() -> Iterator[Case]:
    listed, cat = "ImageList/Imagelist.txt", "Groundtruth/AllLabels/Labels_cat.txt"

    def write(path: str, content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / path).write_bytes(content)

    yield nus_case("list missing", lambda f: (f / listed).unlink(), REFUSED, r"dataset\.nus\.train: .*Imagelist\.txt")
    yield nus_case("list empty", write(listed, b""), REFUSED, r"Imagelist\.txt names no image")
    yield nus_case("list not UTF-8", write(listed, b"\xff"), REFUSED, r"Imagelist\.txt is not a UTF-8")
    yield nus_case("labels missing", lambda f: (f / cat).unlink(), REFUSED, r"Labels_cat\.txt does not exist")
    yield nus_case("labels too short", write(cat, b"1\n"), REFUSED, r"Labels_cat\.txt has 1 entries for 2 images")
    yield nus_case("labels too long", write(cat, b"1\n0\n1\n"), REFUSED, r"Labels_cat\.txt has 3 entries")
    yield nus_case("labels empty", write(cat, b""), REFUSED, r"Labels_cat\.txt has 0 entries")
    yield nus_case("a damaged entry", write(cat, b"1\n\xff\n"), ACCEPTED, r"\[\[1, 0\], \[-1, 1\]\]")
    yield nus_case("an entry of 2", write(cat, b"2\n0\n"), ACCEPTED, r"\[\[-1, 0\], \[0, 1\]\]")
    concepts = "ConceptsList/Concepts81.txt"
    yield nus_case("no concepts", write(concepts, b"\n"), REFUSED, r"Concepts81\.txt names no concept")
    yield nus_case("a concept of ../", write(concepts, b"../../x\n"), REFUSED, r"Concepts81\.txt.*\.\./\.\./x")
    yield nus_case("an image twice", write(listed, b"a/1.jpg\na/1.jpg\n"), REFUSED, r"Imagelist\.txt.*1\.jpg.*twice")
    yield nus_case("../ in an image", write(listed, b"../../etc/x.jpg\nb/2.jpg\n"), ACCEPTED, r"^\['etc/x\.jpg', 'b/2")


CSVS = [
    ("missing", None, r"truth\.csv does not exist"),
    ("empty", b"", r"truth\.csv is not a readable CSV"),
    ("not UTF-8", b"path,labels\n\xff,cat\n", r"truth\.csv, line 2: not a readable CSV \(not UTF-8\); save it as CSV"),
    ("Latin-1", "path,labels\na.jpg,cat\ncaf\xe9.jpg,dog\n".encode("latin-1"), r"truth\.csv, line 3: .*not UTF-8"),
    ("UTF-16 without a mark", "path,labels\na.jpg,cat\n".encode("utf-16-le"), r"truth\.csv is not a readable CSV"),
    ("no column of labels", b"path,names\na.jpg,cat\n", r"truth\.csv needs the columns"),
    ("no column of images", b"where,labels\na.jpg,cat\n", r"truth\.csv needs .*none of its columns names the image"),
    ("more fields than heads", b"path,labels\na.jpg,cat,dog\n", r"truth\.csv, line 2: not a readable CSV"),
    ("more fields in one row", b"path,labels\na.jpg,cat\nb.jpg,cat,dog,x\n", r"truth\.csv, line 3: not a readable CSV"),
    ("labels separated by commas", b'path,labels\na.jpg,"cat,dog"\n', r"truth\.csv, line 2, column labels: 'cat,dog'"),
    ("labels separated by bars", b"path,labels\na.jpg,cat | dog\n", r"truth\.csv, line 2, column labels: 'cat \| dog'"),
    ("a class column of words", b"path,cat,dog\na.jpg,0,no\n", r"truth\.csv, line 2, column dog: 'no' is neither"),
    (
        "rows that contradict",
        b"path,cat\na.jpg,1\nb.jpg,1\n./a.jpg,0\n",
        r"truth\.csv names 'a' twice: .*line 2 .*line 4",
    ),
    (
        "a name of two images",
        b"path,labels\n\xc3\xa9.jpg,cat\nE\xcc\x81.jpg,cat\n",
        r"truth\.csv names none of the images",
    ),
    ("no rows", b"path,labels\n", r"truth\.csv holds no row"),
    ("a quote that is not closed", b'path,labels\na.jpg,"cat\n', r"truth\.csv"),
    ("an image twice", b"path,labels\na.jpg,cat\na.jpg,dog\n", r"truth\.csv names 'a' twice"),
    ("no image of these", b"path,labels\nx.jpg,cat\n", r"truth\.csv names none .*line 2, .*'x\.jpg', where .*'a'"),
    ("none of the classes", b"path,labels\na.jpg,cats\n", r"classes: .*truth\.csv names none of the 2 classes"),
    (
        "columns of other classes",
        b"path,lynx,wolf\na.jpg,1,0\n",
        r"^classes: .*truth\.csv, in its columns, names none of the 2 classes, and not cat, dog; correct the spelling in "
        r"classes or there \(its other names: lynx, wolf\)",
    ),
    (
        "columns of ten other classes, and of sizes",
        b"path,width," + b",".join(b"c%d" % i for i in range(10)) + b"\na.jpg,640" + b",1" * 10 + b"\n",
        r"names none of the 2 classes, .*other names: c0, c1, c2, c3, c4 and 5 more\)",
    ),
    ("NUL bytes", bytes(50), r"truth\.csv"),
    ("a head twice", b"path,labels,labels\na.jpg,cat,dog\n", r"truth\.csv names the column 'labels' twice"),
]
GOOD_CSVS = [
    ("a byte order mark", b"\xef\xbb\xbfpath,labels\na.jpg,cat;dog\n", "a cat=1 dog=1"),
    ("Windows line ends", b"path,labels\r\na.jpg,cat;dog\r\n", "a cat=1 dog=1"),
    ("spaces and empty labels", b"path, labels\na.jpg, cat ;; dog ;\nb.jpg,\n", "a cat=1 dog=1; b cat=0 dog=0"),
    ("a row that is cut short", b"path,labels\na.jpg,cat;dog\nb.jpg\n", "b cat=0 dog=0"),
    ("a label outside the classes", b"path,labels\na.jpg,cat;dog;griffin\n", "a cat=1 dog=1"),
    ("rows of other images", b"path,labels\na.jpg,cat;dog\n../../x.jpg,cat\n", "^a cat=1 dog=1$"),
    ("carriage returns alone", b"path,labels\ra.jpg,cat;dog\rb.jpg,\r", "a cat=1 dog=1; b cat=0 dog=0"),
    ("Excel's Unicode text", "path\tlabels\r\na.jpg\tcat;dog\r\n".encode("utf-16"), "a cat=1 dog=1"),
    ("semicolons", b'sep=;\r\npath;labels\r\na.jpg;"cat;dog"\r\n', "a cat=1 dog=1"),
    ("Windows paths", b"file,labels\nroot\\a.JPG,cat;dog\n", "a cat=1 dog=1"),
    ("ids without a suffix", b"image,labels\na,cat;dog\n", "a cat=1 dog=1"),
    ("a class that it never names", b"path,labels\na.jpg,cat\nb.jpg,\n", "a cat=1 dog=-1; b cat=0 dog=-1"),
    ("a class in another case", b"path,labels\na.jpg,Cat;DOG\n", "a cat=1 dog=1"),
    ("a column per class", b"path,cat,dog\na.jpg,1,0\nb.jpg,,-1\n", "a cat=1 dog=0; b cat=-1 dog=-1"),
    ("a row per label", b"path,label\na.jpg,cat\na.jpg,dog\nb.jpg,dog\n", "a cat=1 dog=1; b cat=0 dog=1"),
    ("corrections as truth", b"image,class,present\na,cat,1\nb,cat,0\n", "a cat=1 dog=-1; b cat=0 dog=-1"),
    ("a column of numbers called id", b"id,path,labels\n0,a.jpg,cat\n1,b.jpg,dog\n", "a cat=1 dog=0; b cat=0 dog=1"),
    ("the same row twice", b"path,labels\na.jpg,cat;dog\na.jpg,cat;dog\n", "^a cat=1 dog=1$"),
    ("a formula", b"path,labels\na.jpg,cat;dog;=cmd|' /C calc'!A0\n", "a cat=1 dog=1"),
]


def csv_case(name: str, content: bytes | None, outcome: str, says: str) -> Case:
    def act(folder: Path) -> str:
        path = folder / "truth.csv"
        if content is not None:
            path.write_bytes(content)
        return read_truth(folder, kind="folder", truth=str(path))

    return Case("annotations", f"truth CSV: {name}", outcome, says, act)


CORRECTIONS = [
    ("missing", None, r"corrections\.csv does not exist"),
    ("empty", b"", r"corrections\.csv is not a readable CSV"),
    ("not UTF-8", b"image,class,present\n\xff,cat,1\n", r"corrections\.csv, line 2: not a readable CSV"),
    ("no column present", b"image,class\na,cat\n", r"corrections\.csv has no column 'present'"),
    ("present is yes", b"image,class,present\na,cat,yes\n", r"corrections\.csv, line 2, column present: 'yes'"),
    ("present is 2", b"image,class,present\na,cat,2\n", r"line 2, column present: '2'"),
    ("present is empty", b"image,class,present\na,cat,\n", r"line 2, column present: ''"),
    (
        "1 and 0 of one label",
        b"image,class,present\na,cat,1\na,cat,0\n",
        r"lines 2 and 3.* 'cat' of 'a' is both 1 and 0",
    ),
    ("an image that is gone", b"image,class,present\na,cat,1\nz,cat,1\n", r"line 3, column image: 'z'"),
    ("another run's", b"image,class,present\nz,cat,1\n", r"corrections\.csv names none of this dataset's images"),
    (
        "a class that was renamed",
        b"image,class,present\na,cats,1\n",
        r"line 2, column class: 'cats' is not one of classes \(did you mean cat\?\)",
    ),
    (
        "a class like no other",
        b"image,class,present\na,wolverine,1\n",
        r"line 2, column class: 'wolverine' is not one of classes \(cat, dog\); correct it",
    ),
    ("more fields than heads", b"image,class,present\na,cat,1,x,y\n", r"corrections\.csv"),
    ("a head twice", b"image,class,present,class\na,cat,1,dog\n", r"corrections\.csv names the column 'class' twice"),
    ("NUL bytes", bytes(50), r"corrections\.csv"),
    (
        "accents of one image composed and not, 1 and 0",
        "image,class,present\ncaf\u00e9,cat,1\ncafe\u0301,cat,0\n".encode(),
        r"lines 2 and 3, column present",
    ),
]
GOOD_CORRECTIONS = [
    ("the same twice", b"image,class,present\na,cat,1\na,cat,1\n", r"\[\['a', 'cat', 1\]\]"),
    ("no rows", b"image,class,present\n", r"^\[\]$"),
    ("a byte order mark", b"\xef\xbb\xbfimage,class,present\r\nb,dog,0\r\n", r"\[\['b', 'dog', 0\]\]"),
    ("spaces around 1", b"image,class,present\na,cat, 1 \n", r"\[\['a', 'cat', 1\]\]"),
    ("semicolons of Excel", b"image;class;present\r\na;cat;1\r\nb;dog;0\r\n", r"\['a', 'cat', 1\], \['b', 'dog', 0\]"),
    ("Excel's Unicode text", "image\tclass\tpresent\r\na\tcat\t1\r\n".encode("utf-16"), r"\[\['a', 'cat', 1\]\]"),
    ("heads in capitals, by a path", b"Image,Class,Present\n./a,cat,1\n", r"\[\['a', 'cat', 1\]\]"),
    ("accents taken apart", "image,class,present\ncafe\u0301,cat,1\n".encode(), r"\[\['caf\u00e9', 'cat', 1\]\]"),
]


TABLE_HEAD = b"id,path,split,stage,labels,model_labels,by_human,p_cat,p_dog\n"
TABLES = [
    ("a label that is no class", TABLE_HEAD + b"a,a.jpg,train,fused,cow,,,0.1,0.2\n", r"line 2, column class: 'cow'"),
    (
        "an image of another run",
        TABLE_HEAD + b"a,,,,cat,,\nz,,,,cat,,\n",
        r"corrections\.csv, line 3, column image: 'z'",
    ),
    ("one image in two ways", TABLE_HEAD + b"a,,,,cat,,\na,,,,,cat,\n", r"lines 2 and 3, column present: 'cat' of 'a'"),
    ("no ids", TABLE_HEAD[3:] + b"a.jpg,train,fused,cat,,\n", r"corrections\.csv has no column 'id'"),
]
GOOD_TABLES = [
    ("nothing edited", TABLE_HEAD + b"a,a.jpg,train,fused,cat,cat,,0.9,0.2\n", r"^\[\]$"),
    ("one added, one taken away", TABLE_HEAD + b"a,a.jpg,train,fused,dog,cat,,1,0\n", r"'dog', 1\], \['a', 'cat', 0\]"),
    ("by Excel", TABLE_HEAD.replace(b",", b";") + b'a;;;;"cat; dog";"cat";\r\n', r"^\[\['a', 'dog', 1\]\]$"),
    ("what was said before", TABLE_HEAD + b"a,,,,cat,cat,cat;dog,1,0\n", r"'cat', 1\], \['a', 'dog', 0\]"),
]


def task(name: object, *choices: str) -> dict:
    """Make a task of Label Studio with one annotation."""
    result = {"type": "choices", "from_name": "labels", "to_name": "image", "value": {"choices": list(choices)}}
    return {"data": {"image": "x", "id": name}, "annotations": [{"result": [result]}]}


EXPORTS = [
    ("missing", None, r"corrections\.json does not exist"),
    ("empty", b"", r"corrections\.json is not readable JSON"),
    ("not UTF-8", b'[{"\xff": 1}]', r"corrections\.json is not readable JSON"),
    ("nested 100,000 deep", b"[" * 100_000, r"corrections\.json is not readable JSON"),
    ("an object", b"{}", r"corrections\.json, task 1: not part of a Label Studio export"),
    ("JSON-MIN", b'[{"image": "x", "id": 1, "labels": "cat"}]', r"corrections\.json, task 1: .*not as JSON-MIN"),
    ("annotations that are numbers", b'[{"data": {"id": "a"}, "annotations": [1]}]', r"corrections\.json, task 1"),
    ("tasks of others", [task("a", "cat"), task(7, "cat")], r"corrections\.json, task 2: its data has no id"),
    ("a label that is no class", [task("a", "cow")], r"corrections\.json, task 1, column class: 'cow'"),
    ("an image of another run", [task("a"), task("z")], r"corrections\.json, task 2, column image: 'z'"),
    (
        "by_human of rubbish",
        b'[{"data": {"id": "a", "by_human": [1]}, "annotations": []}]',
        r"corrections\.json, task 1",
    ),
]
GOOD_EXPORTS = [
    ("no tasks", b"[]", r"^\[\]$"),
    ("one annotated", [task("a", "cat")], r"^\[\['a', 'cat', 1\], \['a', 'dog', 0\]\]$"),
    ("nothing chosen", [task("a")], r"^\[\['a', 'cat', 0\], \['a', 'dog', 0\]\]$"),
    ("a byte order mark", b'\xef\xbb\xbf[{"data": {"id": "a"}, "annotations": []}]', r"^\[\]$"),
    ("results of other kinds", b'[{"data": {"id": "a"}, "annotations": [{"result": [3, {}]}]}]', r"'cat', 0"),
]


def corrections_case(
    name: str, content: bytes | list[dict] | None, outcome: str, says: str, file: str = "corrections.csv"
) -> Case:
    def act(folder: Path) -> str:
        path = folder / file
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        stated = corrections_of(path, [*IDS, "caf\u00e9"], CLASSES)
        return str(stated[["image", "class", "present"]].to_numpy().tolist())

    kind = "corrections" if file.endswith(".csv") else "corrections in Label Studio"
    return Case("annotations", f"{kind}: {name}", outcome, says, act)


def cases() -> Iterator[Case]:
    for part in (voc_cases, coco_cases, nus_cases):
        yield from part()
    for name, content, says in CSVS:
        yield csv_case(name, content, REFUSED, says)
    for name, content, says in GOOD_CSVS:
        yield csv_case(name, content, ACCEPTED, says)
    for name, content, says in CORRECTIONS:
        yield corrections_case(name, content, REFUSED, says)
    for name, content, says in GOOD_CORRECTIONS:
        yield corrections_case(name, content, ACCEPTED, says)
    for outcome, tables, exports in ((REFUSED, TABLES, EXPORTS), (ACCEPTED, GOOD_TABLES, GOOD_EXPORTS)):
        for name, content, says in tables:
            yield corrections_case(f"a table of labels, {name}", content, outcome, says)
        for name, content, says in exports:
            yield corrections_case(name, content, outcome, says, "corrections.json")
