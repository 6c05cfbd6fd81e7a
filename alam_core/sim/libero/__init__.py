"""The LIBERO benchmark (Panda arm, four suites of ten tasks) as worlds.

``libero/spatial``, ``libero/object``, ``libero/goal`` and ``libero/long`` are the suites,
``libero/<suite>/<number>`` is one task and ``libero`` all forty.
"""

from alam_core.sim.libero.tasks import PREFIX
from alam_core.sim.profiles import LiberoProfile
from alam_core.sim.world import WORLDS, World


@WORLDS.register(PREFIX)
def make_world(name: str, image_size: int, profile: LiberoProfile | None = None) -> World:
    from alam_core.sim.libero.world import LiberoWorld

    return LiberoWorld(name, image_size, profile or LiberoProfile())
