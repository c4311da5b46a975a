"""Opens a page in headless Chromium and measures what it shows.

Chromium makes no window narrower than 500 pixels, so the page is in a frame, whose width is that of its
screen to its style sheet.
"""

import html
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

BINARY = shutil.which('chromium') or shutil.which('chromium-browser')
MISSING = 'needs Chromium: apt-get install chromium'
# Runs in the frame when all is loaded, and leaves its result around it, where --dump-dom prints it.
PROBE = """<script>addEventListener('load', () => {
  const root = document.documentElement, found = {
    width: innerWidth, scrolls_to: root.scrollWidth,
    images: [...document.images].map(image => image.complete ? image.naturalWidth : 0),
    figures: [...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().width),
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    page: getComputedStyle(document.body).backgroundColor,
    ink: [...document.querySelectorAll('svg text')].map(text => getComputedStyle(text).fill) };
  const place = parent.document.body.appendChild(parent.document.createElement('pre'));
  place.id = 'probe'; place.textContent = JSON.stringify(found);
})</script>"""


def look(page: pathlib.Path, width: int, dark: bool = False) -> dict[str, Any]:
    """What a page shows on a screen of that width: see PROBE; `console` is what Chromium logs of it."""
    with tempfile.TemporaryDirectory() as folder:
        probed = html.escape(page.read_text().replace('</head>', f'{PROBE}</head>'))
        frame = pathlib.Path(folder) / 'frame.html'
        frame.write_text(f'<body><iframe width="{width}" height="900" srcdoc="{probed}"></iframe>')
        ended = subprocess.run(
            [
                *(BINARY, '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom'),
                *('--enable-logging=stderr', f'--user-data-dir={folder}/profile'),
                f'--blink-settings=preferredColorScheme={0 if dark else 1}',
                '--window-size=1500,1000',
                f'file://{frame}',
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
    (found,) = re.findall(r'<pre id="probe">(.*?)</pre>', ended.stdout, re.DOTALL)
    console = [line for line in ended.stderr.splitlines() if ':CONSOLE' in line]
    return json.loads(found) | {'console': console}
