"""Entries are found by their names; an unknown name raises an error that lists the known ones."""

import importlib.metadata
import sys
from types import ModuleType

import pytest

from alam_core import registry as registry_module
from alam_core.errors import UserError
from alam_core.registry import Registry


def test_an_entry_is_found_by_its_name():
    things: Registry[type] = Registry("thing", "alam.test_things")
    things.register("whole")(int)
    things.register("real")(float)
    assert things.get("whole") is int
    assert things.names() == ["real", "whole"]


def test_an_unknown_name_raises_an_error_that_lists_the_known_ones():
    things: Registry[type] = Registry("thing", "alam.test_things")
    things.register("whole")(int)
    with pytest.raises(UserError, match="no thing 'hole'; there are: whole"):
        things.get("hole")


def test_a_name_is_registered_once():
    things: Registry[type] = Registry("thing", "alam.test_things")
    things.register("whole")(int)
    with pytest.raises(ValueError, match="registered twice"):
        things.register("whole")(float)


def test_modules_register_themselves_at_the_first_look_up(monkeypatch):
    things: Registry[type] = Registry("thing", "alam.test_things", ["things_of_a_test"])
    module = ModuleType("things_of_a_test")
    monkeypatch.setitem(sys.modules, "things_of_a_test", module)
    monkeypatch.setattr(
        registry_module.importlib, "import_module", lambda name: things.register(name)(int)
    )
    assert things.get("things_of_a_test") is int


def test_an_installed_package_adds_an_entry(monkeypatch):
    entry = importlib.metadata.EntryPoint("decimal", "decimal:Decimal", "alam.test_things")
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: [entry] if group == entry.group else []
    )
    things: Registry[type] = Registry("thing", "alam.test_things")
    assert things.names() == ["decimal"]
    assert things.get("decimal").__name__ == "Decimal"


@pytest.mark.parametrize("value", ["package_that_is_gone:make", "decimal:Gone"])
def test_a_package_that_cannot_be_imported_is_named(monkeypatch, value):
    entry = importlib.metadata.EntryPoint("mine", value, "alam.test_things")
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [entry])
    things: Registry[type] = Registry("thing", "alam.test_things")
    things.register("whole")(int)
    assert things.get("whole") is int  # the others are not affected
    with pytest.raises(UserError, match=f"thing 'mine' is in '{value}', which cannot be imported"):
        things.get("mine")


def test_the_librarys_own_entry_wins_over_an_installed_one_of_the_same_name(monkeypatch):
    entry = importlib.metadata.EntryPoint("whole", "decimal:Decimal", "alam.test_things")
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [entry])
    things: Registry[type] = Registry("thing", "alam.test_things")
    things.register("whole")(int)
    assert things.get("whole") is int and things.names() == ["whole"]
