"""The MetaWorld benchmark (Sawyer arm, 50 tasks) as worlds.

``metaworld`` has the tasks that this project trains on, ``metaworld/mt50`` all fifty,
``metaworld/<task>`` one and ``metaworld/<task>,<task>`` several.
"""

from alam_core.sim.metaworld.tasks import PREFIX
from alam_core.sim.profiles import MetaWorldProfile
from alam_core.sim.world import WORLDS, World


@WORLDS.register(PREFIX)
def make_world(name: str, image_size: int, profile: MetaWorldProfile | None = None) -> World:
    from alam_core.sim.metaworld.world import MetaWorld

    return MetaWorld(name, image_size, profile)
