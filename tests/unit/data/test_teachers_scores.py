import numpy as np
import pandas as pd
import pytest
import zarr

from cutsew.config.networks import ScoresFileConfig
from cutsew.data.scores import Scores, read_ids, usable_ids
from cutsew.errors import UserError

IDS = ["a", "b", "c"]
CLASSES = ["cat", "dog"]
WHOLE = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
CROPS = np.stack([WHOLE / 2, WHOLE / 4])


def as_npz(path, ids=IDS, classes=CLASSES, **arrays):
    arrays = arrays or {"zero_shot": WHOLE, "crops": CROPS}
    np.savez(path, ids=np.array(ids), classes=np.array(classes), **arrays)
    return path


def as_zarr(path):
    group = zarr.open_group(path, mode="w")
    for name, labels in (("image", IDS), ("class", CLASSES)):
        group.create_array(name, shape=(len(labels),), dtype="string")[...] = np.array(labels, dtype=object)
    group.create_array("zero_shot", data=WHOLE, chunks=(2, 2))
    group.create_array("crops", data=CROPS, chunks=(1, 2, 2))
    return path


def as_parquet(path):
    arrays = {"zero_shot": WHOLE, "one": CROPS[0], "two": CROPS[1]}
    columns = {f"{name}/{label}": values[:, c] for name, values in arrays.items() for c, label in enumerate(CLASSES)}
    pd.DataFrame({"id": IDS, **columns}).to_parquet(path)
    return path


def settings(path, **others):
    return ScoresFileConfig(file=path, **others)


@pytest.fixture(params=["npz", "zarr", "parquet"])
def told(request, tmp_path):
    """Settings of the same scores in each layout."""
    path = tmp_path / f"scores.{request.param}"
    result = {"npz": as_npz, "zarr": as_zarr, "parquet": as_parquet}[request.param](path)
    return settings(result, crops=["one", "two"] if request.param == "parquet" else ["crops"])


def test_layouts_give_the_same(told):
    scores = Scores(told, ["dog", "cat"])
    rows = np.array([2, 0])
    assert scores.ids == IDS
    assert scores.passes == 2
    np.testing.assert_array_equal(scores.zero_shot(rows), WHOLE[[2, 0]][:, ::-1])
    for k in range(2):
        np.testing.assert_array_equal(scores.crops(k, rows), CROPS[k][[2, 0]][:, ::-1])
    assert read_ids(told.file, told) == IDS


def test_ids_match_by_name_or_stem(told):
    assert Scores(told).rows_of(["c", "x/b.jpg", "d", "b"]).tolist() == [2, 1, -1, 1]
    assert usable_ids(["c", "x/b.jpg", "d"], told) == ["c", "x/b.jpg"]


def test_ids_alone_are_distinct_too(told, tmp_path):
    twice = as_npz(tmp_path / "twice.npz", ids=["a", "b", "b"])
    with pytest.raises(UserError, match="holds the id b more than once"):
        read_ids(twice, told)


def test_class_that_is_missing(told):
    with pytest.raises(UserError, match=r"not all of the .*, and not bird; correct"):
        Scores(told, ["cat", "bird"])


def test_array_that_is_missing(told):
    with pytest.raises(UserError, match=r"^teacher\.scores\.crops: .* has no array tiles"):
        Scores(told.model_copy(update={"crops": ["tiles"]}))


def test_no_crops_and_many_arrays(tmp_path):
    path = as_npz(tmp_path / "s.npz", zero_shot=WHOLE, tiles=WHOLE / 2, crops=CROPS)
    assert Scores(settings(path, crops=[])).passes == 0
    scores = Scores(settings(path, crops=["tiles", "crops"]))
    assert scores.passes == 3
    np.testing.assert_array_equal(scores.crops(2, np.arange(3)), CROPS[1])


