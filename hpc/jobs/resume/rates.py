"""The effect of a changed number of steps on the learning rate, in a sentence."""

from __future__ import annotations

from hpc.optim.schedule import Schedule


def rate_sentence(schedule: Schedule, done: int, before: int, after: int) -> str:
    """The effect of `after` steps in the place of `before` on a run that has `done` of them.

    Empty where neither a step that was done nor one that was to come has another rate.
    """
    past = any(
        schedule.factor(step, before) != schedule.factor(step, after) for step in range(done)
    )
    shared = range(done, min(before, after))
    future = any(schedule.factor(step, before) != schedule.factor(step, after) for step in shared)
    last, following = schedule.factor(done - 1, before), schedule.factor(done, after)
    if not past and not future:
        return ""
    words = (
        f"optim.schedule.kind={schedule.kind} is drawn over all steps: step {done} had "
        f"{last:.3g} of the peak rate, step {done + 1} of {after} has {following:.3g}, and the "
        f"last one {schedule.factor(after - 1, after):.3g}"
    )
    if past:
        words += f". A run of {after} steps from its start would have had other rates until here"
    return words
