"""Turns a graph into a launch description: the front end for ``ros2 launch``.

Only this module needs the ROS packages ``launch`` and ``launch_ros``.
"""

from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from alam_bringup.description import Values
from alam_bringup.graph import environment, find_graph
from alam_bringup.installed import available, config_folder, parameter_files
from alam_core.errors import UserError

# mypy takes the folder launch/ next to this package for the module ``launch``.
from launch import (  # type: ignore[attr-defined]
    LaunchContext,
    LaunchDescription,
    LaunchDescriptionEntity,
)

# The kernel kills the nodes if ros2 launch is killed, as with alam up. setpriv is part of Debian
# and Ubuntu.
DIE_WITH_LAUNCH = "setpriv --pdeathsig KILL"


def stop_if_failed(event: ProcessExited, context: LaunchContext) -> None:
    """Stop the graph with exit code 1 if a node failed. If a node was killed, the others continue,
    as with alam up.
    """
    if event.returncode > 0 and not context.is_shutdown:
        raise UserError(
            f"{event.process_name} failed with exit code {event.returncode}, see above: "
            "stopping the other nodes"
        )


def _keep_types(parameters: Values) -> Values:
    """Parameters that launch does not reinterpret: it would take a serial number for an integer."""
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def describe(name: str) -> LaunchDescription:
    """The launch description of a graph: its arguments, environment and nodes."""
    graph = find_graph(name)

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        texts = {
            argument.name: LaunchConfiguration(argument.name).perform(context)
            for argument in graph.arguments
        }
        values = graph.values(texts)
        nodes, notes = available(graph.build(values))
        config = config_folder()
        actions: list[LaunchDescriptionEntity] = [LogInfo(msg=note) for note in notes]
        actions += [
            SetEnvironmentVariable(key, value) for key, value in environment(values, config).items()
        ]
        for node in nodes:
            actions.append(
                Node(
                    package=node.package,
                    executable=node.executable,
                    name=node.name,
                    namespace=node.namespace or None,
                    parameters=[*parameter_files(node, config), _keep_types(node.parameters)],
                    output="screen",
                    prefix=DIE_WITH_LAUNCH,
                    exec_name=node.name,
                    on_exit=stop_if_failed if node.required else None,
                )
            )
        return actions

    arguments = [
        DeclareLaunchArgument(
            argument.name, default_value=argument.default_text, description=argument.description
        )
        for argument in graph.arguments
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
