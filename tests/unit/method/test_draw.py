"""Keyed randomness."""

from cutsew.method.random import keyed_rng, torch_seed


def test_golden():
    assert keyed_rng(9, "d", 0).integers(0, 1000, 4).tolist() == [317, 686, 172, 114]
    assert torch_seed(9, "step", 1) == 7756220716261717491


def test_parts_do_not_run_together():
    assert keyed_rng("a", "bc").random() != keyed_rng("ab", "c").random()
    assert keyed_rng(1).random() != keyed_rng("1").random()
    assert keyed_rng(1, 2).random() == keyed_rng(1, 2).random()


def test_seed_fits_torch():
    assert all(0 <= torch_seed(i) < 2**63 for i in range(100))
