"""How Sphinx reads the pages that pages.py writes, and how docments become fields of the reference."""
import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path

from fastcore.docments import docments

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "docs"))

import layout  # noqa: E402

import prism_nb  # noqa: E402

project, version, author = "PRISM, reproduced", prism_nb.__version__, "The PRISM-nb authors"
release, copyright = version, author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
exclude_patterns = ["files"]
html_extra_path = [str(ROOT / "build" / "pages" / "files")]   # what raw HTML shows, at its path in the repository
highlight_language = "none"

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_mime_priority_overrides = [("html", "image/gif", 5)]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type"]   # a widget's state is not shown; its text is

nitpick_ignore = [("py:class", f"torch.nn.modules.rnn.{name}") for name in ("GRU", "LSTM")]
autodoc_member_order = "bysource"
autodoc_typehints = "none"   # they are shown with the parameters, from the docments
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False

html_theme = "furo"
html_title = project
templates_path = [str(ROOT / "docs" / "templates")]
html_static_path = [str(ROOT / "docs" / "static")]
html_css_files, html_js_files = ["style.css"], ["scroll.js"]
html_favicon = str(ROOT / "docs" / "static" / "favicon.svg")
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_show_search_summary = False   # it fetches pages, which a browser refuses to those opened from a disk
LIGHT, DARK = ("#A84300", "#00568A", "#00568A"), ("#FF9A57", "#7CC4F2", "#7CC4F2")
COLOURS = ("color-brand-primary", "color-brand-content", "color-brand-visited")
html_theme_options = {"light_css_variables": dict(zip(COLOURS, LIGHT)), "dark_css_variables": dict(zip(COLOURS, DARK))}


def format_type(annotation):
    """A type as it is written in code."""
    if annotation is inspect.Parameter.empty:
        return ""
    if hasattr(annotation, "__metadata__"):   # an option of a command
        annotation = annotation.__origin__
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return re.sub(r"torch\._C\.|torch\.|typing\.|collections\.abc\.", "", str(annotation))


def one_line(text):
    text = " ".join((text or "").split())
    text = text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("`", "")
    return re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)   # not a link


def raised_errors(thing):
    """The errors that a function, or a class's own methods, raise themselves, with their messages as written."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            if node.exc.func.id[0].isupper() and node.exc.args:
                yield node.exc.func.id, ast.unparse(node.exc.args[0]).lstrip("f").strip("'\"")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 3:
            name, _, bound = map(ast.unparse, node.args)
            if node.func.id == "check_choice":
                yield "PrismError", f"{name.strip(chr(39))} is not one of {bound}"
            if node.func.id == "check_min":
                yield "PrismError", f"{name.strip(chr(39))} is below {bound}"


def describe(name, signature, docments_of, arrow):
    """The type and the explanation of a parameter, or of what is returned."""
    if name == "return":   # after a bare **settings, docments takes its comment for the result's
        annotation, text = signature.return_annotation, arrow.partition("#")[2]
    else:
        annotation, text = signature.parameters[name].annotation, docments_of[name].get("docment")
    options = getattr(annotation, "__metadata__", ())   # of a command; Typer's own class has texts without `help` there
    text = text or next((option.help for option in options if hasattr(option, "help")), "")
    kind = format_type(annotation)
    return ", ".join(filter(None, [f"``{kind}``" if kind else "", one_line(text)]))


def add_docments(app, what, name, thing, options, lines):
    """Add parameters, returns and errors of a function or class, from its docments and its code, to its docstring."""
    if what not in ("function", "method", "class"):
        return
    def math(found): return ":math:`" + found[1].replace("\\\\", "\\") + "`"
    lines[:] = [re.sub(r"\$(.+?)\$", math, one_line(line)) for line in lines] + [""]
    try:
        docments_of = docments(thing, full=True, returns=True, args_kwargs=True)
        signature = inspect.signature(thing)
        source = inspect.getsource(thing).splitlines()
    except (ValueError, TypeError, AttributeError, OSError):
        return
    arrow = next((line for line in source if re.match(r"\s*(def .*)?\)\s*->", line)), "")
    for parameter in docments_of:
        if parameter in ("self", "cls") or parameter not in (*signature.parameters, "return"):
            continue
        text = describe(parameter, signature, docments_of, arrow)
        if parameter == "return" and text and what != "class":
            lines.append(f":returns: {text}")
        elif parameter != "return" and text:
            lines.append(f":param {parameter}: {text}")
    if what != "class":
        errors = dict.fromkeys(raised_errors(thing))
        lines.extend(f":raises {error}: {one_line(message)}" for error, message in errors)


def linkcode_resolve(domain, info):
    """The source is the notebook."""
    module = info["module"].removeprefix("prism_nb.")
    if module not in layout.notebooks():
        return None
    up = "../" * (1 + module.count("."))
    page = layout.notebooks()[module].relative_to(ROOT / "nbs").with_suffix(".html")
    return f"{up}notebooks/{page}"


def setup(app):
    app.connect("autodoc-process-docstring", add_docments)
