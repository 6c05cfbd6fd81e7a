"""Models by their id on the hub; no test here uses the network."""

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from policy_fixtures import tiny_policy

from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy


def test_an_id_is_fetched_and_read(tmp_path, monkeypatch):
    folder = tiny_policy().save_pretrained(tmp_path / "snapshot")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(folder),
    )
    assert JointPolicy.from_pretrained("somebody/policy").config.views == ["third_person", "wrist"]
    ((name, patterns),) = asked
    assert name == "somebody/policy" and "model.safetensors" in patterns
    # Only files that cannot contain code.
    assert {pattern.rpartition(".")[2] for pattern in patterns} == {"json", "safetensors", "md"}


def test_a_model_that_the_hub_does_not_have_is_reported_in_one_line(monkeypatch):
    def refuse(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        UserError,
        match="no checkpoint 'somebody/policy': there is no such folder, and the model hub does "
        "not give it",
    ):
        JointPolicy.from_pretrained("somebody/policy")


@pytest.mark.parametrize("path", ["runs/policy", "/nowhere/policy", "a/b/c", "policy"])
def test_nothing_that_may_be_a_path_is_fetched_from_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub")
    )
    with pytest.raises(UserError, match="no checkpoint at"):
        JointPolicy.from_pretrained(path)
