"""Backbones: found by name, and the hidden states of their layers."""

import dataclasses
import weakref

import pi0_fixtures
import pytest
import torch
from policy_fixtures import pi0_policy, random_batch, tiny_backbone, tiny_policy

from alam_core.config import from_dict
from alam_core.errors import UserError
from alam_core.policy.config import BACKBONES, ModelConfig
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.sequence import ACTION

POLICIES = {"small": tiny_policy, "pi0": pi0_policy}
MODALITIES = ["third_person", "wrist", ACTION]


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]()


def arguments(policy, draws=2):
    """x, tau and context of ``predict``."""
    batch = random_batch(policy, draws=draws)
    context = policy.encode(batch["images"], batch["state"], batch["words"])
    x = {name: noise.flatten(0, 1) for name, noise in batch["drawn"]["noise"].items()}
    tau = dict.fromkeys(MODALITIES, batch["drawn"]["tau"].reshape(-1, 1, 1))
    return x, tau, context


def expert_layers(policy):
    expert = policy.backbone.expert
    return expert.blocks if hasattr(expert, "blocks") else expert.layers


def final_norm(policy):
    pi0 = policy.config.model.backbone == "pi0"
    return policy.backbone.norm if pi0 else policy.backbone.expert.norm


def test_backbones_are_found_by_name():
    assert BACKBONES.names() == ["pi0", "small"]
    with pytest.raises(UserError, match="no backbone 'large'; there are: pi0, small"):
        from_dict(ModelConfig, {"backbone": "large"})


def test_hidden_states_are_those_from_which_the_output_is_computed(policy):
    x, tau, context = arguments(policy)
    depth = policy.backbone.depth
    assert depth == len(expert_layers(policy)) >= 2
    predicted, hidden = policy.predict_with_hidden(x, tau, context, range(depth))
    expected = policy.predict(x, tau, context)
    for name in MODALITIES:
        assert torch.equal(predicted[name], expected[name])
        assert all(state[name].shape == (6, 4, policy.backbone.width) for state in hidden)
        out = policy.outputs[name](final_norm(policy)(hidden[-1][name]))
        torch.testing.assert_close(out, predicted[name])
        assert not torch.allclose(hidden[0][name], hidden[-1][name], atol=1e-3)


def test_layers_may_be_counted_from_the_end_and_must_exist(policy):
    x, tau, context = arguments(policy)
    depth = policy.backbone.depth
    _, (last, first) = policy.predict_with_hidden(x, tau, context, (-1, -depth))
    _, (again_first, again_last) = policy.predict_with_hidden(x, tau, context, (0, depth - 1))
    assert all(torch.equal(last[name], again_last[name]) for name in MODALITIES)
    assert all(torch.equal(first[name], again_first[name]) for name in MODALITIES)
    for layer in (depth, -depth - 1):
        with pytest.raises(IndexError, match=f"layer {layer} of a backbone with {depth} layers"):
            policy.predict_with_hidden(x, tau, context, (layer,))


def test_gradients_flow_through_a_hidden_state_into_the_layers_before_it(policy):
    x, tau, context = arguments(policy)
    _, (state,) = policy.predict_with_hidden(x, tau, context, (0,))
    state[ACTION].sum().backward()
    layers = expert_layers(policy)

    def reached(layer):
        return any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.mlp.parameters())

    assert reached(layers[0])
    assert not reached(layers[-1])


@pytest.mark.parametrize("name", POLICIES)
def test_only_the_requested_states_are_kept(name, monkeypatch):
    three = {
        "small": {"small": dataclasses.replace(tiny_backbone(), layers=3)},
        "pi0": {"pi0": Pi0Config(**{**pi0_fixtures.SIZE, "max_words": 12, "layers": 3})},
    }
    policy = POLICIES[name](**three[name])
    outputs, alive = [], []

    def record(output):
        """Note a layer's output, and how many of the earlier ones still exist."""
        alive.append(sum(reference() is not None for reference in outputs))
        outputs.append(weakref.ref(output))

    def recorded(*arguments):
        x, keys = layer(*arguments)
        record(x)
        return x, keys

    with torch.inference_mode():
        x, tau, context = arguments(policy)
        if name == "pi0":
            layer = policy.backbone.expert._layer
            monkeypatch.setattr(policy.backbone.expert, "_layer", recorded)
        for block in policy.backbone.expert.blocks if name == "small" else ():
            block.register_forward_hook(lambda _module, _inputs, output: record(output))
        policy.predict_with_hidden(x, tau, context, ())
        assert alive == [0, 1, 1]  # only the input of the current layer
        outputs.clear()
        alive.clear()
        policy.predict_with_hidden(x, tau, context, (0,))
        assert alive == [0, 1, 2]
