"""What the report counts and which images it chooses, worked by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cutsew.reporting import selection
from cutsew.reporting.charts import calibration, gains, reliability
from cutsew.reporting.heatmaps import MOST_COLUMNS, MOST_ROWS, chosen
from cutsew.reporting.run_data import BINS, EDGES, Labels, Pairs, tally, tally_truth
from cutsew.reporting.selection import NONE, Changes, changes, ends, entropy, most, select_examples

# Three classes, four images. A logit of 0 is a probability of one half, and named at that threshold.
FIRST = np.array([[2, -1, -3], [1, -2, -4], [-1, 3, -2], [-3, -2, 0.5]])
LAST = np.array([[2, 1, -3], [-1, -2, -4], [-1, 3, 4], [-3, 2, 0]])
TRUTH = np.array([[1, 1, 0], [0, 1, 0], [0, 1, -1], [-1, -1, -1]], dtype=np.int8)


def in_blocks(*stages, size=3):
    return zip(*([z[i : i + size] for i in range(0, len(z), size)] for z in stages), strict=True)


class TestTally:
    def test_labels(self):
        labels = tally((block for (block,) in in_blocks(LAST)), TRUTH, 0.5).labels
        assert labels.sizes.tolist()[:4] == [1, 0, 3, 0]  # image 1 has none, the others two each
        assert labels.counts.tolist() == [1, 3, 2]
        assert labels.mean == 1.5

    def test_many_labels_share_a_bin(self):
        labels = Labels.of(30)
        labels.add(np.ones((2, 30), dtype=bool))
        assert (labels.sizes[-1], labels.sizes.sum(), labels.mean) == (2, 2, 30)

    def test_truth_counts_known_images_only(self):
        labels = tally_truth(TRUTH)
        assert labels.sizes.tolist()[:3] == [0, 2, 1]
        assert tally_truth(np.full((2, 3), -1, dtype=np.int8)) is None

    def test_values(self):
        counted = tally([np.array([[-99, 0.1, 0.2]])], np.full((1, 3), -1, dtype=np.int8), 0.5)
        assert counted.values.sum() == 3
        assert counted.values[0] == 1  # beyond the outermost bin
        assert counted.values[np.searchsorted(EDGES, 0.1) - 1] == 2
        assert counted.mean_value == pytest.approx(-98.7 / 3)

    def test_calibration(self):
        # logits whose probabilities are 0.25, 0.75, 0.75, 0.75; of the three, two are true
        z = np.log(np.array([[1 / 3, 3], [3, 3]]))
        counted = tally([z], np.array([[0, 1], [1, 0]], dtype=np.int8), 0.5)
        assert counted.counted.tolist() == [0, 0, 1, 0, 0, 0, 0, 3, 0, 0]
        assert counted.true[7] == 2
        # (1 |0 - 0.25| + 3 |2/3 - 0.75|) / 4
        assert counted.calibration_error == pytest.approx((0.25 + 0.25) / 4)
        assert reliability(counted) == []  # three pairs are too few to draw
        counted.counted *= 10
        counted.true *= 10
        counted.sure *= 10
        np.testing.assert_allclose(reliability(counted), [(0.25, 0), (0.75, 2 / 3)])

    def test_unknown_pairs_are_not_calibrated(self):
        counted = tally([FIRST], np.full(FIRST.shape, -1, dtype=np.int8), 0.5)
        assert not counted.counted.any()
        assert calibration({"zero_shot": counted}, "train") is None

    @given(arrays(np.float64, (7, 3), elements=st.floats(-20, 20)), st.integers(1, 7))
    def test_slices_do_not_matter(self, z, size):
        truth = np.tile(np.array([1, 0, -1], dtype=np.int8), (7, 1))
        whole = tally([z], truth, 0.5)
        parts = tally((block for (block,) in in_blocks(z, size=size)), truth, 0.5)
        assert (whole.labels.counts == parts.labels.counts).all()
        assert (whole.values == parts.values).all()
        assert (whole.true == parts.true).all()
        assert len(whole.sure) == BINS
        np.testing.assert_allclose(whole.sure, parts.sure)


class TestPairs:
    named = LAST >= 0

    def test_of_all_classes(self):
        pairs = Pairs([2, 0, 1, 0])
        pairs.add(self.named[:3])
        pairs.add(self.named[3:])
        assert pairs.together.tolist() == [[1, 1, 0], [1, 3, 2], [0, 2, 2]]
        np.testing.assert_allclose(pairs.given([0, 1, 2], [0, 1, 2]), [[1, 1, 0], [1 / 3, 1, 2 / 3], [0, 1, 1]])
        np.testing.assert_allclose(pairs.given([1], [2, 0]), [[2 / 3, 1 / 3]])
        assert pairs.commonest() == (1, 2, 2)

    def test_the_first_of_equally_common_pairs(self):
        pairs = Pairs(range(4))
        pairs.add(np.array([[True, False, True, True], [False, True, False, True]]))
        assert pairs.commonest() == (0, 2, 1)
        assert Pairs(range(4)).commonest() is None

    def test_only_the_chosen_classes_are_counted(self):
        pairs = Pairs([19_999, 5])
        has = np.zeros((8, 20_000), dtype=bool)
        has[:3, [5, 7, 19_999]] = has[3, 5] = True
        pairs.add(has)
        assert pairs.together.tolist() == [[4, 3], [3, 3]]
        assert pairs.commonest() == (5, 19_999, 3)
        assert pairs.given([19_999], [5]).tolist() == [[1]]

    @given(arrays(bool, (9, 6)), st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
    def test_shares_are_those_of_counting_all_pairs(self, has, rows, columns):
        pairs, every = Pairs([*rows, *columns]), Pairs(range(6))
        pairs.add(has)
        every.add(has)
        assert every.together.tolist() == (has.astype(int).T @ has.astype(int)).tolist()
        assert np.array_equal(pairs.given(rows, columns), every.given(rows, columns), equal_nan=True)

    def test_no_image_with_a_class_gives_no_share(self):
        pairs = Pairs([0, 1])
        pairs.add(np.array([[True, False]]))
        assert pairs.given([0], [0, 1]).tolist() == [[1, 0]]
        assert np.isnan(pairs.given([1], [0, 1])).all()


class TestChanges:
    changed = changes(in_blocks(FIRST, LAST), (0.5, 0.5))

    def test_gained_and_lost(self):
        assert self.changed.gained.tolist() == [1, 0, 1, 1]
        assert self.changed.lost.tolist() == [0, 1, 0, 0]

    def test_ends_of_each_class(self):
        assert self.changed.clearest.tolist() == [0, 2, 3]
        assert self.changed.top.tolist() == [0, 2, 2]
        assert self.changed.bottom.tolist() == [0, 0, 3]  # of the images named with it, the least sure

    def test_ease_by_the_last_stage(self):
        # dog is named on images 0, 2, 3 and comes first on 2 alone
        assert self.changed.present.tolist() == [1, 3, 2]
        assert self.changed.hits.tolist() == [1, 1, 1]
        np.testing.assert_allclose(self.changed.ease, [1, 1 / 3, 1 / 2])

    def test_ease_by_truth(self):
        changed = changes(in_blocks(FIRST, LAST), (0.5, 0.5), TRUTH)
        assert changed.present.tolist() == [1, 3, 0]
        assert changed.hits.tolist() == [1, 1, 0]
        assert np.isnan(changed.ease[2])
        assert changed.top.tolist() == self.changed.top.tolist()

    def test_a_class_that_is_never_named_has_no_least_sure_image(self):
        assert changes([(FIRST, LAST - 9)], (0.5, 0.5)).bottom.tolist() == [NONE] * 3

    def test_entropy(self):
        np.testing.assert_allclose(entropy(np.array([0, 0.25, 0.5, 1])), [0, 2 - 0.75 * np.log2(3), 1, 0], atol=1e-9)

    def test_bits(self):
        assert changes([(np.zeros((1, 3)), np.zeros((1, 3)))], (0.5, 0.5)).bits.tolist() == [3]


def made_up(n, classes=1, **named):
    given = {"gained": np.zeros(n, int), "lost": np.zeros(n, int), "bits": np.zeros(n)}
    given |= {name: np.full(classes, NONE) for name in ("clearest", "top", "bottom", "present", "hits")}
    return Changes(**{**given, **{name: np.array(values) for name, values in named.items()}})


class TestSample:
    def test_equal_images_come_by_digest_and_zeros_not_at_all(self):
        assert most(np.array([0, 2, 1, 2, 1]), np.array(list("edcba")), 3) == [3, 1, 4]
        assert most(np.array([0, 0, 1]), np.array(list("abc")), 3) == [2]

    def test_reasons(self, monkeypatch):
        monkeypatch.setattr(selection, "EACH", 1)
        monkeypatch.setattr(selection, "DRAWN", 1)
        changed = made_up(
            6,
            2,
            gained=[0, 3, 1, 0, 0, 0],
            lost=[0, 0, 0, 2, 0, 0],
            bits=[0, 1, 0, 0.5, 0, 0],
            top=[1, 4],
            bottom=[2, -1],
        )
        assert select_examples(changed, list("fedcba"), np.array([1, 5])) == {
            1: [selection.GAINED, selection.UNSURE, selection.MOST_CONFIDENT],
            3: [selection.LOST],
            4: [selection.MOST_CONFIDENT],
            2: [selection.BORDERLINE],
            5: [selection.BY_CHANCE],
        }

    def test_of_many_classes_those_that_moved_most(self, monkeypatch):
        monkeypatch.setattr(selection, "CLASSES", 2)
        monkeypatch.setattr(selection, "DRAWN", 1)
        changed = made_up(4, 3, top=[0, 1, 2], bottom=[0, 1, 2])
        result = select_examples(changed, list("zzza"), np.array([0, 7, 3]))
        assert list(result) == [1, 2, 3]

    def test_a_share_of_each(self, monkeypatch):
        monkeypatch.setattr(selection, "EACH", 4)
        monkeypatch.setattr(selection, "DRAWN", 2)
        result = select_examples(made_up(9, gained=range(9)), list("abcdefghi"), np.array([0]), 0.5)
        assert result == {8: [selection.GAINED], 7: [selection.GAINED], 0: [selection.BY_CHANCE]}

    @given(st.permutations(range(8)))
    def test_order_of_images_does_not_matter(self, order):
        gained, digests = np.array([0, 1, 2, 3, 3, 2, 1, 0]), np.array(list("hgfedcba"))
        result = most(gained[order], digests[order], 4)
        assert [digests[order][i] for i in result] == ["d", "e", "c", "f"]


def test_easiest_and_hardest_never_share_a_class():
    changed = made_up(1, 5, present=[10, 0, 10, 20, 4], hits=[5, 0, 1, 10, 0])
    assert ends(changed) == ([3, 0], [4, 2])  # half of both, more images first; class 1 has none


def test_rows_and_columns_of_the_heat_map():
    labels = Labels.of(60)
    labels.add(np.arange(60) > np.arange(60)[:, None])  # class c in c images
    rows, columns = chosen(labels.counts, np.append(np.linspace(1, 0, 59), np.nan))
    assert rows == [*range(MOST_ROWS // 2), *range(60 - MOST_ROWS // 2, 60)]
    assert columns == list(range(59, 59 - MOST_COLUMNS, -1))
    assert chosen(Labels.of(3).counts, np.array([0.1, 0.9, 0.5])) == ([1, 2, 0], [0, 1, 2])


def test_gains_are_sorted():
    rows = [("zero_shot", "a", 50), ("zero_shot", "b", 60), ("student", "a", 40), ("student", "b", 90)]
    table = pd.DataFrame([{"split": "test", "stage": s, "class": c, "AP": ap} for s, c, ap in rows])
    ap = gains(table, "test", "zero_shot", "student")
    assert ap["gain"].to_dict() == {"a": -10, "b": 30}
    assert list(ap.index) == ["a", "b"]
    assert gains(table, "train", "zero_shot", "student").empty
