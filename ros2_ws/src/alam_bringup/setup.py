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
        # puts the root of the tree, where alam_core is, on the path of every Python: ros2 launch
        # runs under the system's
        (f"share/{package}/hook", ["hook/alam_core.dsv"]),
        (f"share/{package}/config", sorted(glob("config/*"))),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="Starts the ALAM stack",
    license="Apache-2.0",
)
