"""Hands settings.ini, the one list of facts, to setuptools."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="], interpolation=None)
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
facts = config["DEFAULT"]


def lines(key):
    return [line for line in facts[key].splitlines() if line.strip()]


setup(
    name=facts["repo"],
    version=facts["version"],
    description=facts["description"],
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=facts["author"],
    license="Apache-2.0",
    python_requires=">=" + facts["min_python"],
    packages=find_packages(include=[facts["lib_name"], facts["lib_name"] + ".*"]),
    package_data={facts["lib_name"]: ["py.typed", "facts/*.txt", "facts/paper/*.csv"]},
    install_requires=lines("requirements"),
    extras_require={
        "ray": lines("ray_requirements"),
        "site": lines("site_requirements"),
        "dev": lines("dev_requirements") + lines("ray_requirements"),
    },
    entry_points={"console_scripts": lines("console_scripts")},
)
