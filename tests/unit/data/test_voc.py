import pytest

from cutsew.data.voc import AnnotatedObject, class_names_of_lists, read_annotation, read_list
from cutsew.errors import UserError

XML = """<annotation><filename>x.jpg</filename>
<object><name>dog</name><difficult>1</difficult><part><name>head</name></part></object>
<object><name> person </name><pose>Left</pose></object></annotation>"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    return tmp_path


def write_list(root, name, text):
    (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)


def test_a_list_in_its_order_each_id_once(root):
    write_list(root, "train", "2008_2\n2008_1\n\n2008_2\n")
    assert read_list(root, "train", "dataset.voc.train") == ["2008_2", "2008_1"]


def test_the_labels_of_a_class_file_choose_nothing(root):
    write_list(root, "dog_train", "a  1\nb -1\nc  0\n")
    assert read_list(root, "dog_train", "dataset.voc.train") == ["a", "b", "c"]


def test_missing_and_empty_lists(root):
    with pytest.raises(UserError, match=r"dataset\.voc\.train: .*ImageSets/Main/train\.txt does not exist"):
        read_list(root, "train", "dataset.voc.train")
    write_list(root, "val", "\n")
    with pytest.raises(UserError, match=r"dataset\.voc\.test: .* names no image"):
        read_list(root, "val", "dataset.voc.test")


def test_classes_of_class_files(root):
    for name in ("train", "dog_train", "dog_val", "potted_plant_val"):
        write_list(root, name, "a")
    assert class_names_of_lists(root) == {"dog", "potted_plant"}


def test_objects_without_their_parts(tmp_path):
    path = tmp_path / "x.xml"
    path.write_text(XML)
    assert read_annotation(path) == [AnnotatedObject("dog", True), AnnotatedObject("person", False)]


def test_a_image_without_objects(tmp_path):
    path = tmp_path / "x.xml"
    path.write_text("<annotation/>")
    assert read_annotation(path) == []


BOMB = """<!DOCTYPE a [<!ENTITY x "dog"><!ENTITY y "&x;&x;&x;&x;">]>
<annotation><object><name>&y;</name></object></annotation>"""


@pytest.mark.parametrize("text", [BOMB, '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_types_are_refused(tmp_path, text, encoding):
    path = tmp_path / "x.xml"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match="DOCTYPE"):
        read_annotation(path)


@pytest.mark.parametrize(
    "data", [b"", b"<annotation><object>", b"<annotation>&x;</annotation>", b'<?xml version="1.0" encoding="no"?><a/>']
)
def test_damaged_annotations(tmp_path, data):
    path = tmp_path / "x.xml"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.xml: not XML") as caught:
        read_annotation(path)
    assert "\n" not in str(caught.value)


def test_missing_annotation_and_nameless_object(tmp_path):
    with pytest.raises(UserError, match="no such annotation"):
        read_annotation(tmp_path / "x.xml")
    path = tmp_path / "y.xml"
    path.write_text("<annotation><object><name/></object></annotation>")
    with pytest.raises(UserError, match="no name"):
        read_annotation(path)
