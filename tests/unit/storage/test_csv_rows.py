"""Text of any kind comes back from a CSV file as it was written."""

import csv

import pandas as pd
import pytest

from cutsew.storage.csv_rows import csv_writer, write_csv

ODD = ["plain", "a\rb", "\r", "a\nb", "a\r\n", 'say "x"', "a,b", " a ", "", "\u2028"]


def test_a_table_comes_back(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"name": ODD, "value": 0.123456789}), float_format="%.3g")
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert table["name"].tolist() == ODD and table["value"].tolist() == [0.123] * len(ODD)


@pytest.mark.parametrize("odd", ODD)
def test_rows_end_by_a_line_feed_and_come_back(tmp_path, odd):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        csv_writer(stream).writerows([["a", "b"], [odd, "x"]])
    with path.open(newline="") as stream:
        assert list(csv.reader(stream)) == [["a", "b"], [odd, "x"]]
    assert path.read_bytes().startswith(b"a,b\n") and path.read_bytes().endswith(b",x\n")
