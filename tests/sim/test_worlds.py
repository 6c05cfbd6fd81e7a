"""Worlds are found by name: those of this package, those of docs/add_a_task.md, and no others."""

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.sim.world import WORLDS, DrivenWorld, WorldWithExpert, make_expert, make_world
from alam_core.types import VIEWS

PAGE = Path(__file__).parents[2] / "docs" / "add_a_task.md"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def my_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package ``my_worlds`` of the page, installed for one test."""
    WORLDS.names()  # so that the entries restored below include this package's own worlds
    monkeypatch.setattr(WORLDS, "_entries", dict(WORLDS._entries))
    package = tmp_path / "my_worlds"
    package.mkdir()
    (package / "__init__.py").touch()
    for code in snippets("python"):
        name = code.partition("\n")[0].removeprefix("# ")
        (package / name).write_text(code)
    information = tmp_path / "my_worlds-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-worlds\nVersion: 1.0\n")
    (project,) = snippets("toml")
    groups = tomllib.loads(project)["project"]["entry-points"]
    (information / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())
            for group, entries in groups.items()
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_worlds"]:
        del sys.modules[module]


@pytest.mark.parametrize("name", ["line", "piper_touch"])
def test_the_worlds_of_the_page_are_found_and_their_experts_succeed(my_worlds, name: str) -> None:
    assert name in WORLDS.names() and "piper_place" in WORLDS.names()
    try:
        world = make_world(name, 48)
    except UserError as error:
        pytest.skip(str(error))
    try:
        for seed in range(5):
            first = world.reset(seed)
            assert {view: image.shape for view, image in first.images.items()} == dict.fromkeys(
                VIEWS, (48, 48, 3)
            )
            assert first.state.shape == (world.state_dim,) and not world.success()
            expert = make_expert(world, seed)
            expert.reset()
            for _ in range(world.max_steps):
                world.step(expert.act(), render=False)
                if world.success():
                    break
            assert world.success()
            again = world.reset(seed)
            assert again.instruction == first.instruction
            np.testing.assert_array_equal(again.images["wrist"], first.images["wrist"])
    finally:
        world.close()


def test_a_variant_goes_to_the_factory_of_its_family(my_worlds) -> None:
    assert make_world("line/short").name == "line/short"
    with pytest.raises(UserError, match="MetaWorld"):
        make_world("metaworld/no-such-task")


def test_protocols_tell_worlds_apart(my_worlds) -> None:
    world = make_world("line")
    assert isinstance(world, WorldWithExpert) and not isinstance(world, DrivenWorld)
    line = importlib.import_module("my_worlds.line")
    del line.LineWorld.expert
    assert not isinstance(world, WorldWithExpert)
    with pytest.raises(UserError, match="world 'line' has no scripted expert"):
        make_expert(world)


def test_an_unknown_world_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="no world 'moon'; there are: .*metaworld.*piper_place"):
        make_world("moon")


def test_listing_worlds_starts_no_simulator() -> None:
    code = (
        "import sys; from alam_core.sim.world import WORLDS; print(WORLDS.names());"
        "print([name for name in ('mujoco', 'metaworld', 'robosuite', 'torch')"
        " if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    names, imported = output.stdout.splitlines()
    assert "piper_place" in names and imported == "[]"


def test_a_world_renders_before_torch_imports_its_compiler() -> None:
    """Mesa's LLVM must not be loaded before Triton's: the second import would crash the process."""
    code = (
        "from alam_core.sim.world import make_world;"
        "world = make_world('piper_place', 32); world.reset(0);"
        "import torch._dynamo; world.close(); print('alive')"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.returncode == 0 and output.stdout == "alive\n", output.stderr
