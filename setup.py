"""The four folders install as packages of ``splitleak``: as names of their own they would hide a user's."""

from setuptools import find_namespace_packages, setup

FOLDERS = ("attacks", "defenses", "victims", "experiments")
inner = [f"{top}.{name}" for top in FOLDERS for name in find_namespace_packages(top, exclude=["*__pycache__"])]

setup(
    package_dir={f"splitleak.{folder}": folder for folder in FOLDERS},
    packages=[f"splitleak.{name}" for name in (*FOLDERS, *inner)],
)
