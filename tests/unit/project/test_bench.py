"""The benchmarks: the harness measures what it says, and each benchmark runs at a minimal size."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from common import Run, Thing, measure, run_once
from tables import Report, fill_docs, publish, ratio, row, total

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
HELPERS = {"common", "tables", "synthetic", "images", "baseline", "small_vit"}
SLOW = {
    "student",
    "field",
    "training",
    "review",
}  # a minute of ONNX graphs, of snakemake, of whole trainings; others test those


@pytest.mark.parametrize("name", sorted({path.stem for path in BENCHMARKS.glob("*.py")} - HELPERS - SLOW))
def test_each_benchmark_runs_at_a_minimal_size(name, tmp_path):
    importlib.import_module(name).main(tiny=True, repeats=1, out=tmp_path)
    (written,) = tmp_path.glob("*.json")
    content = json.loads(written.read_text())
    assert written.stem == content["benchmark"]
    if "measured" in content:
        assert all(row["value"] > 0 for row in content["measured"])
    else:
        assert all(row["wall"]["low"] > 0 for row in content["rows"])
    assert {"cpu", "cores", "memory_gib"} <= content["machine"].keys()
    assert content["packages"]["numpy"]


def test_things_take_turns_after_a_round_that_does_not_count():
    seen = []
    things = [Thing(name, lambda n=name: seen.append(n), before=lambda: seen.append("before")) for name in "ab"]
    rounds = measure(things, repeats=2)
    assert seen == ["before", "a", "before", "b"] * 3
    assert {name: len(runs) for name, runs in rounds.items()} == {"a": 2, "b": 2}


def test_a_commands_memory_and_work_count_with_those_of_what_it_starts():
    hold = "held = bytearray(150 * 2**20); sum(range(2 * 10**6)); import time; time.sleep(0.3)"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    result = run_once(Thing("holder", [sys.executable, "-c", inner]))
    assert 155 * 2**20 < result.rss < 300 * 2**20
    assert result.wall > 0.3
    assert result.cpu > 0.02


def test_a_command_that_fails_ends_the_benchmark_with_its_own_words():
    with pytest.raises(RuntimeError, match="exit status 1(.|\n)*no such luck"):
        run_once(Thing("bad", [sys.executable, "-c", "raise SystemExit('no such luck')"]))


def test_medians_sums_and_ratios_by_hand():
    rounds = {"a": [Run(1, 4, 10), Run(2, 6, 30), Run(9, 9, 20)], "b": [Run(3, 2, 20), Run(3, 2, 20), Run(3, 3, 20)]}
    both = total("both", ["a", "b"], rounds)
    assert list(both.runs) == [Run(4, 6, 20), Run(5, 8, 30), Run(12, 12, 20)]
    assert ratio("a / b", "a", "b", rounds).values == [2, 3, 3]


def test_the_docs_tables_are_those_of_the_results(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Words.\n<!-- results: toy -->\nold\n<!-- end -->\nMore.\n")
    runs = {"a": [Run(1.5, 4, 2**20), Run(2.5, 6, 2**20), Run(9, 9, 3 * 2**20)]}
    thing = Thing("a", print, units=1000, unit="view")
    publish(Report("toy", "Toy", [row(thing, runs, "at most 9 s")], [ratio("a / a", "a", "a", runs)]), tmp_path)
    fill_docs(page, tmp_path)
    first = page.read_text()
    assert "| a | 2.5 s (1.5 s to 9 s) | 6 s (4 s to 9 s) | 6 ms / view | 1 MiB | at most 9 s |" in first
    assert "| a / a | CPU time | 1 (1 to 1) |" in first
    assert first.startswith("Words.\n<!-- results: toy -->\n")
    assert first.endswith("<!-- end -->\nMore.\n")
    assert "old" not in first
    fill_docs(page, tmp_path)
    assert page.read_text() == first
