import random

import pytest

from captioner.inference.cost import CostModel


def test_nothing_is_known_without_observations() -> None:
    assert CostModel().predict(8) == 0.0


def test_no_rows_take_no_time() -> None:
    assert CostModel(prior=[(1, 0.2), (8, 0.9)]).predict(0) == 0.0


def test_a_line_is_found_again() -> None:
    cost = CostModel()
    for rows in (1, 8, 3, 5, 2):
        cost.observe(rows, 0.03 * rows + 0.02)
    assert (cost.per_row, cost.per_batch) == pytest.approx((0.03, 0.02))
    assert cost.predict(4) == pytest.approx(0.14)


def test_one_batch_size_gives_the_mean_time_per_row() -> None:
    cost = CostModel()
    for seconds in (0.4, 0.4, 0.4):
        cost.observe(4, seconds)
    assert cost.predict(8) == pytest.approx(0.8)


def test_the_prior_keeps_the_slope_while_all_batches_are_alike() -> None:
    cost = CostModel(prior=[(rows, 0.03 * rows + 0.02) for rows in (1, 2, 4, 8)])
    for _ in range(1000):
        cost.observe(1, 0.05)
    assert cost.predict(8) == pytest.approx(0.26, rel=1e-3)


def test_old_batches_are_forgotten() -> None:
    cost = CostModel()
    for rows in [1, 8] * 50:
        cost.observe(rows, 10.0 * rows)
    for rows in [1, 8] * 100:
        cost.observe(rows, 0.01 * rows)
    assert cost.predict(8) == pytest.approx(0.08, rel=1e-3)


def test_predictions_are_never_negative_and_never_fall_with_size() -> None:
    generator = random.Random(0)
    for _ in range(200):
        prior = [(generator.randrange(1, 9), generator.random()) for _ in range(generator.randrange(4))]
        cost = CostModel(prior)
        for _ in range(generator.randrange(1, 30)):
            cost.observe(generator.randrange(1, 65), generator.random())
        predictions = [cost.predict(rows) for rows in range(65)]
        assert predictions == sorted(predictions)
        assert predictions[0] == 0.0
