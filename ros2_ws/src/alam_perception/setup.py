from setuptools import find_packages, setup

setup(
    name="alam_perception",
    version="0.2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/alam_perception"]),
        ("share/alam_perception", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ALAM maintainers",
    maintainer_email="maintainers@alam.invalid",
    description="Nodes that synchronise observations and encode latent transitions",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "camera_sync = alam_perception.entry:camera_sync",
            "latent_encoder = alam_perception.entry:latent_encoder",
        ]
    },
)
