"""The README's plugin of one file, a backbone and a loss of one's own, runs as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from reid_pictures import write_pictures

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_readmes_own_backbone_and_loss_run(tmp_path: Path) -> None:
    section = README.read_text("utf-8").partition("### A backbone or loss of your own")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (command,) = re.findall(r"^    tag-run (.*--plugin mine.py)$", section, re.MULTILINE)
    (tmp_path / "mine.py").write_text(code)
    write_pictures(tmp_path / "people", [f"{who}/{number}.png" for who in ("ann", "bo") for number in range(4)])
    call = [sys.executable, "-m", "tag_core.cli.main", *shlex.split(command)]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "8 pictures, 2 identities, no cameras" in done.stderr
