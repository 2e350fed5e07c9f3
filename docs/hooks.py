"""RESULTS.md lies at the top of the project, where `make results` fills it; the site shows it among its pages."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

RESULTS = "RESULTS.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page; its links begin at the top of the project."""
    text = (Path(config.config_file_path).parent / RESULTS).read_text(encoding="utf-8")
    files.append(File.generated(config, RESULTS, content=re.sub(r"(\]\()docs/", r"\1", text)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to it lead out of the folder, as they do for a reader of the repository."""
    return markdown.replace(f"](../{RESULTS}", f"]({RESULTS}")
