"""Rates of a resumed run whose settings have changed: those of the settings, not those of the checkpoint.

An optimiser's saved state brings its rates back, and so does a schedule's. Moments and the count of steps are
the checkpoint's; rates, decay and betas are what the run was started with.
"""

from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR


def load_with_new_rates(optimizer: Any, schedule: Any, load: Callable[[], None]) -> None:
    """Loads the state of optimiser and schedule, and puts back what the settings say.

    Args:
        optimizer: with the groups of this run's settings.
        schedule: of the same.
        load: loads the saved state into both.
    """
    wanted = [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    load()
    for group, settings in zip(optimizer.param_groups, wanted, strict=True):
        group.update(settings)
    if not isinstance(schedule, LambdaLR):
        return
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    schedule._last_lr = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
    for group, rate in zip(optimizer.param_groups, schedule._last_lr, strict=True):
        group["lr"] = rate
