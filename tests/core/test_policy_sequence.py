"""The interleaved sequence and its mask: perturb a token, see exactly which outputs move."""

import itertools

import pytest
import torch

from alam_core.policy.expert import ActionExpert
from alam_core.policy.sequence import ACTION, Layout

VIEWS = [(), ("third_person",), ("third_person", "wrist"), ("a", "b", "c")]


@pytest.mark.parametrize(("views", "horizon"), list(itertools.product(VIEWS, (1, 2, 5))))
def test_unpack_inverts_pack(views, horizon):
    layout = Layout(views, horizon)
    streams = {name: torch.randn(3, horizon, 4) for name in layout.modalities}
    packed = layout.pack(streams)
    assert packed.shape == (3, layout.length, 4)
    unpacked = layout.unpack(packed)
    assert list(unpacked) == [*views, ACTION]
    for name, stream in streams.items():
        assert torch.equal(unpacked[name], stream)


def test_order_is_that_of_the_paper():
    layout = Layout(("th", "wr"), 3)
    number = {"th": 0.0, "wr": 1.0, ACTION: 2.0}
    streams = {name: torch.arange(3.0).view(1, 3, 1) * 10 + number[name] for name in layout.modalities}
    assert layout.pack(streams).flatten().tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_a_missing_modality_is_an_error():
    with pytest.raises(KeyError):
        Layout(("th",), 2).pack({ACTION: torch.zeros(1, 2, 4)})


def may_see(layout: Layout, row: int, column: int) -> bool:
    """The rule in words: an action sees all before it and itself; a latent sees latents of its step, or also of earlier ones."""
    per_step = len(layout.views) + 1
    if row % per_step == len(layout.views):
        return column <= row
    if column % per_step == len(layout.views):
        return False
    return column // per_step <= row // per_step if layout.latents_see_past else column // per_step == row // per_step


@pytest.mark.parametrize(("views", "past"), list(itertools.product(VIEWS, (True, False))))
def test_perturbing_a_token_moves_exactly_the_outputs_that_may_see_it(views, past):
    torch.manual_seed(0)
    layout = Layout(views, 4, past)
    expert = ActionExpert(16, 3, 2, 32, 8, layout.attention_mask()).double()
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    context = expert.context_keys(torch.randn(1, 5, 8, dtype=torch.double))
    tokens, tau = torch.randn(1, layout.length, 16, dtype=torch.double), torch.full((1,), 0.3, dtype=torch.double)
    before = expert(tokens, tau, context)
    for column in range(layout.length):
        perturbed = tokens.clone()
        perturbed[0, column] += torch.randn(16, dtype=torch.double)
        change = (expert(perturbed, tau, context) - before).abs().amax(-1)[0]
        for row in range(layout.length):
            if may_see(layout, row, column):
                assert change[row] > 1e-9, f"token {row} does not see token {column}"
            else:
                assert change[row] == 0, f"token {row} sees token {column}"
