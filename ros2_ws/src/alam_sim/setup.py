from setuptools import find_packages, setup

setup(
    name="alam_sim",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_sim"]),
        ("share/alam_sim", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="Simulated worlds as nodes: cameras, arm, clock, judge",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim_node = alam_sim.entry:sim_node",
            "step_node = alam_sim.entry:step_node",
        ]
    },
)
