"""The style sheet of all pages, for light and dark screens.

The figures of a page are drawn once, in the colours of `plotting`. Those of INKS, and black, become
variables of the style sheet in its <svg> elements, which have another value on a dark screen.
"""

# The colours of figures and their names in the style sheet: {colour: variable}.
INKS = {
    '#111827': '--ink',
    '#374151': '--ink',
    '#4b5563': '--soft',
    '#6b7280': '--soft',
    '#9ca3af': '--muted',
    '#e5e7eb': '--line',
    '#f3f4f6': '--band',
    '#555555': '--teacher',
    '#009e73': '--ect',
    '#0072b2': '--ema',
    '#d55e00': '--lcsc',
}

CSS = """
:root { color-scheme: light dark; --page: #fff; --ink: #111827; --soft: #4b5563; --muted: #9ca3af;
  --line: #e5e7eb; --band: #f3f4f6; --box: #f9fafb; --result: #fff7f0;
  --teacher: #555555; --ect: #009e73; --ema: #0072b2; --lcsc: #d55e00 }
@media (prefers-color-scheme: dark) { :root { --page: #111827; --ink: #f3f4f6; --soft: #b6bdc9;
  --muted: #7b8494; --line: #374151; --band: #1b2433; --box: #18212f; --result: #2b211b;
  --teacher: #b4b4b4; --ect: #2ec896; --ema: #56b4e9; --lcsc: #f0813a } }
.teacher { --own: var(--teacher) } .ect { --own: var(--ect) } .ema { --own: var(--ema) }
.lcsc { --own: var(--lcsc) }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif }
main { max-width: 1160px; margin: 0 auto; padding: 40px 20px 80px }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 12px } h2 { font-size: 21px; margin: 56px 0 8px }
p { max-width: 74ch; margin: 8px 0 }
.lead { font-size: 18px; line-height: 1.55 }
.soft, figcaption { color: var(--soft); font-size: 14.5px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin: 28px 0 8px }
.card { border: 1px solid var(--line); border-top: 4px solid var(--own); border-radius: 8px;
  padding: 14px 16px }
.card b { display: block; font-size: 30px; line-height: 1.25; font-variant-numeric: tabular-nums }
.card span { display: block; color: var(--soft); font-size: 14px }
.wide { overflow-x: auto; margin: 16px 0 } figure { margin: 0 }
table { border-collapse: collapse; width: 100%; font-size: 15px }
th, td { padding: 8px 12px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft); font-size: 13.5px; white-space: nowrap }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tbody th { color: var(--ink); font-size: 15px }
th small { display: block; font-size: 14px; font-weight: 400; color: var(--soft); padding-left: 18px }
tr.group > * { border-top: 2px solid var(--muted) } tr.lcsc > * { background: var(--result) }
thead th.n { white-space: normal; vertical-align: bottom }
.n.best { font-weight: 700 }
.scores { font-size: 14px } .scores th, .scores td { padding: 8px 7px }
.scores small { white-space: normal }
.flag { border-left: 4px solid var(--lcsc); padding: 2px 0 2px 12px }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px;
  background: var(--own) }
.grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 18px;
  margin: 20px 0 }
.grids img { width: 100%; display: block } img { image-rendering: pixelated }
.strip { display: grid; grid-template-columns: 150px 1fr; gap: 4px 18px; align-items: center;
  margin: 12px 0 } .strip img { width: 100%; display: block }
.strip b { display: block; color: var(--ink) }
.grids figcaption { text-align: center; line-height: 1.4; margin-top: 8px }
.grids figcaption b { display: block; color: var(--ink); font-size: 15px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 28px; margin: 20px 0 }
svg { width: 100%; display: block; color: var(--ink); fill: currentColor }
svg text { font-family: inherit !important } .plots .wide { margin: 0 }
.study { min-width: 860px } .picture { background: #fff; max-width: 100%; height: auto }
dl { display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 6px 20px; font-size: 15px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
details { border: 1px solid var(--line); border-radius: 8px; margin: 10px 0; background: var(--box) }
summary { cursor: pointer; padding: 10px 16px; font-weight: 600 }
details > div { padding: 0 16px 12px }
pre { margin: 0; padding: 0 16px 16px; overflow-x: auto; font-size: 13px; line-height: 1.45 }
.command { background: var(--box); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 14px }
@media (max-width: 600px) { main { padding-top: 24px } h1 { font-size: 26px }
  dl, .strip { grid-template-columns: 1fr } .strip b { display: inline }
  dd { margin-bottom: 8px }
  .cards, .grids { grid-template-columns: 1fr 1fr } th, td { padding: 7px 6px }
  th { white-space: normal } .card { padding: 12px }
  h2 { margin-top: 44px } .card b { font-size: 26px } }
@media (max-width: 480px) { .scores .n:nth-child(2) { display: none } th, td { padding: 7px 3px } }
"""
