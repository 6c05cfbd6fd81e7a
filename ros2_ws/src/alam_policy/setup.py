from setuptools import find_packages, setup

setup(
    name="alam_policy",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_policy"]),
        ("share/alam_policy", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="The policy as an action server: observations in, action chunks out",
    license="Apache-2.0",
    entry_points={"console_scripts": ["policy = alam_policy.entry:policy"]},
)
