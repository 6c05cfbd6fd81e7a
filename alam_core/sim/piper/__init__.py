"""Worlds with a simulated Piper arm on a table: one file in ``tasks/`` per task.

The file ``tasks/NAME.py`` is registered as the world ``piper_NAME``, without being imported. Its
function ``make_world(name, image_size)`` is called when the world is made.
"""

import importlib
import pkgutil

from alam_core.sim.piper import tasks
from alam_core.sim.world import WORLDS, World, WorldFactory


def _factory(module: str) -> WorldFactory:
    def make_world(name: str, image_size: int) -> World:
        return importlib.import_module(module).make_world(name, image_size)

    return make_world


for _file in pkgutil.iter_modules(tasks.__path__):
    WORLDS.register(f"piper_{_file.name}")(_factory(f"{tasks.__name__}.{_file.name}"))
