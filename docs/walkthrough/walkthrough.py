# %% [markdown]
# # Walk-through: the algebra of a transition
#
# This page encodes the change between two camera images as a latent transition, then adds, reverses
# and decodes transitions. It uses the encoder that ships with the demo, on frames that were not in
# its training data. The page is a notebook in plain Python: `python docs/walkthrough/render.py`
# runs `walkthrough.py` and writes this page with its output, so the code above each number computed
# it.
#
# ## Three frames
# The scripted expert acts in one episode of the simulated Piper. We take three frames of the tripod
# camera, `a`, `b` and `c`, while the arm moves towards a cube.

# %%
import matplotlib
import numpy as np
import torch

from alam_core.command_line import ROOT
from alam_core.latent_action.model import TransitionModel
from alam_core.sim.world import make_expert, make_world

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SEED, START, GAP = 1007, 6, 5  # the episode's seed, step of frame a, steps between two frames
VIEW = "third_person"
model = TransitionModel.from_pretrained(ROOT / "checkpoints/piper_place/transition").eval()
world = make_world("piper_place", model.config.image_size)
expert = make_expert(world, seed=SEED)
observation = world.reset(SEED)
expert.reset()
frames = [observation.images[VIEW]]  # uint8 RGB (S, S, 3)
for _ in range(START + 2 * GAP):
    observation = world.step(expert.act())
    frames.append(observation.images[VIEW])
a, b, c = frames[START], frames[START + GAP], frames[START + 2 * GAP]
print(f"instruction: {observation.instruction}")
print(f"frames: {a.shape} {a.dtype}, {GAP * world.dt:.1f} s apart")

# %% [markdown]
# ## A transition
# The encoder maps an ordered pair of frames to z, a few latent tokens (eq. 1). A policy learns to
# generate z together with its actions.

# %%


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 RGB (S, S, 3) -> float (1, 3, S, S) in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@torch.inference_mode()
def encode(source: np.ndarray, target: np.ndarray) -> torch.Tensor:
    """The transition z (1, K, D) from ``source`` to ``target``, uint8 RGB (S, S, 3) each."""
    return model.encode(to_tensor(source), to_tensor(target))


z_ab, z_bc, z_ac = encode(a, b), encode(b, c), encode(a, c)
z_ba = encode(b, a)
print(f"z_ab: {z_ab.shape[1]} tokens of {z_ab.shape[2]} numbers")
print("first token of z_ab:", np.array2string(z_ab[0, 0, :6].numpy(), precision=2), "...")

# %% [markdown]
# ## Transitions add up
# ALAM trains the encoder so that the transition over a long gap equals the sum of the transitions
# along the way, z_ac = z_ab + z_bc (eq. 2). Errors are relative to the norm of z_ac. The second
# line is the baseline: the error if z_bc is left out.

