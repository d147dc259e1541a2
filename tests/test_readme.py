"""What README.md and `./bootstrap run` print is what happens: the instance is made, its first message read, and every
command of the README runs on it as it stands there."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from instance import BIN, ROOT, SLOW

pytestmark = [pytest.mark.skipif(not shutil.which("curl"), reason="no curl"), pytest.mark.xdist_group("readme")]
README = (ROOT / "README.md").read_text()
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []


def run_as(who, words):
    return subprocess.run([*who, *map(str, words)], check=False).returncode


def run(words, who=(), folder=None, status=0):
    env = {**os.environ, "BIN": str(BIN), "HOME": str(folder or "/")}
    done = subprocess.run([*who, *map(str, words)], env=env, capture_output=True, text=True, timeout=240 * SLOW, check=False)
    assert done.returncode == status, (words, done.returncode, done.stdout + done.stderr)
    return done.stdout


@pytest.mark.parametrize("who", [[], pytest.param(NOBODY, marks=pytest.mark.skipif(not NOBODY, reason="is one already"))],
                         ids=["me", "nobody"])
def test_the_commands_of_the_readme(tmp_path, who):
    if who and run_as(who, ["test", "-r", ROOT / "scripts/instance.py"]):
        pytest.skip("this tree is not readable for others")
    for d in (tmp_path, *tmp_path.parents):
        if str(d).startswith("/tmp/") and len(d.parts) > 2 and d.stat().st_uid == os.geteuid():
            d.chmod(d.stat().st_mode | 0o711)
    place = tmp_path / "home"
    place.mkdir()
    if who:
        shutil.chown(place, 65534, 65534)
    folder = place / "instance"
    script = [sys.executable, ROOT / "scripts/instance.py"]
    out = run([*script, "run", folder], who, place)
    try:
        assert "It works." in out and f"Stop it: ./bootstrap stop {folder}" in out
        settings = re.findall(r"user (\S+)   password (\S+)", out)
        assert [user for user, _ in settings] == ["alice@example.test", "bob@example.test"]
        log = (folder / "log/mail.log").read_text()
        queue_id = re.search(r"smtp-message .*qid=(\S+)", log)[1]
        commands = re.findall(r"^    \$ (build/rel/bin/[^#\n]*)", README, re.M)
        assert [c.split()[3] for c in commands] == ["status", "security", "queue", "trace", "check"]
        for command in commands:
            words = command.replace("build/rel/bin", str(BIN)).replace("instance/etc", f"{folder}/etc").replace("QUEUEID", queue_id)
            assert pathlib.Path(words.split()[0]).exists()
            said = run(words.split(), who, place)
            assert said or "check" in words, command
        for line in re.findall(r"^  (/\S+bulkhead .*|tail .*)$", out, re.M):  # "Look around:"
            assert run(line.split(), who, place), line
        again = run([*script, "run", folder], who, place)  # it is up: a second message, the same passwords
        assert "starting" not in again and re.findall(r"user (\S+)   password (\S+)", again) == settings
    finally:
        run([*script, "stop", folder], who, place)
    run([*script, "stop", tmp_path / "none"], who, place, status=1)
