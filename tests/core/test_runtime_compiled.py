"""Compiled generation: no operation depends on the values of tensors, and results are the same."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from policy_fixtures import random_batch, random_observation, tiny_policy
from test_policy_pi0_joint import pi0_policy

from alam_core.errors import UserError
from alam_core.policy.sequence import ACTION
from alam_core.runtime.compiled import CudaGraph
from alam_core.runtime.runner import PolicyRunner

VARIANTS = [
    {},
    {"coupling": "two_stage", "process": "diffusion"},
    {"given_steps": 2, "projection": "learned"},
]


@pytest.mark.parametrize("make", [tiny_policy, pi0_policy])
@pytest.mark.parametrize("model", VARIANTS)
def test_generation_never_reads_the_values_of_a_tensor(make, model):
    policy = make(**model)
    batch = random_batch(policy)
    noise = policy._noise(
        {name: torch.empty(3, 4, width) for name, width in policy.stream_widths().items()}
    )
    given = batch["state"][:, None] if model.get("given_steps") else None
    arguments = (batch["images"], batch["state"], batch["words"], noise, 2, given)
    torch._dynamo.reset()
    with torch.inference_mode():
        expected, _ = policy.generate(*arguments)
        # Reading a value would break the graph.
        found, _ = torch.compile(policy.generate, fullgraph=True, backend="eager")(*arguments)
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_a_compiled_policy_gives_the_same_chunk():
    observation = random_observation()
    expected = PolicyRunner(tiny_policy()).infer(observation, 3)
    found = PolicyRunner(tiny_policy(), compiled=True).infer(observation, 3)
    torch.testing.assert_close(
        torch.from_numpy(found.actions), torch.from_numpy(expected.actions), atol=1e-4, rtol=1e-4
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recorded_function_follows_its_arguments():
    scaled = CudaGraph(lambda streams, factor: {ACTION: streams[ACTION] * factor})
    for value in (1.0, 2.0):
        for shape in (3, 5):
            x = torch.full((shape,), value, device="cuda")
            assert scaled({ACTION: x}, 2)[ACTION].tolist() == [2 * value] * shape


def test_bfloat16_is_refused_by_policies_that_do_not_support_it():
    with pytest.raises(UserError, match="bfloat16 weights are for pi0"):
        PolicyRunner(tiny_policy(), bfloat16=True)


def test_instructions_of_any_length_share_what_was_compiled():
    policy = tiny_policy()
    assert (
        len(
            {
                policy.tokenizer([instruction]).shape
                for instruction in ("go", "put the red cube on the plate")
            }
        )
        == 1
    )


def test_a_policy_that_cannot_be_compiled_raises_a_user_error(monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda function: torch._dynamo.optimize(broken)(function))
    with pytest.raises(UserError, match="cannot be compiled .*no compiler.* install a C"):
        PolicyRunner(tiny_policy(), compiled=True).infer(random_observation())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [tiny_policy, pi0_policy])
@pytest.mark.parametrize("model", VARIANTS)
def test_a_recorded_policy_gives_the_same_chunk_for_every_observation(make, model):
    half = make is pi0_policy
    plain, recorded = (
        PolicyRunner(make(**model), "cuda", bfloat16=half, compiled=compiled)
        for compiled in (False, True)
    )
    for seed, instruction in (
        (0, "put the red cube on the plate"),
        (1, "move it"),
        (2, "put the red cube on the plate"),
    ):
        observation = random_observation(seed, instruction=instruction)
        given = observation.state[None] if model.get("given_steps") else None
        expected = plain.infer(observation, seed, given).actions
        with ThreadPoolExecutor(1) as other:  # as the ROS node does
            found = other.submit(recorded.infer, observation, seed, given).result().actions
        torch.testing.assert_close(
            torch.from_numpy(found),
            torch.from_numpy(expected),
            atol=2e-2 if half else 1e-3,
            rtol=1e-2,
        )
