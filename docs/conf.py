"""How Sphinx makes a site of these pages: ``sphinx-build -W docs FOLDER``."""

project = "bitinfer"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns: list[str] = []
html_theme = "alabaster"
html_theme_options = {"description": "Binary neural networks on CPUs", "page_width": "1060px"}
html_copy_source = False
myst_heading_anchors = 4
# Links to files of the checkout, which the site does not hold, stay as they are.
suppress_warnings = ["myst.xref_missing"]
