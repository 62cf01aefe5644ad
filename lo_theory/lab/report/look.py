"""The look of a report, and the few lines that sort its tables: plain values, put into the page as they are.

System fonts, light and dark by the reader's setting; figures keep their white ground in both.
"""

from __future__ import annotations

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1f2328; --quiet: #57606a; --line: #d8dee4; --band: #f6f8fa;
  --accent: #762a83; --alarm: #b2182b; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --ink: #e3e6ea; --quiet: #a0a8b2; --line: #343b44;
  --band: #1d2229; --accent: #c9a2d4; --alarm: #ff8f86; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p.quiet, .notes, figcaption { color: var(--quiet); font-size: .9rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: 1rem 0 0; }
a { color: var(--accent); }
code, pre { font: .85rem/1.5 ui-monospace, monospace; }
pre { background: var(--band); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  overflow-x: auto; }
.wide { overflow-x: auto; margin: 1.5rem 0 .25rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; font-size: 1rem; padding: 0 0 .4rem; }
th, td { padding: .22rem .7rem; text-align: right; white-space: nowrap; }
th.left, td.left { text-align: left; }
thead th { border-bottom: 1px solid var(--ink); vertical-align: bottom; white-space: pre-line; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible, a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tbody + tbody { border-top: 1px solid var(--line); }
tbody tr:hover { background: var(--band); }
figure { margin: 1.5rem 0; }
figure img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 1rem 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.alarm { border-left: 4px solid var(--alarm); padding: .1rem 0 .1rem 1rem; }
.alarm h2 { color: var(--alarm); border: 0; margin: .25rem 0; padding: 0; }
summary { cursor: pointer; }
@media print { body { max-width: none; } nav { display: none; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.data")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = row => row.cells[column].textContent.trim();
      const order = (a, b) => {
        const [x, y] = [text(a), text(b)], [p, q] = [parseFloat(x), parseFloat(y)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const sign = isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q;
        return down ? -sign : sign;
      };
      for (const body of table.tBodies) body.append(...[...body.rows].sort(order));
    });
  });
}
"""
