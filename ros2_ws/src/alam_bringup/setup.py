from glob import glob

from setuptools import setup

package = "alam_bringup"
setup(
    name=package,
    version="0.2.0",
    packages=[package],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/launch", sorted(glob("launch/*.launch.py"))),
        # Adds the project's root, where alam_core is, to PYTHONPATH: ros2 launch runs under the
        # system's Python, in which alam_core is not installed.
        (f"share/{package}/hook", ["hook/alam_core.dsv"]),
        (f"share/{package}/config", sorted(glob("config/*"))),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="The graph of nodes: its description, launch files, parameters and DDS profiles",
    license="Apache-2.0",
)
