"""Open a page in headless Chromium with the network off, as a reader would."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr", "--enable-unsafe-swiftshader", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=20000",
]  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """What the browser made of a page."""

    dom: str
    console: list[str]

    def count(self, tag: str) -> int:
        return len(re.findall(rf"<{tag}[\s>]", self.dom))


def open_page(chromium: str, page: Path, *, width: int = 800) -> Opened:
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [chromium, *OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},600", "--dump-dom",
             page.resolve().as_uri()],
            capture_output=True, text=True, timeout=180, check=True,
        )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Opened(
        done.stdout, [line for line in said if "GL Driver Message" not in line]
    )  # the machine's, not the page's
