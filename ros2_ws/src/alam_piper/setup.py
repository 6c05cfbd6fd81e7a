from setuptools import find_packages, setup

setup(
    name="alam_piper",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_piper"]),
        ("share/alam_piper", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="Controller, hardware backend and CAN emulator of the AgileX Piper arm",
    license="Apache-2.0",
    entry_points={"console_scripts": ["arm_controller = alam_piper.entry:arm_controller"]},
)
