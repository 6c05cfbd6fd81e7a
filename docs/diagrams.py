"""Draw the diagrams of docs/architecture.md as SVG: python docs/diagrams.py."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

OUT = Path(__file__).resolve().parent / "figures"
FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"
INK, FAINT = "#1e2026", "#6b7280"
LIBRARY, TRAINING, NODES, MACHINE = "#e3ecfd", "#e2f3e5", "#fdeedd", "#eceef1"  # fills


@dataclass(frozen=True)
class Box:
    """A rectangle with a title and smaller lines below it; x and y are its top left corner in
    px.
    """

    x: float
    y: float
    width: float
    height: float
    title: str
    lines: tuple[str, ...] = ()
    fill: str = LIBRARY
    planned: bool = False  # drawn dashed: nothing is in it yet

    def side(self, name: str, at: float = 0.5) -> tuple[float, float]:
        """A point (x, y) on the left, right, top or bottom side. ``at``: where on that side, from 0
        (left or top end) to 1.
        """
        if name in ("left", "right"):
            return self.x + (self.width if name == "right" else 0), self.y + at * self.height
        return self.x + at * self.width, self.y + (self.height if name == "bottom" else 0)

    def svg(self) -> str:
        middle = self.x + self.width / 2
        dash = " stroke-dasharray='4 3'" if self.planned else ""
        top = self.y + self.height / 2 - 7.5 * len(self.lines) + 4.5
        parts = [
            f"<rect x='{self.x}' y='{self.y}' width='{self.width}' height='{self.height}' rx='6' "
            f"fill='{self.fill}' stroke='{FAINT}'{dash}/>",
            text(middle, top, self.title, 13, weight="bold"),
        ]
        parts += [
            text(middle, top + 16 + 14 * i, line, 10.5, FAINT) for i, line in enumerate(self.lines)
        ]
        return "".join(parts)


def text(
    x: float,
    y: float,
    words: str,
    size: float,
    colour: str = INK,
    anchor: str = "middle",
    weight: str = "normal",
) -> str:
    """SVG of one line of text; ``anchor`` says which part of it is at (x, y)."""
    return (
        f"<text x='{x}' y='{y}' {FONT} font-size='{size}' fill='{colour}' text-anchor='{anchor}' "
        f"font-weight='{weight}'>{escape(words)}</text>"
    )


def arrow(*points: tuple[float, float], label: str = "") -> str:
    """A line through the points with an arrowhead at its end. The label is next to the first
    segment: above a horizontal one, to the right of a vertical one.
    """
    line = " ".join(f"{x},{y}" for x, y in points)
    svg = (
        f"<polyline points='{line}' fill='none' stroke='{INK}' stroke-width='1.3' "
        "marker-end='url(#head)'/>"
    )
    if label:
        (x0, y0), (x1, y1) = points[:2]
        if y0 == y1:
            svg += text((x0 + x1) / 2, y0 - 6, label, 10.5)
        else:
            svg += text(x0 + 6, (y0 + y1) / 2 + 4, label, 10.5, anchor="start")
    return svg


def save(name: str, width: int, height: int, title: str, parts: list[str]) -> None:
    """Write figures/<name>.svg, ``width`` x ``height`` px, with the SVG elements ``parts``."""
    head = (
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7.5' refY='4' markerWidth='8' "
        f"markerHeight='8' orient='auto'><path d='M0,0 L8,4 L0,8 z' fill='{INK}'/></marker></defs>"
    )
    (OUT / f"{name}.svg").write_text(
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img'>"
        f"<title>{escape(title)}</title><rect width='100%' height='100%' fill='white'/>"
        f"{head}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def packages() -> None:
    """The packages of the project and the subpackages of the library; an arrow means "imports"."""
    cli = Box(290, 16, 220, 44, "alam_cli", ("the command alam",), NODES)
    demo = Box(556, 70, 160, 44, "alam_demo", ("task client, video",), NODES)
    bringup = Box(556, 140, 160, 44, "alam_bringup", ("graph, launch files",), NODES)
    names = ("alam_perception, alam_policy, alam_piper,", "alam_sim; all import alam_common")
    nodes = Box(496, 214, 280, 62, "ROS nodes", names, NODES)
    training = Box(24, 120, 280, 156, "", (), TRAINING)
    commands = Box(40, 152, 248, 40, "commands", ("one file per command",), "white")
    folders = ("loop, stage1, stage2, episodes,", "converters, checks, benchmarks, report")
    shared = Box(40, 212, 248, 54, "shared subpackages", folders, "white")
    library = Box(24, 330, 752, 250, "", ())
    runtime = Box(560, 370, 190, 48, "runtime", ("planner, timeline, motion, rollout",), "white")
    methods = Box(60, 370, 150, 48, "methods", ("planned: LARA, LatBot",), "white", True)
    latent = Box(40, 446, 150, 48, "latent_action", ("stage 1",), "white")
    policy = Box(220, 446, 150, 48, "policy", ("stage 2",), "white")
    sim = Box(420, 446, 150, 48, "sim", ("worlds, tasks, experts",), "white")
    data = Box(120, 516, 260, 44, "data", ("LeRobot, video, frames, checks",), "white")
    robots = Box(600, 516, 150, 44, "robots", ("the Piper",), "white")
    parts = [box.svg() for box in (cli, demo, bringup, nodes, training, commands, shared, library)]
    parts += [
        text(40, 142, "training/: alam_training", 13, anchor="start", weight="bold"),
        text(40, 350, "alam_core: the library, without ROS", 13, anchor="start", weight="bold"),
    ]
    parts += [box.svg() for box in (runtime, methods, latent, policy, sim, data, robots)]
    parts += [
        arrow(cli.side("left"), (164, 38), training.side("top")),
        arrow(cli.side("right"), (636, 38), demo.side("top")),
        arrow(demo.side("bottom"), bringup.side("top")),
        arrow(bringup.side("bottom"), nodes.side("top"), label="starts"),
        arrow(commands.side("bottom"), shared.side("top")),
        arrow(training.side("bottom"), (164, 330)),
        arrow(nodes.side("bottom"), (636, 330)),
        arrow(methods.side("bottom", 0.3), latent.side("top", 0.433)),
        arrow(methods.side("right"), (295, 394), policy.side("top")),
        arrow(runtime.side("left"), (330, 394), (330, 446)),
        arrow(runtime.side("left", 0.8), (495, 408.4), sim.side("top")),
        arrow(latent.side("bottom", 0.7), (145, 516)),
        arrow(policy.side("bottom"), (295, 516)),
        arrow(sim.side("bottom", 0.2), (450, 538), data.side("right")),
        arrow(sim.side("bottom", 0.8), (540, 538), robots.side("left")),
        arrow(data.side("right", 0.85), robots.side("left", 0.85)),
    ]
    save("packages", 800, 600, "Packages and subpackages; an arrow means imports", parts)


def life_of_an_image() -> None:
    """From a camera to the encoder and the policy."""
    camera = Box(16, 70, 120, 60, "camera", ("RealSense or sim",), MACHINE)
    sync = Box(250, 70, 140, 60, "camera_sync", ("publishes complete", "sets, resizes once"), NODES)
    encoder = Box(560, 16, 150, 60, "latent_encoder", ("z for each view",), NODES)
    policy = Box(560, 126, 150, 60, "policy", ("plans when a chunk is due",), NODES)
    arm = Box(250, 170, 140, 44, "arm_controller", ("joint state",), NODES)
    parts = [box.svg() for box in (camera, sync, encoder, policy, arm)]
    parts += [
        arrow(camera.side("right"), sync.side("left"), label="image_raw"),
        text(193, 116, "uint8 RGB", 9.5, FAINT),
        arrow(arm.side("top"), sync.side("bottom"), label="/joint_states"),
        arrow(sync.side("right", 0.35), (470, 91), (470, 46), encoder.side("left")),
        arrow(sync.side("right", 0.65), (470, 109), (470, 156), policy.side("left")),
        text(478, 104, "/alam/observation", 10.5, anchor="start"),
        arrow(encoder.side("right"), (880, 46), label="/alam/latents"),
        arrow(policy.side("right", 0.3), (880, 144), label="/alam/action_chunk"),
        arrow(policy.side("right", 0.75), (880, 171), label="/alam/predicted_latents"),
    ]
    save("life_of_an_image", 900, 230, "The life of an image", parts)


def life_of_a_chunk() -> None:
    """From the planner to the CAN bus and back to the planner."""
    y, height = 60, 62
    planner = Box(16, y, 130, height, "planner", ("plans by the stamps", "of observations"), NODES)
    gate = Box(240, y, 120, height, "gate", ("valid? on time?", "else rejected"), NODES)
    timeline = Box(400, y, 130, height, "timeline", ("reference at t:", "splice, fade"), NODES)
    motion = Box(570, y, 130, height, "motion", ("set-point within", "all limits"), NODES)
    can = Box(786, y, 98, height, "CAN bus", ("Piper, or", "its emulator"), MACHINE)
    checks = Box(570, 176, 130, 44, "checks", ("a fault stops the arm",), NODES)
    parts = [
        f"<rect x='226' y='22' width='490' height='216' rx='8' fill='none' stroke='{FAINT}' "
        "stroke-dasharray='4 3'/>",
        text(236, 40, "arm_controller, 200 Hz", 11, FAINT, anchor="start"),
        f"<rect x='8' y='22' width='146' height='216' rx='8' fill='none' stroke='{FAINT}' "
        "stroke-dasharray='4 3'/>",
        text(18, 40, "policy node", 11, FAINT, anchor="start"),
    ]
    parts += [box.svg() for box in (planner, gate, timeline, motion, can, checks)]
    parts += [
        arrow(planner.side("right"), gate.side("left"), label="chunk"),
        arrow(gate.side("right"), timeline.side("left")),
        arrow(timeline.side("right"), motion.side("left")),
        arrow(motion.side("right"), can.side("left"), label="set-point"),
        arrow(can.side("bottom"), (835, 198), checks.side("right")),
        text(775, 192, "feedback", 10.5),
        arrow(checks.side("top"), motion.side("bottom")),
        arrow(timeline.side("bottom"), (465, 198), (81, 198), planner.side("bottom")),
        text(345, 192, "/alam/arm/status", 10.5),
        text(345, 212, "chunk and row being executed", 9.5, FAINT),
    ]
    save("life_of_a_chunk", 900, 250, "The life of a chunk", parts)


if __name__ == "__main__":
    packages()
    life_of_an_image()
    life_of_a_chunk()
