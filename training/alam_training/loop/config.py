"""Settings of the training loop that both stages share: the optimiser, the length of a run, saving
and logging.
"""

from dataclasses import dataclass, field
from typing import Literal

from alam_core.errors import UserError

# Settings that may differ when a run is resumed: they change the result by rounding at most.
MAY_CHANGE = ("resume", "max_minutes", "save_every", "eval_every", "log_every", "cpu", "sharded")


@dataclass
class OptimConfig:
    """AdamW with linear warm-up, cosine decay, gradient clipping and a moving average of the
    weights.

    Args:
        lr: peak learning rate.
        weight_decay: applied to matrices only, not to biases, norms and other vectors.
        beta1: decay of AdamW's first moment.
        beta2: decay of AdamW's second moment.
        warmup_steps: steps of the linear warm-up from 0 to lr.
        final_lr_ratio: learning rate of the last step as a fraction of lr.
        clip_norm: maximum norm of the gradient; 0 turns clipping off.
        ema_decay: decay of the exponential moving average of the weights, which is what is
            evaluated and exported; 0 turns the average off.
    """

    lr: float = 1e-4
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_steps: int = 200
    final_lr_ratio: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.99


@dataclass
class LoopConfig:
    """How long to train, on what, and what to save and log on the way.

    Args:
        steps: optimiser steps of the whole run.
        seed: seed of every random draw.
        optim: the optimiser.
        mixed_precision: "no", or "bf16": matrix products in bfloat16; weights, their average and
            the optimiser's moments stay in float32.
        accumulate: gradient accumulation steps per process, for a batch that does not fit into
            memory. Statistics of the batch are then those of one micro-batch, and buffers (the
            codebook) are updated once per step, by the last micro-batch.
        sharded: with several processes, shard weights, gradients and moments across them (FSDP)
            instead of replicating them on each (DDP).
        cpu: train on the CPU even if there is a GPU.
        resume: continue from the state in the run folder if there is one; false starts from step 0.
        max_minutes: save and stop after this wall-clock time; the same command resumes the run. 0
            means no limit. The learning rate follows the steps, not the time.
        save_every: steps between two saves of the state.
        eval_every: steps between two evaluations.
        log_every: steps between two TensorBoard entries.
    """

    steps: int = 10_000
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixed_precision: Literal["no", "bf16"] = "no"
    accumulate: int = 1
    sharded: bool = False
    cpu: bool = False
    resume: bool = True
    max_minutes: float = 0.0
    save_every: int = 500
    eval_every: int = 500
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "save_every", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"loop.{name} is {getattr(self, name)}: it must be at least 1")
