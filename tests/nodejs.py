"""Runs scripts on Node.js with packages of npm, which are installed once into build/node."""
import fcntl
import pathlib
import shutil
import subprocess

import pytest

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "build/node"


def _install(packages):
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [p for p in packages if not (FOLDER / "node_modules" / p / "package.json").exists()]
        if not missing:
            return
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000",
                               "--fetch-retry-maxtimeout=1000", "--prefix", FOLDER, *missing],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180, check=False)
        if done.returncode:
            pytest.skip("npm cannot install " + " ".join(missing) + ": " + done.stdout[-300:])


def run_node(script, *packages, timeout=60):
    """The output of a script (CommonJS text) that may require() the packages. Fails the test if it fails."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("no node or npm here")
    _install(packages)
    done = subprocess.run(["node", "-e", script], cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
