"""Start-up of ``tag-run``: CPU time of commands that list things, as a multiple of ``python -c pass``.

Measured in one run with torch installed and at least five plugins: those of this environment and three tiny
ones made here. The commands take turns, many times; of each the smallest CPU time counts (user and
system, of the process and its children). Exits 1 where a bar is missed.

    python benchmarks/start_up.py [ROUNDS]
"""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

BARS = {"--help": 7.0, "list": 13.0, "plugins": 13.0, "recipes": 13.0, "show core/sgd": 13.0}
RUN = "from tag_core.cli.main import run; run()"
PLUGIN = """
from tag_core import Component, hookimpl

@hookimpl
def tag_losses():
    return [Component(f"loss-{i}", "scratch_plugin_NUMBER:Loss", "A loss") for i in range(20)]

class Loss: ...
"""


def install_plugins(site: Path, count: int) -> None:
    for number in range(count):
        name = f"scratch_plugin_{number}"
        (site / f"{name}.py").write_text(PLUGIN.replace("NUMBER", str(number)))
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: tag-core>=0.1\n"
        )
        (info / "entry_points.txt").write_text(f"[tag.plugins]\nscratch-{number} = {name}\n")


def cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int = 30) -> int:
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder), 3)
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their bytecode
        commands = {"python -c pass": [sys.executable, "-c", "pass"]}
        commands |= {name: [sys.executable, "-c", RUN, *name.split()] for name in BARS}
        best = dict.fromkeys(commands, float("inf"))
        for _ in range(rounds):
            for name, command in commands.items():
                best[name] = min(best[name], cpu_seconds(command, environment))
        listed = subprocess.run([*commands["list"], "loss"], env=environment, capture_output=True, text=True).stdout
    floor = best.pop("python -c pass")
    plugins = len({line.split("/")[0].strip() for line in listed.splitlines() if "scratch-" in line})
    torch = "with" if importlib.util.find_spec("torch") else "WITHOUT"
    print(f"{torch} torch, {plugins} scratch plugins; python -c pass: {1000 * floor:.1f} ms of CPU")
    missed = [name for name, seconds in best.items() if seconds / floor > BARS[name]]
    for name, seconds in best.items():
        verdict = "MISSED" if name in missed else "ok"
        print(f"tag-run {name:<14} {1000 * seconds:6.1f} ms {seconds / floor:5.1f}x  (bar {BARS[name]:.0f}x) {verdict}")
    return 1 if missed or plugins != 3 else 0


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
