"""Settings of the docs site: ``pip install -e ".[docs]" && sphinx-build -W -b html docs docs/_build``.

Pages are the Markdown files of this folder, the API comes from the docstrings. Nothing on the site needs a network:
formulas are MathML, which browsers draw themselves, and the theme brings no fonts.
"""

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

from iagan_lightning import __version__

project, author, release = "iagan-lightning", "the authors of iagan-lightning", __version__
html_title = f"{project} {release}"
html_theme = "furo"
html_static_path = html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # would fetch pages, which browsers do not allow from disk

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# References into the package must lead somewhere; those to other libraries would need their inventories.
nitpicky = True
OURS = r".*\.(adaptation\.Module|folder\.OutputFolder|registry\.Function)"  # no pages of their own
nitpick_ignore_regex = [("py:.*", rf"(?!iagan_lightning\.).*|{OURS}")]


def _inline(writer, node):
    writer.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _block(writer, node):
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app):
    """Let browsers draw formulas: no script, and no network."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
