"""Names of LIBERO's suites and tasks. Needs no simulator."""

from dataclasses import dataclass

from alam_core.errors import UserError, listing

PREFIX = "libero"
SUITES = {  # name here -> name in the benchmark
    "spatial": "libero_spatial",
    "object": "libero_object",
    "goal": "libero_goal",
    "long": "libero_10",
}
TASKS = 10  # in each suite


@dataclass(frozen=True)
class LiberoTask:
    """A task by the name of its suite and its number there, 0 to 9, in the benchmark's order."""

    suite: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.number}"


def tasks_of(world: str) -> tuple[LiberoTask, ...]:
    """The tasks that a world's name stands for: ``libero`` is all forty, ``libero/<suite>`` the ten
    of a suite, ``libero/<suite>/<number>`` one. Raises UserError for an unknown suite or task.
    """
    _, _, which = world.partition("/")
    if world == PREFIX:
        return tuple(LiberoTask(suite, number) for suite in SUITES for number in range(TASKS))
    suite, slash, number = which.partition("/")
    if suite not in SUITES:
        raise UserError(f"LIBERO has no suite '{suite}'; it has: {listing(SUITES, like=suite)}")
    if not slash:
        return tuple(LiberoTask(suite, task) for task in range(TASKS))
    if number not in map(str, range(TASKS)):
        raise UserError(
            f"LIBERO's suite '{suite}' has no task '{number}'; its tasks are 0 to {TASKS - 1}"
        )
    return (LiberoTask(suite, int(number)),)