@pytest.mark.parametrize(
    ("value", "values", "expected"),
    [
        (np.nan, "probabilities", "image b, class dog: nan is not finite"),
        (np.inf, "logits", "image b, class dog: inf is not finite"),
        (-0.1, "probabilities", r"-0\.1 is no probability; set teacher\.scores\.values: logits"),
        (1.2, "probabilities", r"1\.2 is no probability"),
    ],
)
def test_bad_values(tmp_path, value, values, expected):
    whole = WHOLE.copy()
    whole[1, 1] = value
    scores = Scores(settings(as_npz(tmp_path / "s.npz", zero_shot=whole), crops=[], values=values), CLASSES)
    scores.zero_shot(np.array([0, 2]))
    with pytest.raises(UserError, match=expected):
        scores.zero_shot(np.array([0, 1]))


def test_rounded_probabilities_and_logits_pass(tmp_path):
    path = as_npz(tmp_path / "s.npz", zero_shot=np.array([[0, 1.000001]] * 3), crops=WHOLE * 100 - 50)
    assert Scores(settings(path)).zero_shot(np.arange(3))[0, 1] == 1.000001
    assert Scores(settings(path, values="logits")).crops(0, np.arange(3)).max() == 40


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"zero_shot": WHOLE[:2]}, r"is \(2, 2\), should end in \(3, 2\)"),
        ({"zero_shot": WHOLE.T}, r"is \(2, 3\), should end in \(3, 2\)"),
        ({"zero_shot": CROPS}, r"zero_shot holds passes"),
        ({"zero_shot": WHOLE, "crops": CROPS[None]}, r"is \(1, 2, 3, 2\), should end in \(3, 2\)"),
    ],
)
def test_shapes(tmp_path, arrays, expected):
    with pytest.raises(UserError, match=expected):
        Scores(settings(as_npz(tmp_path / "s.npz", **arrays)))


def test_twice(tmp_path):
    with pytest.raises(UserError, match="holds the id a more than once"):
        Scores(settings(as_npz(tmp_path / "s.npz", ids=["a", "b", "a"])))
    with pytest.raises(UserError, match="holds the class cat more than once"):
        Scores(settings(as_npz(tmp_path / "s.npz", classes=["cat", "cat"])))


def test_bad_files(tmp_path):
    tmp_path.joinpath("bad.npz").write_bytes(b"x")
    tmp_path.joinpath("bad.parquet").write_bytes(b"x")
    tmp_path.joinpath("bad.csv").write_bytes(b"x")
    np.savez(tmp_path / "noids.npz", classes=np.array(CLASSES))
    np.savez(tmp_path / "objects.npz", ids=np.array(IDS, dtype=object), classes=np.array(CLASSES))
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    expected = {
        "none.npz": "no such file",
        "bad.npz": "damaged",
        "bad.parquet": "damaged",
        "bad.csv": "not a kind that can be read",
        "noids.npz": "has no ids",
        "objects.npz": "damaged",
        "empty.zarr": "has no ids",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as error:
            Scores(settings(tmp_path / name))
        assert "\n" not in str(error.value)


def test_damaged_and_lost_chunks(tmp_path):
    path = as_zarr(tmp_path / "s.zarr")
    path.joinpath("zero_shot/c/1/0").write_bytes(b"x")
    scores = Scores(settings(path))
    with pytest.raises(UserError, match="array zero_shot is damaged"):
        scores.zero_shot(np.arange(3))
    path.joinpath("zero_shot/c/1/0").unlink()
    with pytest.raises(UserError, match="array zero_shot lacks 1 of its 2 chunks"):
        Scores(settings(path))


def test_text_instead_of_numbers(tmp_path):
    path = as_npz(tmp_path / "s.npz", zero_shot=WHOLE.astype(str))
    as_npz(tmp_path / "t.npz", zero_shot=np.full((3, 2), "high"))
    assert Scores(settings(path, crops=[])).zero_shot(np.arange(3))[0, 1] == 0.9
    with pytest.raises(UserError, match="holds no numbers"):
        Scores(settings(tmp_path / "t.npz", crops=[])).zero_shot(np.arange(3))
