from setuptools import find_packages, setup

setup(
    name="alam_demo",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_demo"]),
        ("share/alam_demo", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="The demo: runs the shipped policy in simulation and records a video",
    license="Apache-2.0",
)
