"""Where a wheel gets its packages from; everything else about the project is in pyproject.toml.

`stages` and `pipelines` are folders of the checkout, where `dvc.yaml` and Prefect name them. Once installed,
such common names could collide with anybody's, so a wheel has them under `dicetalk`.
"""

from setuptools import find_packages, setup

OUTER = ("stages", "pipelines")

setup(
    packages=[
        *find_packages(include=["dicetalk", "dicetalk.*"]),
        *(f"dicetalk.{name}" for folder in OUTER for name in find_packages(include=[folder, f"{folder}.*"])),
    ],
    package_dir={f"dicetalk.{folder}": folder for folder in OUTER},
)
