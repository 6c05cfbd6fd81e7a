"""Named protocols: how others play MetaWorld and LIBERO, so that success rates can be compared.

Each is a table of profiles. docs/benchmarks.md says whose they are, where the values come from, and
what of each protocol is not known or not followed.
"""

from dataclasses import replace

from alam_core.errors import UserError, listing
from alam_core.sim.libero import tasks as libero
from alam_core.sim.metaworld import tasks as metaworld
from alam_core.sim.profiles import LiberoProfile, MetaWorldProfile, Profile, Rendering

DEFAULTS: dict[str, Profile] = {
    metaworld.PREFIX: MetaWorldProfile(),
    libero.PREFIX: LiberoProfile(),
}
OPENPI_LIBERO = LiberoProfile(
    rendering="full", mirrored=True, episodes_per_task=50, seeds=(7, 0, 0)
)
PROTOCOLS: dict[str, dict[str, Profile]] = {  # name -> family of worlds -> profile
    "alam": {
        metaworld.PREFIX: MetaWorldProfile(
            rendering="full",
            camera_size=480,
            wrist="black",
            episodes_per_task=10,
            seeds=(10, 1000, 1),
        ),
        libero.PREFIX: replace(OPENPI_LIBERO, settle_steps=50),
    },
    "evo1": {
        metaworld.PREFIX: MetaWorldProfile(
            rendering="full",
            camera_size=480,
            camera_position=None,
            crop=2 / 3,
            wrist="none",
            state_dim=8,
            max_steps=400,
            settle_steps=1,
            episodes_per_task=10,
            seeds=(4042, 0, 1),
        ),
        libero.PREFIX: LiberoProfile(
            rendering="full",
            camera_size=448,
            mirrored=True,
            settle_gripper=0.0,
            max_steps=(350, 350, 350, 990),
            episodes_per_task=10,
            seeds=(42, 0, 0),
        ),
    },
    "lerobot": {
        metaworld.PREFIX: MetaWorldProfile(
            rendering="full",
            camera_size=480,
            camera_position=(0.75, 0.075, 0.7),
            wrist="none",
            max_steps=500,
            episodes_per_task=10,
            seeds=(1000, 0, 1),
        ),
        libero.PREFIX: replace(
            OPENPI_LIBERO,
            max_steps=(280, 280, 300, 520),
            episodes_per_task=10,
            seeds=(1000, 0, 1),
        ),
    },
    "openpi": {libero.PREFIX: OPENPI_LIBERO},
}


def find_profile(
    world: str, protocol: str = "", rendering: Rendering | None = None
) -> Profile | None:
    """The profile of a world with a named protocol and a way of rendering; without a name the
    world's own, None if there are no profiles of this world. None as rendering is the profile's.

    Raises UserError for an unknown protocol, and where the protocol or the rendering is not defined
    for the world.
    """
    family = world.partition("/")[0]
    if protocol and protocol not in PROTOCOLS:
        known = listing(PROTOCOLS, like=protocol)
        raise UserError(f"there is no protocol '{protocol}'; there are: {known}")
    profile = (PROTOCOLS[protocol] if protocol else DEFAULTS).get(family)
    if profile is None and protocol:
        raise UserError(
            f"the protocol '{protocol}' does not define the world '{world}', only "
            f"{' and '.join(PROTOCOLS[protocol])}"
        )
    if profile is None and rendering == "full":
        raise UserError(
            f"the world '{world}' is rendered without shadows only: leave out --rendering full"
        )
    return replace(profile, rendering=rendering) if profile and rendering else profile


def count_tasks(world: str) -> int:
    """Number of tasks of a world, by its name: seeds that differ by it play the same task. 1 for a
    world that is not a benchmark. Raises UserError for an unknown task.
    """
    family = world.partition("/")[0]
    if family == libero.PREFIX:
        return len(libero.tasks_of(world))
    return len(metaworld.tasks_of(world)) if family == metaworld.PREFIX else 1