# %%


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference, relative to the norm of ``expected``."""
    return float((found - expected).norm() / expected.norm())


print(f"z_ab + z_bc against z_ac: relative error {relative_error(z_ab + z_bc, z_ac):.4f}")
print(f"z_ab alone  against z_ac: relative error {relative_error(z_ab, z_ac):.4f}")

# %% [markdown]
# The same is true for many steps: the sum of all single-step transitions equals the one transition
# from the first frame to the last.

# %%
path = torch.stack(
    [encode(first, second) for first, second in zip(frames, frames[1:], strict=False)]
)
total = encode(frames[0], frames[-1])
error = relative_error(path.sum(0), total)
print(f"sum of {len(path)} single steps against one long transition: relative error {error:.4f}")

# %% [markdown]
# ## Reversal changes the sign
# The transition from b back to a is the opposite of the transition from a to b: z_ba = -z_ab (eq.
# 2). The second line compares without the minus sign. Its relative error is 2, the largest that two
# vectors of equal norm can have.

# %%
print(f"z_ba against -z_ab: relative error {relative_error(z_ba, -z_ab):.4f}")
print(f"z_ba against  z_ab: relative error {relative_error(z_ba, z_ab):.4f}")

# %% [markdown]
# ## Decoding
# The decoder predicts the target frame from a source frame and a transition (eq. 6). The first row
# below shows the three frames. The second row starts from `a` and decodes z_ab, z_ac and the sum
# z_ab + z_bc: the last two images are nearly equal, although the encoder never saw `a` and `c` as a
# pair to compute the sum. The third row starts from `b` and goes back to `a`, once with z_ba and
# once with -z_ab.
#
# The numbers are the PSNR in dB against the ground truth; higher is better. "copy" is the baseline
# that predicts no change: the PSNR of the source frame itself.

# %%


@torch.inference_mode()
def decode(source: np.ndarray, z: torch.Tensor) -> np.ndarray:
    """The frame predicted from a source frame and z (1, K, D), uint8 RGB (S, S, 3)."""
    image = model.decode(to_tensor(source), z)[0]
    return (image.permute(1, 2, 0) * 255).round().byte().numpy()


def psnr(image: np.ndarray, true: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = np.mean((image.astype(float) - true.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


rows = [
    [("a", a, None), ("b", b, None), ("c", c, None)],
    [
        ("a + z_ab", decode(a, z_ab), b),
        ("a + z_ac", decode(a, z_ac), c),
        ("a + (z_ab + z_bc)", decode(a, z_ab + z_bc), c),
    ],
    [("b + z_ba", decode(b, z_ba), a), ("b - z_ab", decode(b, -z_ab), a), None],
]
copies = {"b from a": psnr(a, b), "c from a": psnr(a, c), "a from b": psnr(b, a)}
print("copy:", ", ".join(f"{name} {value:.1f} dB" for name, value in copies.items()))

figure, axes = plt.subplots(3, 3, figsize=(6.2, 7.0), layout="constrained")
for axis in axes.flat:
    axis.set_axis_off()
for row, line in zip(axes, rows, strict=True):
    for axis, cell in zip(row, line, strict=True):
        if cell is not None:
            name, image, true = cell
            axis.imshow(image)
            axis.set_title(name if true is None else f"{name}: {psnr(image, true):.1f} dB", size=9)
            if true is not None:
                print(f"{name}: {psnr(image, true):.1f} dB")
figure.savefig("decoded.png", dpi=90)

# %% [markdown]
# ![Frames a, b and c, and the frames decoded from them](decoded.png)
#
# The decoded arm is in the right place but blurred: the decoder is small, because it is needed only
# for training. Policies use z and never decode it.
#
# ## A path through latent space
# Because transitions add up, their running sum is a path: every frame of an episode has a position
# relative to the first frame. The plot shows the path along its first two principal components. The
# dots are the running sum of single steps; the crosses are the transitions encoded directly from
# the first frame. The demo's video draws the same path while the policy acts.

# %%
summed = (
    torch.cumsum(torch.cat([torch.zeros_like(path[:1]), path]), 0).flatten(1).numpy()
)  # (T, K*D)
direct = np.stack([encode(frames[0], frame).flatten().numpy() for frame in frames])
_, values, basis = np.linalg.svd(direct - direct.mean(0), full_matrices=False)
share = (values[:2] ** 2).sum() / (values**2).sum()
print(f"two components hold {100 * share:.0f} % of the path's variance")
figure, axis = plt.subplots(figsize=(5.2, 4.0), layout="constrained")
axis.plot(*(summed @ basis[:2].T).T, "o-", ms=4, lw=1, label="sum of single steps")
axis.plot(*(direct @ basis[:2].T).T, "x", ms=7, label="encoded from the first frame")
for name, step in (("a", START), ("b", START + GAP), ("c", START + 2 * GAP)):
    axis.annotate(name, direct[step] @ basis[:2].T, (6, 6), textcoords="offset points")
axis.set(xlabel="first component", ylabel="second component")
axis.legend(fontsize=8)
figure.savefig("path.png", dpi=90)
world.close()

# %% [markdown]
# ![The running sum of transitions in two dimensions](path.png)
#
# [Results](../results.md) compares these errors with those of other encoders over many episodes;
# [pretraining](../pretraining.md) explains how to train an encoder.
