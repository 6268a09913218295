"""What `pyproject.toml` cannot say: which packages, and the front page as an index shows it.

A search finds `ltmp_export` with all its packages, but not `cli`, which is installed as `ltmp_cli`.

GitHub follows links to other files of the repository; an index has no such files. There a link
becomes the name of its file, which is installed with the package: the project has no public address
(no `project.urls`) that a link could lead to. Once it has one, links can become absolute.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

LINK = re.compile(r"\[([^]]+)\]\((?!\w+:)([^)]+)\)")

setup(
    packages=[*find_packages(include=["ltmp_export", "ltmp_export.*"]), "ltmp_cli"],
    long_description=LINK.sub(r"\1 (`\2`)", Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
