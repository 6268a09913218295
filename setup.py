"""What `pyproject.toml` cannot say: the front page as a package index shows it.

GitHub follows links to other files of the repository; an index has no such files. There a link
becomes the name of its file, which is installed with the package.
"""

import re
from pathlib import Path

from setuptools import setup

LINK = re.compile(r"\[([^]]+)\]\((?!\w+:)([^)]+)\)")

setup(
    long_description=LINK.sub(r"\1 (`\2`)", Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
