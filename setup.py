"""The list of packages. All other metadata is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = {
    "talkhead": "talkhead",
    "talkhead.preprocess": "preprocess",
    "talkhead.encoder": "encoder",
    "talkhead.renderers": "renderers",
    "talkhead.app": "app",
    "talkhead.weights": "weights",
    "talkhead.samples": "samples",
}
"""Packages whose folder is at the root of the repository, and that folder."""
PACKAGES = [
    ".".join([package, *inner])
    for package, folder in FOLDERS.items()
    for inner in [[], *([name] for name in find_packages(folder))]
]
"""These packages and their subpackages. A new folder with an __init__.py needs no entry."""

if __name__ == "__main__":
    setup(packages=PACKAGES, package_dir=FOLDERS)
