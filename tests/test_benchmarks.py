"""The scripts in benchmarks/ still run on today's engine; what they measure is not looked at here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TAG_")}
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=600)


def test_both_sides_of_the_overhead_compute_the_same() -> None:
    done = run("training_overhead.py", "--processes", "1", "--rounds", "1")
    assert "did not compute the same" not in done.stderr
    assert done.stderr == ""
    assert "bar 1.03" in done.stdout.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_line_says_that_nothing_was_run() -> None:
    done = run("gpu.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "benchmarks/gpu.py: torch sees no GPU here, so nothing was run\n"


def test_the_sections_of_the_gpu_script_that_compare_run_on_toy_sizes() -> None:
    done = run("gpu.py", "--device", "cpu", "--tiny", "--rounds", "1", "--steps", "1", "--only", "resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("are bit-identical") == 2


def test_every_script_finds_what_it_imports_and_says_what_it_measures() -> None:
    scripts = sorted(BENCHMARKS.glob("*.py"))
    code = "import runpy, sys\nfor path in sys.argv[1:]: assert runpy.run_path(path, run_name='read')['__doc__'], path"
    command = [sys.executable, "-c", code, *map(str, scripts)]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert len(scripts) > 10
    assert done.returncode == 0, done.stderr
