"""Settings of the documentation; it is built without network access, warnings are errors."""

import shutil
import sys
from pathlib import Path

PROJECT_ROOT = Path(__file__).parent.parent
BENCHMARKS = PROJECT_ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from numpydoc.xref import DEFAULT_LINKS
from page import write_page

import sklearn_mackay

GENERATED = PROJECT_ROOT / "docs" / "generated"
# A page of what is no longer there would be in no table of contents.
shutil.rmtree(GENERATED, ignore_errors=True)
write_page(BENCHMARKS / "measured.json", GENERATED)

project = "sklearn_mackay"
author = "sklearn_mackay developers"
copyright = author
version = release = sklearn_mackay.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    # Copies MathJax into the pages, so that formulas need no network.
    "sphinx-mathjax-offline",
    "numpydoc",
    "sphinx_copybutton",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "generated/benchmarks.md"]
root_doc = "index"
# Primes in plain text are transposes and must stay as they are.
smartquotes = False
# Links within the package must lead somewhere; without network access others cannot be looked up.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!sklearn_mackay).*")]

# What is copied runs: lines with a prompt, without it, where there are any.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_selector = ":not(.sphx-glr-script-out) > div.highlight > pre"

extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# Types in docstrings are links where they are ours.
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {
    # Python's and NumPy's own documentation cannot be looked up.
    **{word: word for word in DEFAULT_LINKS},
    **{name: f"sklearn_mackay.results.{name}" for name in sklearn_mackay.results.__all__},
    **{name: f"sklearn_mackay.{name}" for name in sklearn_mackay.__all__ if name[0].isupper()},
}
# `predict` in a docstring is a link.
default_role = "autolink"
add_module_names = False
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": str(PROJECT_ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "only_warn_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_mackay"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {
    "get_started": [],
    "theory": [],
    "changelog": [],
    "contributing": [],
    "benchmarks": [],
}
