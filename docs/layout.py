"""The layout of the package, read from its imports: its modules, in the order in which they build on each other."""
import ast
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "prism_nb"
LAYERS = {   # lower layers first; a module imports from its own layer and from those below
    "core": "errors, random numbers, files, paths, the process, registries",
    "data": "from video files to clips",
    "paper": "the paper, equation by equation",
    "methods": "what PRISM is compared with",
    "study": "profiles, runs, records, executors, statistics",
    "report": "figures, tables, pages",
    "cli": "the command line",
}
SVG = ROOT / "docs" / "static" / "layout.svg"
MAINTAINING = ROOT / "docs" / "maintaining.md"


@cache
def notebooks() -> dict[str, Path]:
    """The notebook of each module, by the module's name below `prism_nb`."""
    paths = [*ROOT.glob("nbs/[0-9]*.ipynb"), *(p for layer in LAYERS for p in ROOT.glob(f"nbs/{layer}/*.ipynb"))]

    def name(path):
        return re.sub(r"(^|\.)\d\d_", r"\1", ".".join(path.relative_to(ROOT / "nbs").with_suffix("").parts))
    names = {name(path): path for path in paths}
    return {name: path for name, path in names.items() if ".ipynb_checkpoints" not in path.parts}


def layer(module: str) -> str:
    """The layer of a module."""
    first = module.partition(".")[0]
    return first if first in LAYERS else "paper"


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of this package that a module imports."""
    path = PACKAGE / (module.replace(".", "/") + ".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        package = f"prism_nb.{module}".rpartition(".")[0]
        base = resolve_name("." * node.level + (node.module or ""), package)
        names = {base, *(f"{base}.{alias.name}" for alias in node.names)}
        found |= {name.removeprefix("prism_nb.") for name in names} & {*notebooks()}
    return frozenset(found - {module})


def number(module: str) -> str:
    """The number of a notebook of the paper, or ''."""
    return re.match(r"(\d\d_)?", notebooks()[module].name)[0]


@cache
def modules() -> tuple[str, ...]:
    """All modules, each after those that it imports: by layer, then by number, then by import."""
    order = [*TopologicalSorter({name: sorted(imports(name)) for name in sorted(notebooks())}).static_order()]
    return tuple(sorted(order, key=lambda name: ([*LAYERS].index(layer(name)), number(name), order.index(name))))


def violations() -> list[str]:
    """Imports that go against the order of the layers, or of the paper's numbers."""
    found = []
    for module in notebooks():
        for other in imports(module):
            here, there = ([*LAYERS].index(layer(name)) for name in (module, other))
            backwards = layer(module) == layer(other) == "paper" and number(other) >= number(module)
            if there > here or backwards:
                found.append(f"{module} imports {other}")
    return sorted(found)


def subtitle(module: str) -> str:
    """The subtitle of a module's notebook."""
    import nbformat
    first = nbformat.read(notebooks()[module], as_version=4).cells[0].source
    return re.match(r"# .+\n\n> (.+)", first)[1]


def table() -> str:
    """The modules with their subtitles, as Markdown."""
    rows = []
    for name, about in LAYERS.items():
        rows.append(f"| **{name}** | **{about}** |")
        for module in (m for m in modules() if layer(m) == name):
            link = f"../{notebooks()[module].relative_to(ROOT)}"
            rows.append(f"| [`{module}`]({link}) | {subtitle(module)} |")
    return "\n".join(["| module | |", "|---|---|", *rows])


def text_map() -> str:
    """Which layer imports from which, as Markdown: how many imports there are."""
    names = [*LAYERS]
    counts = {(a, b): 0 for a in names for b in names}
    for module in notebooks():
        for other in imports(module):
            counts[layer(module), layer(other)] += 1
    head = "| imports from → | " + " | ".join(names) + " |"
    rule = "|---|" + "---:|" * len(names)
    rows = [f"| **{a}** | " + " | ".join(str(counts[a, b] or "") for b in names) + " |" for a in reversed(names)]
    return "\n".join([head, rule, *rows])


WIDTH, ROW, CHIP = 760, 22, 7.2   # pixels: of the picture, of a line of modules, of a character


def svg() -> str:
    """A map of the layers: boxes that hold their modules, arrows for the imports between layers."""
    boxes, y = {}, 10
    parts = []
    for name in reversed(LAYERS):
        lines, x = [[]], 0
        for module in (m for m in modules() if layer(m) == name):
            label = number(module) + module.partition(".")[2] if "." in module else number(module) + module
            length = CHIP * len(label) + 18
            if x + length > WIDTH - 230:
                lines.append([])
                x = 0
            lines[-1].append((x, label, length))
            x += length + 6
        height = 14 + ROW * len(lines) + 6
        boxes[name] = y, height
        parts.append(f'<rect class="layer" x="10" y="{y}" width="{WIDTH - 110}" height="{height}" rx="8"/>')
        parts.append(f'<text class="name" x="22" y="{y + 24}">{name}</text>')
        for i, line in enumerate(lines):
            for x, label, length in line:
                top = y + 8 + i * ROW
                left, middle = 100 + x, 100 + x + length / 2
                parts.append(f'<rect class="chip" x="{left:.0f}" y="{top}" width="{length:.0f}" height="18" rx="9"/>')
                parts.append(f'<text x="{middle:.0f}" y="{top + 13}" text-anchor="middle">{label}</text>')
        y += height + 14
    pairs = sorted({(layer(a), layer(b)) for a in notebooks() for b in imports(a) if layer(a) != layer(b)})
    for above, below in pairs:
        start = boxes[above][0] + boxes[above][1] / 2 + 3 * [*LAYERS].index(below) - 9
        end = boxes[below][0] + boxes[below][1] / 2 + 3 * [*LAYERS].index(above) - 9
        edge, bend = WIDTH - 100, 14 + (end - start) * .22
        parts.append(f'<path class="import" d="M{edge} {start:.0f} C{edge + bend:.0f} {start:.0f} {edge + bend:.0f} '
                     f'{end:.0f} {edge + 2} {end:.0f}" marker-end="url(#arrow)"/>')
    style = (".layer{fill:#f4f1ec;stroke:#b8b0a4}.chip{fill:#fff;stroke:#d55e00}.name{font-weight:bold;font-size:13px}"
             "text{font:12px system-ui,sans-serif;fill:#222}.import{fill:none;stroke:#0072b2;stroke-width:1.2}"
             ".back{fill:#fff}")
    arrow = ('<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
             'orient="auto"><path d="M0 0L8 4L0 8z" fill="#0072b2"/></marker></defs>')
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
                      'aria-label="the layers of the package, and which imports from which">',
                      f"<style>{style}</style>", arrow, f'<rect class="back" width="{WIDTH}" height="{y}"/>', *parts,
                      "</svg>", ""])


def maintaining() -> str:
    """The page for maintainers, its tables of modules and imports up to date."""
    text = MAINTAINING.read_text()
    for name, content in (("modules", table()), ("imports", text_map())):
        start, rest = text.split(f"<!-- {name} -->\n")
        text = f"{start}<!-- {name} -->\n{content}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text


if __name__ == "__main__":
    SVG.write_text(svg())
    MAINTAINING.write_text(maintaining())
    sys.exit("\n".join(violations()) or None)
