"""Sphinx: the pages of this folder and the docstrings of the package as a site.

Nothing of the site comes from another host: MathJax, fonts and search lie beside the pages.
"""

import dataclasses
import importlib.resources
import inspect

import jaxmxopt
from jaxmxopt._core.config import Config

project = "jaxmxopt"
author = "the jaxmxopt contributors"
release = version = jaxmxopt.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
python_display_short_literal_types = True
autodoc_use_type_comments = False
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
# As a plain list: the types of hyperparameters are ranges, which their descriptions say.
napoleon_custom_sections = [("Attributes", "params_style")]

html_theme = "furo"
html_title = f"jaxmxopt {release}"
html_show_sourcelink = False
html_show_copyright = False
_mathjax = importlib.resources.files("mathjax") / "static" / "mathjax" / "es5"
html_static_path = ["_static", str(_mathjax / "tex-svg.js")]
html_css_files = ["site.css"]
mathjax_path = "tex-svg.js"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Other hosts are not asked: a page of theirs that is gone must not fail a build here.
linkcheck_ignore = [r"https?://"]
linkcheck_anchors = True


def short_signature(app, what, name, obj, options, signature, returns):
    """Definitions take records of annotated numbers: names and defaults say it better.

    What an algorithm shares with all others is documented once, with `OptimizerDef`.
    """
    del app, name, options
    if what != "class" or not isinstance(obj, type) or not issubclass(obj, Config):
        return None
    if signature and not signature.startswith("(*"):
        given = inspect.signature(obj).parameters.values()
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in given]
        return str(inspect.Signature(bare)), returns
    common = {field.name: field.default for field in dataclasses.fields(jaxmxopt.OptimizerDef)}
    shared = obj is not jaxmxopt.OptimizerDef and issubclass(obj, jaxmxopt.OptimizerDef)
    own = [
        field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}"
        for field in dataclasses.fields(obj)
        if not (shared and field.name in common and field.default == common[field.name])
    ]
    return "(*, " + ", ".join([*own, *(["**common"] if shared else [])]) + ")", returns


def reference_by_reference(app, what, name, obj, options, lines):
    """Begin a paragraph of its own for the class of MXNet among the references."""
    del app, what, name, obj, options
    for number in reversed(range(1, len(lines))):
        if lines[number].lstrip().startswith("MXNet: `"):
            lines.insert(number, "")


def setup(app):
    """Set up the extension: Sphinx calls this."""
    app.connect("autodoc-process-docstring", reference_by_reference)
    app.connect("autodoc-process-signature", short_signature)
