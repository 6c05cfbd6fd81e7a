"""Configuration from the command line and YAML: paths as users write them."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alam_core.config import from_dict, parse_args
from alam_core.errors import UserError
from alam_core.files import expand_path


@dataclass
class Source:
    path: str


@dataclass
class Loop:
    cache: str = ""


@dataclass
class Config:
    """Settings with paths in every place where a setting may hold one."""

    root: str = ""
    task: str = ""
    fps: float = 1.0
    data: str | list[Source] = ""
    runs: list[str] = field(default_factory=list)
    views: dict[str, str] = field(default_factory=dict)
    loop: Loop = field(default_factory=Loop)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/big/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path


@pytest.mark.parametrize("notation", ["--root=~/x", "--root=$HOME/x", "--root=${HOME}/x"])
def test_a_flag_may_name_the_home_folder(home: Path, notation: str) -> None:
    assert parse_args(Config, "", [notation]).root == f"{home}/x"


def test_paths_are_expanded_in_yaml_lists_and_nested_settings(home: Path) -> None:
    (home / "preset.yaml").write_text(
        "root: ~/x\nruns: [~/a, plain, $DATA/b]\ndata: [{path: ~/set}]\nloop: {cache: $DATA}\n"
    )
    config = parse_args(Config, "", ["--config=$HOME/preset.yaml", "--views.top=~/film"])
    assert config.root == f"{home}/x" and config.runs == [f"{home}/a", "plain", "/big/data/b"]
    assert config.data == [Source(f"{home}/set")] and config.loop.cache == "/big/data"
    assert config.views == {"top": f"{home}/film"} and config.fps == 1.0


def test_an_unset_variable_and_an_unknown_user_are_named(home: Path) -> None:
    (home / "preset.yaml").write_text("root: $NOWHERE/x\n")
    with pytest.raises(UserError, match=r"root: '\$NOWHERE/x': the variable \$NOWHERE is not set"):
        parse_args(Config, "", ["--config", str(home / "preset.yaml")])
    with pytest.raises(UserError, match=r"--root=\$NOWHERE/x': the variable \$NOWHERE is not set"):
        parse_args(Config, "", ["--root=$NOWHERE/x"])
    with pytest.raises(UserError, match=r"the variable \$EMPTY is empty"):
        parse_args(Config, "", ["--root=$EMPTY/x"])  # not a folder at the root of the disk
    with pytest.raises(UserError, match=r"only \$NAME and \$\{NAME\} are replaced"):
        parse_args(Config, "", ["--root=${NOWHERE:-/tmp}/x"])
    with pytest.raises(UserError, match="there is no user 'nobody-here'; .* write './~nobody-here"):
        parse_args(Config, "", ["--root=~nobody-here/x"])


@pytest.mark.parametrize(
    "text", ["", "data/x", "put $5 on the tray", "press $start", "./~x", "a~b"]
)
def test_other_texts_stay_as_they_are(home: Path, text: str) -> None:
    assert expand_path(text) == text
    assert parse_args(Config, "", ["--task", text]).task == text


def test_messages_are_in_this_projects_words(home: Path) -> None:
    with pytest.raises(UserError, match="^fps is 'fast': give a number; --help"):
        parse_args(Config, "", ["--fps", "fast"])
    (home / "bad.yaml").write_text("runs: [1")
    with pytest.raises(UserError, match=r"bad.yaml is not YAML \(.*line 1") as error:
        parse_args(Config, "", ["--config", str(home / "bad.yaml")])
    assert "<unicode" not in str(error.value)
    with pytest.raises(UserError, match="runs/config.json: .*'roots'.*; is it of another version"):
        from_dict(Config, {"roots": "x"}, "runs/config.json")
