"""The style sheet of the report's page."""

CSS = """
:root { --soft: #4b5563; --line: #e5e7eb }
.teacher { --own: #555555 } .ect { --own: #009e73 } .ema { --own: #0072b2 } .lcsc { --own: #d55e00 }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: #111827;
  font: 16px/1.6 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif }
main { max-width: 1160px; margin: 0 auto; padding: 40px 20px 80px }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 12px } h2 { font-size: 21px; margin: 56px 0 8px }
p { max-width: 74ch; margin: 8px 0 }
.lead { font-size: 18px; line-height: 1.55; color: #1f2937 }
.soft, figcaption { color: var(--soft); font-size: 14.5px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin: 28px 0 8px }
.card { border: 1px solid var(--line); border-top: 4px solid var(--own); border-radius: 8px;
  padding: 14px 16px }
.card b { display: block; font-size: 30px; line-height: 1.25; font-variant-numeric: tabular-nums }
.card span { display: block; color: var(--soft); font-size: 14px }
.wide { overflow-x: auto; margin: 16px 0 } figure { margin: 0 }
table { border-collapse: collapse; width: 100%; font-size: 15px }
th, td { padding: 8px 12px; text-align: left; border-bottom: 1px solid #e5e7eb; vertical-align: top }
th { font-weight: 600; color: var(--soft); font-size: 13.5px; white-space: nowrap }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tbody th { color: #111827; font-size: 15px }
th small { display: block; font-size: 14px; font-weight: 400; color: var(--soft); padding-left: 18px }
tr.group > * { border-top: 2px solid #9ca3af } tr.lcsc > * { background: #fff7f0 }
.n.best { font-weight: 700 }
.scores { font-size: 14px } .scores th, .scores td { padding: 8px 7px }
.scores th.n { white-space: normal; vertical-align: bottom } .scores small { white-space: normal }
.flag { border-left: 4px solid #d55e00; padding: 2px 0 2px 12px }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px;
  background: var(--own) }
.grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 18px;
  margin: 20px 0 }
.grids img { width: 100%; display: block }
.grids figcaption { text-align: center; line-height: 1.4; margin-top: 8px }
.grids figcaption b { display: block; color: #111827; font-size: 15px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 28px; margin: 20px 0 }
.plots svg { width: 100%; display: block } .plots svg text { font-family: inherit !important }
dl { display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 6px 20px; font-size: 15px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
details { border: 1px solid var(--line); border-radius: 8px; margin: 10px 0; background: #f9fafb }
summary { cursor: pointer; padding: 10px 16px; font-weight: 600 }
details > div { padding: 0 16px 12px }
pre { margin: 0; padding: 0 16px 16px; overflow-x: auto; font-size: 13px; line-height: 1.45 }
@media (max-width: 600px) { main { padding-top: 24px } h1 { font-size: 26px }
  dl { grid-template-columns: 1fr } dd { margin-bottom: 8px }
  .cards, .grids { grid-template-columns: 1fr 1fr } th, td { padding: 7px 6px }
  th { white-space: normal } .card { padding: 12px }
  h2 { margin-top: 44px } .card b { font-size: 26px } }
@media (max-width: 480px) { .scores .n:nth-child(2) { display: none } th, td { padding: 7px 3px } }
"""
