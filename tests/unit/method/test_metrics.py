"""method.metrics and its agreement: numbers worked by hand, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import precision_recall_fscore_support

from cutsew.method.metrics import (
    BINS,
    Confidence,
    Counts,
    Ranked,
    agreement,
    average_precision,
    inversions,
    likeliest,
    mean_average_precision,
    named_likeliest,
)


def column(*values, dtype=np.float32):
    return np.array(values, dtype=dtype)[:, None]


@st.composite
def truth_and_scores(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    truth = draw(hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
    scores = draw(hnp.arrays(np.float32, shape, elements=st.integers(-6, 6).map(float)))
    return truth, scores


class TestAveragePrecision:
    def test_by_hand(self):
        # Ranked: + - + - : precision 1/1 at the first positive and 2/3 at the second.
        ap = average_precision(column(1, 0, 1, 0, dtype=np.int8), column(4, 3, 2, 1))
        assert ap[0] == pytest.approx(100 * (1 + 2 / 3) / 2)

    def test_ties_by_hand(self):
        # Ranks: {+} then {+, -} together then {-, +}: recall steps 1/3 each at precisions 1, 2/3 and 3/5.
        ap = average_precision(column(1, 1, 0, 0, 1, dtype=np.int8), column(3, 2, 2, 1, 1))
        assert ap[0] == pytest.approx(100 * (1 + 2 / 3 + 3 / 5) / 3)

    def test_not_counted_labels_are_left_out(self):
        with_gap = average_precision(column(1, -1, 0, 1, dtype=np.int8), column(4, 3.5, 3, 2))
        assert with_gap[0] == pytest.approx(100 * (1 + 2 / 3) / 2)

    def test_class_without_positives_is_left_out_of_the_mean(self):
        truth = np.array([[1, 0], [0, 0], [1, -1]], dtype=np.int8)
        ap = average_precision(truth, np.array([[3, 1], [2, 2], [1, 3]], dtype=np.float32))
        assert np.isnan(ap[1])
        assert mean_average_precision(ap) == pytest.approx(ap[0])
        assert np.isnan(mean_average_precision(np.array([np.nan])))

    @settings(max_examples=60)
    @given(truth_and_scores())
    def test_only_the_order_matters(self, data):
        truth, scores = data
        np.testing.assert_allclose(
            average_precision(truth, scores), average_precision(truth, scores.astype(np.float64) ** 3 / 7 + 2)
        )

    @settings(max_examples=60)
    @given(truth_and_scores(), st.randoms(use_true_random=False))
    def test_order_of_images_does_not_matter(self, data, random):
        truth, scores = data
        rows = random.sample(range(len(truth)), len(truth))
        np.testing.assert_allclose(average_precision(truth, scores), average_precision(truth[rows], scores[rows]))
        np.testing.assert_array_equal(inversions(truth, scores), inversions(truth[rows], scores[rows]))


class TestPrecisionRecall:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, -1, 0]], dtype=np.int8)
    named = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)

    def test_by_hand(self):
        # Class 0: named 3, right 2, true 2. Class 1: named 2 (one more is not counted), right 1, true 2.
        # Class 2 has no positive: out of the class means, its one false alarm in the overall ones.
        result = Counts.of(self.truth, self.named).precision_recall()
        cp, cr = (2 / 3 + 1 / 2) / 2, (1 + 1 / 2) / 2
        per_class = {"CP": cp, "CR": cr, "CF1": 2 * cp * cr / (cp + cr)}
        overall = {"OP": 3 / 6, "OR": 3 / 4, "OF1": 2 * 0.5 * 0.75 / 1.25}
        assert vars(result) == pytest.approx({name: 100 * value for name, value in (per_class | overall).items()})

    def test_nothing_named(self):
        assert set(vars(Counts.of(self.truth, np.zeros((4, 3), dtype=bool)).precision_recall()).values()) == {0.0}

    @settings(max_examples=60)
    @given(truth_and_scores())
    def test_as_scikit_learn(self, data):
        truth, scores = data
        truth, named = np.abs(np.pad(truth, ((0, 1), (0, 1)), constant_values=1)), np.pad(scores > 0, ((0, 1), (0, 1)))
        used = truth.any(axis=0)
        result = Counts.of(truth, named).precision_recall()
        p, r, _, _ = precision_recall_fscore_support(truth[:, used], named[:, used], average="macro", zero_division=0)
        op, o_r, of1, _ = precision_recall_fscore_support(truth, named, average="micro", zero_division=0)
        expected = {"CP": p, "CR": r, "OP": op, "OR": o_r, "OF1": of1}
        assert {name: vars(result)[name] for name in expected} == pytest.approx(
            {name: 100 * value for name, value in expected.items()}
        )

    def test_no_truth(self):
        assert np.isnan(
            list(vars(Counts.of(np.full((4, 3), -1, dtype=np.int8), self.named).precision_recall()).values())
        ).all()

    @settings(max_examples=60)
    @given(truth_and_scores(), st.floats(-6, 6))
    def test_percentages(self, data, threshold):
        truth, scores = data
        values = np.array(list(vars(Counts.of(truth, scores >= threshold).precision_recall()).values()))
        assert np.isnan(values).all() != ((values >= 0) & (values <= 100)).all()

    @settings(max_examples=60)
    @given(truth_and_scores())
    def test_naming_the_truth_is_perfect(self, data):
        truth, _ = data
        values = np.array(list(vars(Counts.of(truth, truth != 0).precision_recall()).values()))
        assert ((values == 100) | np.isnan(values)).all()


def test_named_top_takes_the_earlier_of_equals():
    scores = np.array([[1, 3, 3, 3], [4, 1, 2, 3]], dtype=np.float32)
    named = named_likeliest(likeliest(scores, 2), slice(0, 4))
    assert named.astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 0, 1]]
    assert (named_likeliest(likeliest(scores, 2), slice(1, 3)) == named[:, 1:3]).all()
    assert named_likeliest(likeliest(scores, 9), slice(0, 4)).all()


class TestInversions:
    def test_by_hand(self):
        # Class 0: negatives 3 and 1 against positives 2 and 0: 3 > 2, 3 > 0, 1 > 0. Class 1: a tie is none.
        truth = np.array([[0, 0], [1, 1], [0, -1], [1, 1]], dtype=np.int8)
        scores = np.array([[3, 1], [2, 1], [1, 9], [0, 2]], dtype=np.float32)
        assert inversions(truth, scores).tolist() == [3, 0]

    @settings(max_examples=60)
    @given(truth_and_scores())
    def test_counts_pairs(self, data):
        truth, scores = data
        pairs = [
            sum(n > p for n in scores[truth[:, c] == 0, c] for p in scores[truth[:, c] == 1, c])
            for c in range(truth.shape[1])
        ]
        assert inversions(truth, scores).tolist() == pairs


class TestConfidence:
    def test_by_hand(self):
        seen = Confidence()
        seen.add(np.array([[0.9, 0.5, 0.1]]))
        seen.add(np.array([[0.2, 0.3, 1.0]]))
        assert seen.mean == pytest.approx(0.95)
        assert (seen.top1[18], seen.top1[19]) == (1, 1)
        assert seen.every.sum() == 6

    @settings(max_examples=60)
    @given(hnp.arrays(np.float32, (5, 3), elements=st.floats(0, 1, width=32)))
    def test_histograms_hold_everything(self, probabilities):
        seen = Confidence()
        seen.add(probabilities)
        assert len(seen.top1) == BINS
        assert (seen.top1.sum(), seen.every.sum()) == (5, 15)


class TestAgreement:
    def test_by_hand(self):
        first = np.array([[0.9, 0.6, 0.1], [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]])
        second = np.array([[0.8, 0.1, 0.2], [0.3, 0.2, 0.1], [0.1, 0.2, 0.9]])
        result = agreement(Ranked.of(first, first >= 0.5), Ranked.of(second, second >= 0.5))
        assert result[:, 0].tolist() == [1, 0, 0]
        assert result[:, 1].tolist() == [1 / 2, 1, 1 / 3]
        assert result[:2, 2] == pytest.approx([0.5, -1])
        assert np.isnan(result[2, 2])

    @settings(max_examples=60)
    @given(hnp.arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)))
    def test_a_stage_agrees_with_itself(self, probabilities):
        ranked = Ranked.of(probabilities, probabilities >= 0.5)
        result = agreement(ranked, ranked)
        assert (result[:, :2] == 1).all()
        assert np.isnan(result[:, 2]).tolist() == [len(set(row)) == 1 for row in probabilities.tolist()]
        np.testing.assert_allclose(result[np.isfinite(result[:, 2]), 2], 1)


class TestF1:
    def test_by_hand(self):
        truth = np.array([[1, 1, 0], [1, 0, 0], [0, -1, 0]], dtype=np.int8)
        named = np.array([[True, True, True], [False, True, False], [True, True, False]])
        # 1 of 2 named is right and 1 of 2 found; 1 of the 2 counted and 1 of 1; a class without positives.
        assert Counts.of(truth, named).f1() == pytest.approx([50, 200 / 3, np.nan], nan_ok=True)
