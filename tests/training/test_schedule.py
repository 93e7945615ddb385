"""Learning rates as functions of the step."""

from hypothesis import given
from hypothesis import strategies as st

from unveil.recipe import Optimizer, Schedule
from unveil.training.schedule import learning_rate, plan_steps, rates


@given(total=st.integers(1, 500), data=st.data())
def test_rises_to_the_peak_and_falls_to_the_minimum(total, data):
    warmup = data.draw(st.integers(0, total - 1))
    values = [learning_rate(step, total, warmup, 1.0, 0.1) for step in range(total)]
    assert values[warmup] == 1.0 == max(values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    assert learning_rate(total, total, warmup, 1.0, 0.1) == 0.1 or total == warmup


def test_max_steps_shrinks_the_whole_schedule():
    schedule = Schedule(epochs=100, warmup=10)
    assert plan_steps(schedule, 7, None) == (700, 70)
    assert plan_steps(schedule, 7, 350) == (350, 35)
    assert plan_steps(schedule, 7, 10_000) == (700, 70)
    assert plan_steps(schedule, 7, 0) == (0, 0)


def test_rates_follow_the_linear_scaling_rule():
    assert rates(Optimizer(lr=1e-3), Schedule(min_lr=1e-5), 512) == (2e-3, 2e-5)


def test_a_peak_below_the_final_rate_stays():
    """Of a recipe with a constant rate, given a smaller one."""
    assert rates(Optimizer(lr=1e-4), Schedule(min_lr=8e-4), 256) == (1e-4, 1e-4)
    assert rates(Optimizer(lr=1e-3), Schedule(min_lr=8e-4), 128) == (5e-4, 4e-4)
