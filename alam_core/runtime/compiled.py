"""Compiled generation: torch compiles the network and, on a GPU, the generation of a whole chunk is
recorded as one CUDA graph.

A chunk of pi0 takes thousands of small kernels, which take longer to launch one by one from Python
than to run. A CUDA graph replays them with one launch, with every tensor at the address it had when
the graph was recorded.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from alam_core.errors import UserError, one_line
from alam_core.policy.joint import JointPolicy

WARM_UP = 3  # calls before recording, in which compilers and libraries choose their kernels


def compile_generation(policy: JointPolicy) -> None:
    """Change ``policy`` so that ``sample`` runs compiled code. The first call for each shape
    compiles, which takes a minute or more.
    """
    if "generate" in vars(policy):
        return  # already done
    # Attributes of the instance override the methods of its class.
    policy.encode = torch.compile(policy.encode)  # type: ignore[method-assign]
    policy.predict = torch.compile(policy.predict)  # type: ignore[method-assign]
    recorded = CudaGraph(policy.generate) if next(policy.parameters()).is_cuda else policy.generate
    policy.generate = _with_user_error(recorded)  # type: ignore[method-assign]


def _with_user_error(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``function`` so that a failure of torch's compiler raises UserError."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (BackendCompilerFailed, InductorError) as error:
            reason = one_line(error)[:200]
            raise UserError(
                f"the policy cannot be compiled ({reason}): install a C++ compiler, or switch "
                "off 'compiled'"
            ) from None

    return call


class CudaGraph:
    """A function of CUDA tensors, in nested lists and dicts, that is recorded once for each shape
    of its arguments and then replayed.

    The function must perform the same operations for all values of the tensors, and must not read
    the values on the host. A new recording is made for new shapes and for new values of the
    arguments that are not tensors.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, layout = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (
            layout,
            *(
                (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
                for leaf in leaves
            ),
        )
        if key not in self._recorded:
            with torch.cuda.device(tensors[0].device):
                self._recorded[key] = self._record(leaves, layout)
        graph, inputs, output = self._recorded[key]
        with torch.cuda.device(tensors[0].device):
            for own, new in zip(inputs, tensors, strict=True):
                own.copy_(new)
            graph.replay()
            return tree_map(torch.clone, output)  # the next replay overwrites the output

    def _record(
        self, leaves: list[Any], layout: Any
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        own = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(own, layout)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._function(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._function(*args, **kwargs)
        return graph, [leaf for leaf in own if isinstance(leaf, Tensor)], output
