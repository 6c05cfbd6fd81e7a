from setuptools import find_packages, setup

setup(
    name="alam_cli",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_cli"]),
        ("share/alam_cli", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="The command alam: training, and the robot's ROS graph",
    license="Apache-2.0",
    entry_points={"console_scripts": ["alam = alam_cli.main:main"]},
)
