from setuptools import find_packages, setup

setup(
    name="alam_common",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_common"]),
        ("share/alam_common", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="Code that all nodes share: messages, parameters, diagnostics, processes",
    license="Apache-2.0",
)
