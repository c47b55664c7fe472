"""What is shipped is whole: a wheel, built and installed apart from the checkout, keeps the promise."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


@pytest.mark.timeout(180)
def test_a_wheel_installed_elsewhere_runs_the_demonstration(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(HERE)]
    subprocess.run(build, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"drover/migrations/{p.name}" for p in (HERE / "migrations").glob("*.sql")} <= set(names)
    assert {f"drover/store/sql/{p.name}" for p in (HERE / "drover/store/sql").glob("*.sql")} <= set(names)
    assert "drover/py.typed" in names
    place = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=60)
    env = {**os.environ, "PYTHONPATH": str(place)}
    where = subprocess.run(
        [sys.executable, "-c", "import drover; print(drover.__file__)"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(place))
    demo = subprocess.run(
        [sys.executable, "-m", "drover", "demo", "--plain"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "3 of 3 tasks completed · 3 task commits on main · 0 processes left" in demo.stdout
