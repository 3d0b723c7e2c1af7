"""How the documentation is built: `sphinx-build -W --keep-going -n -q -b html docs build/docs`."""

import sys
from pathlib import Path

import pvcd

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pvcd"
author = "the pvcd authors"
copyright = "the pvcd authors, Apache-2.0"
version = release = pvcd.__version__

extensions = ["myst_parser", "pvcd_reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_heading_slug_func = "docutils.nodes.make_id"
highlight_language = "none"

html_theme = "furo"
html_title = f"pvcd {release}"
html_static_path = ["_static"]
html_show_sphinx = False
html_copy_source = False
html_css_files = ["pvcd.css"]
