"""Checkpoints that cannot be written or read: one line that says what is there instead."""

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from alam_core.checkpoints import load_tensors, read_checkpoint, save_checkpoint
from alam_core.errors import UserError, explain


def save(folder: Path) -> Path:
    return save_checkpoint(folder, nn.Linear(2, 3), {"kind": "toy"})


def test_a_wall_of_names_becomes_five_and_a_count() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(54)))  # 108 tensors
    with pytest.raises(UserError) as error:
        load_tensors(model, {"0.weight": torch.zeros(3, 2), "old": torch.zeros(1)}, "runs/old")
    message = str(error.value)
    assert "(missing 0.bias, 1.weight, 1.bias, 2.weight, 2.bias and 102 more; " in message
    assert "unexpected old; 0.weight is (3, 2) instead of (2, 2)): " in message
    assert "another version" in message and len(message) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "'git lfs pull'"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, not weights"),
        (b"", "is empty"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "it is incomplete or damaged; copy it again"),
    ],
)
def test_a_file_that_holds_no_weights_is_recognised(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (save(tmp_path / "m") / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "m", "toy")


def test_another_folder_than_a_checkpoint_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    save(tmp_path / "run" / "policy")
    (tmp_path / "run" / "state.safetensors").touch()
    with pytest.raises(UserError, match=r"there is: policy, state.safetensors.*give the folder"):
        read_checkpoint(tmp_path / "run", "toy")
    (tmp_path / "run" / "policy" / "config.json").write_text('{"architectures": [], "vocab": 1}')
    with pytest.raises(UserError, match=r"another project's model .*has: architectures, vocab"):
        read_checkpoint(tmp_path / "run" / "policy", "toy")


def test_a_full_disk_is_an_os_error_that_names_the_model_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (save(tmp_path / "m") / "model.safetensors").read_bytes()
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError) as error:
        save(tmp_path / "m")
    assert error.value.errno == errno.ENOSPC
    assert f"'{tmp_path / 'm'}': No space left" in str(explain(error.value))
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
