"""The graphs of simulated worlds that execute one row of a chunk per control step: tasks of
MetaWorld and LIBERO, or any world by its name.
"""

from dataclasses import replace

from alam_bringup.description import Argument, Graph, NodeSpec, Values
from alam_bringup.folders import folder, read_policy
from alam_core.errors import UserError

# s of wall time that simulator and policy wait for each other in lockstep; starting may be slow
PATIENCE = 60.0
# Arguments that the Piper's graph has too.
SPEED = Argument(
    "speed",
    1.0,
    "upper limit of simulated time relative to the wall clock; 0: no limit",
    bounds=(0, 100),
)
NAMESPACE = Argument(
    "namespace",
    "",
    "ROS namespace of the nodes and their topics, for a second graph beside a first",
    ros_name=True,
)
NETWORK = Argument("network", False, "open DDS to other hosts; false: only this host")
SHARED = (
    Argument("checkpoint", "", "folder of the policy, which was trained for this world"),
    Argument("encoder", "", "folder of a transition encoder, for /alam/latents; empty: none"),
    Argument("protocol", "", "play a benchmark as others do: alam, evo1, lerobot or openpi"),
    Argument("rendering", "", "of a benchmark's images", choices=("", "fast", "full")),
    Argument(
        "seed", 0, "seed of the first episode and of the policy's noise", bounds=(0, 2**31 - 1)
    ),
    Argument("replan_every", 4, "control steps between two plans", bounds=(1, 1000)),
    Argument(
        "lockstep",
        True,
        "wait for the policy before each control step; false: run at 'speed', as a real arm does",
    ),
    SPEED,
    Argument("device", "", "cpu, cuda or cuda:N for the policy; empty: a GPU if there is one"),
    NAMESPACE,
    NETWORK,
)


def build(values: Values, world: str) -> list[NodeSpec]:
    """The nodes of the graph of a world. Raises UserError for a checkpoint that is missing."""
    if not values["checkpoint"]:
        raise UserError(
            "checkpoint: give the folder of a policy that was trained for this world, for example "
            "checkpoint:=runs/finetune_metaworld/policy (training/finetune.py trains one)"
        )
    checkpoint = folder("checkpoint", values["checkpoint"])
    policy = read_policy(checkpoint)
    names = list(policy.state_names)
    clock = {"use_sim_time": True}
    shared = {name: values[name] for name in ("seed", "speed", "lockstep", "protocol", "rendering")}
    nodes = [
        NodeSpec(
            "alam_sim",
            "step_node",
            "sim",
            shared | {"world": world, "state_names": names, "patience": PATIENCE},
        ),
        NodeSpec(
            "alam_perception",
            "camera_sync",
            "camera_sync",
            {
                "views": list(policy.views),
                "image_topics": [f"{view}/color/image_raw" for view in policy.views],
                "joints": names,
                "image_size": policy.image_size,
            }
            | clock,
        ),
        NodeSpec(
            "alam_policy",
            "policy",
            "policy",
            {name: values[name] for name in ("seed", "replan_every", "device")}
            | {"checkpoint": checkpoint, "joints": [""], "silence_timeout": PATIENCE}
            | clock,
        ),
    ]
    if values["encoder"]:
        encoder = {"checkpoint": folder("encoder", values["encoder"])}
        nodes.append(
            NodeSpec("alam_perception", "latent_encoder", "latent_encoder", encoder | clock)
        )
    namespace = values["namespace"].strip("/")
    return [replace(node, namespace=namespace and f"/{namespace}") for node in nodes]


METAWORLD = Graph(
    "metaworld",
    "A task of MetaWorld with a policy",
    (
        Argument("task", "drawer-open", "name of a task, several separated by commas, or mt50"),
        *SHARED,
    ),
    lambda values: build(values, f"metaworld/{values['task']}"),
)
LIBERO = Graph(
    "libero",
    "A task of LIBERO with a policy",
    (
        Argument("suite", "spatial", "suite", choices=("spatial", "object", "goal", "long")),
        Argument("task", 0, "number of the task in the suite", bounds=(0, 9)),
        *SHARED,
    ),
    lambda values: build(values, f"libero/{values['suite']}/{values['task']}"),
)
STEPS = Graph(
    "steps",
    "Any world by its name, with a policy: one row of a chunk per control step",
    (Argument("world", "piper_place", "name of the world"), *SHARED),
    lambda values: build(values, values["world"]),
)
