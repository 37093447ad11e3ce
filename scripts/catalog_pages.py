"""The catalogue as Markdown: the table in the README and the generated pages of the documentation.

`python scripts/catalog_pages.py` (`make readme`) rewrites the README between its markers. MkDocs loads this file as
a hook and gets a page that lists all systems and one page for each that is available. Both are made from the
catalogue and the stored claim results, so neither can say something else than `wieldy list` and `wieldy show`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wieldy.cache import write_text
from wieldy.catalog import ROOMS, Paper, System, in_room, systems
from wieldy.catalog.show import last_result, verdict
from wieldy.claims.result import ClaimResult

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

README = Path(__file__).parents[1] / "README.md"
DOCS = Path(__file__).parents[1] / "docs"
OVERVIEW = "systems/index.md"
BEGIN, END = "<!-- systems: begin, written by `make readme` -->", "<!-- systems: end -->"


def page_path(system: System) -> str:
    """Where the generated page of a system lies in the documentation."""
    return f"systems/{system.slug}.md"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def paper(source: Paper | None) -> str:
    """Author, year and a link to the preprint, or an empty cell."""
    if source is None:
        return ""
    name = f"{source.first_author} et al. {source.year}"
    return f"[{name}](https://arxiv.org/abs/{source.arxiv})" if source.arxiv else name


def readme_section() -> str:
    """What stands between the markers of the README: available systems with their claims, then the planned ones."""
    ready = [system for system in systems() if system.available]
    planned = [system for system in systems() if not system.available]
    parts = [
        table(
            ("system", "room", "what you get", "claim"),
            ((f"`{s.slug}`", s.room, s.summary, f"**{verdict(s)}**") for s in ready),
        ),
        f"<details>\n<summary>Planned: {len(planned)} systems</summary>",
        table(
            ("system", "room", "what you will get", "paper"),
            ((f"`{s.slug}`", s.room, s.summary, paper(s.paper)) for s in planned),
        ),
        "</details>",
    ]
    return "\n\n".join(parts)


def with_section(text: str, section: str) -> str:
    """`text` with everything between the markers replaced; both markers stay."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"README.md has lost a marker: {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def overview_page() -> str:
    """All systems by room."""

    def rows(room: str) -> Iterator[tuple[str, ...]]:
        for s in in_room(room):
            name = f"[{s.name}]({s.slug}.md)" if s.available else s.name
            yield name, f"`{s.method}`", s.summary, s.status, paper(s.paper)

    parts = [
        "# All systems",
        "What the catalogue holds, by room. *Planned* means: described, not written yet. "
        "`wieldy list` prints the same list, `wieldy show SLUG` one entry.",
    ]
    for room, purpose in ROOMS.items():
        parts += [f"## {room}: {purpose}", table(("name", "method", "what you get", "status", "paper"), rows(room))]
    return "\n\n".join(parts) + "\n"


def system_page(system: System) -> str:
    """One available system: the facts, its claim with the last result, and its reference from the docstrings."""
    module, _, attribute = system.entry.partition(":")
    title = (DOCS / system.docs).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    facts = [("slug", f"`{system.slug}`"), ("room", f"{system.room}: {ROOMS[system.room]}"), ("kind", system.kind)]
    facts += [("method", f"`{system.method}`"), ("in Python", f"`{module}.{attribute}`")]
    if system.paper is not None:
        facts.append(("paper", f"{system.paper.title}. {paper(system.paper)}"))
    parts = [
        f"# {system.name}",
        system.summary,
        f"Start here: [{title}](../{system.docs}).",
        "\n".join(f"- {name}: {value}" for name, value in facts),
        "## Claim",
        *_claim(system),
        "## Reference",
        f"::: {module}\n    options:\n      members: false\n      show_root_heading: false\n      heading_level: 3",
        f"::: {module}.{attribute}\n    options:\n      heading_level: 3",
    ]
    return "\n\n".join(parts) + "\n"


def _claim(system: System) -> Iterator[str]:
    stored = last_result(system.slug)
    yield f"**{verdict(system)}**" + (f": {stored['statement']}" if stored else "")
    if stored:
        for found in ClaimResult.from_json(stored).report.tables:
            yield f"### {found.title.partition(':')[0]}\n\n{table(found.columns, found.rows)}"
    yield f"Run it yourself: `wieldy reproduce {system.slug}`. [How claims work](../claims.md)."


def on_config(config: MkDocsConfig) -> None:
    """MkDocs: the generated pages get their place beside the list of all systems."""
    for section in config.nav or []:
        for pages in section.values() if isinstance(section, dict) else ():
            if OVERVIEW in pages:
                pages.extend(page_path(system) for system in systems() if system.available)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs: add the generated pages."""
    from mkdocs.structure.files import File

    pages = {OVERVIEW: overview_page()}
    pages |= {page_path(system): system_page(system) for system in systems() if system.available}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


if __name__ == "__main__":
    write_text(README, with_section(README.read_text(encoding="utf-8"), readme_section()))
