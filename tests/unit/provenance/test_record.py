"""The record next to each artifact."""

import hashlib
import json

import numpy as np

from cutsew.provenance.record import Record, input_digest
from cutsew.storage.zarr_layout import ArraySpec
from cutsew.storage.zarr_writer import new_group


def test_holds_how_an_artifact_was_made(tmp_path):
    image, result = tmp_path / "in.csv", tmp_path / "out.csv"
    image.write_text("a")
    result.write_text("b")
    Record("select", 3, {"select": {"top_k": 5}}, [image], {"distinct": 2}).write_beside(result)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["stage"] == "select" and record["version"] == 3
    assert record["settings"] == {"select": {"top_k": 5}} and record["facts"] == {"distinct": 2}
    assert record["inputs"] == {"in.csv": hashlib.sha256(b"a").hexdigest()}
    assert record["outputs"] == {"out.csv": hashlib.sha256(b"b").hexdigest()}
    assert record["start"] <= record["end"] and "zarr" in record["packages"]


def test_a_group_is_known_by_its_seal(tmp_path):
    with new_group(tmp_path / "f.zarr", {"z": ArraySpec((2,), "float32", ("image",), (2,))}, {}) as group:
        group["z"][...] = np.ones(2)
    digest = input_digest(tmp_path / "f.zarr")
    assert digest == input_digest(tmp_path / "f.zarr" / "zarr.json") and len(digest) == 64
