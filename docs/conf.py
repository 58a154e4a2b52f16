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

import prism_nb  # noqa: E402

project, version, author = "PRISM, reproduced", prism_nb.__version__, "The PRISM-nb authors"
release, copyright = version, author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
exclude_patterns = ["files"]
html_extra_path = [str(ROOT / "build" / "pages" / "files")]   # what raw HTML shows lies where it lies in the repository
highlight_language = "none"

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_mime_priority_overrides = [("html", "image/gif", 5)]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type"]   # a widget's state has no place on a page; its text has

autodoc_member_order = "bysource"
autodoc_typehints = "none"   # said with the parameters, from the docments
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
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#A84300", "color-brand-content": "#00568A", "color-brand-visited": "#00568A"},
    "dark_css_variables": {"color-brand-primary": "#FF9A57", "color-brand-content": "#7CC4F2", "color-brand-visited": "#7CC4F2"},
}


def written(annotation):
    """A type as one writes it."""
    if annotation is inspect.Parameter.empty:
        return ""
    if hasattr(annotation, "__metadata__"):   # an option of a command
        annotation = annotation.__origin__
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    return annotation.__name__ if plain else str(annotation).replace("torch._C.", "").replace("torch.", "").replace("typing.", "").replace("collections.abc.", "")


def one_line(text):
    return " ".join((text or "").split()).replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("`", "")


def refusals(thing):
    """What the code of a function, or of a class's own methods, raises itself: pairs of an error and its message, as written."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) and node.exc.func.id[0].isupper() and node.exc.args:
            yield node.exc.func.id, ast.unparse(node.exc.args[0]).lstrip("f").strip("'\"")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("one_of", "at_least") and len(node.args) == 3:
            name, _, bound = map(ast.unparse, node.args)
            yield "PrismError", name.strip("'") + (f" is not one of {bound}" if node.func.id == "one_of" else f" is below {bound}")


def fields(app, what, name, thing, options, lines):
    """Parameters, returns and errors of a function or class, from its docments and its code, below its docstring."""
    if what not in ("function", "method", "class"):
        return
    lines[:] = [re.sub(r"\$(.+?)\$", lambda m: ":math:`" + m[1].replace("\\\\", "\\") + "`", one_line(line)) for line in lines] + [""]
    try:
        described = docments(thing, full=True, returns=True, args_kwargs=True)
        signature = inspect.signature(thing)
        arrow = next((line for line in inspect.getsource(thing).splitlines() if re.match(r"\s*(def .*)?\)\s*->", line)), "")
    except (ValueError, TypeError, AttributeError, OSError):
        return
    for parameter in [name for name in described if name in (*signature.parameters, "return") and name not in ("self", "cls")]:
        if parameter == "return":   # after a bare **settings, docments takes its comment for the result's
            annotation, said = signature.return_annotation, arrow.partition("#")[2]
        else:
            annotation, said = signature.parameters[parameter].annotation, described[parameter].get("docment")
        said = said or next((option.help for option in getattr(annotation, "__metadata__", ())), "")
        kind, said = written(annotation), one_line(said)
        told = ", ".join(filter(None, [f"``{kind}``" if kind else "", said]))
        if parameter == "return" and told and what != "class":
            lines.append(f":returns: {told}")
        elif parameter != "return" and told:
            lines.append(f":param {parameter}: {told}")
    if what != "class":
        lines.extend(f":raises {error}: {one_line(message)}" for error, message in dict.fromkeys(refusals(thing)))


def linkcode_resolve(domain, info):
    """The source is the notebook."""
    room = info["module"].split(".")[-1]
    return next((f"../notebooks/{n.stem}.html" for n in ROOT.glob(f"nbs/[0-9][0-9]_{room}.ipynb")), None)


def setup(app):
    app.connect("autodoc-process-docstring", fields)
