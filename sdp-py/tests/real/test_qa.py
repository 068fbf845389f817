"""The scripts of the README, as they are, on real parts."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from places import Playground

README = Path(__file__).parent.parent.parent / "README.md"


def script(word: str) -> str:
    """The README's script that has this in it."""
    scripts = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    found = [text for text in scripts if word in text]
    assert len(found) == 1
    return found[0]


def nothing_is_left(playground: Playground) -> None:
    assert [sandbox.name for sandbox in playground.client.sandboxes()] == []


def test_the_gateway_is_found(playground: Playground) -> None:
    assert playground.client.gateway() == playground.gateway


@pytest.mark.parametrize("word", ["with sdp.Client() as client", "asyncio.run(main())", "never-healthy"])
def test_a_script_of_the_readme_runs(playground: Playground, word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script(word)], env=playground.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_is_left(playground)


def test_four_workers_share_one_gateway_and_see_only_their_own_branches(playground: Playground, tmp_path: Path) -> None:
    suite = script("def test_the_greeting")
    # Each test again and again, so that all workers are busy at once.
    (tmp_path / "test_suite.py").write_text(suite + "\n\npytest_plugins = []\n", encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "def pytest_generate_tests(metafunc):\n"
        "    metafunc.fixturenames.append('round_')\n"
        "    metafunc.parametrize('round_', range(3))\n",
        encoding="utf-8",
    )
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "4",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        tmp_path / "t",
        tmp_path,
    ]
    done = subprocess.run(program, env=playground.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout
    nothing_is_left(playground)


def test_what_a_program_prints_is_followed_until_it_is_stopped(playground: Playground) -> None:
    with playground.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main").wait()
        sandbox.ready()
        follow = deployment.follow_output()
        first = follow.next(timeout=60)
        assert first is not None
        assert (first.stream, "eredar listens on" in first.text) == ("stderr", True)
        address = f"{playground.gateway}/eredar/followed"
        with urllib.request.urlopen(urllib.request.Request(address, headers=sandbox.headers), timeout=30) as answer:
            answer.read()
        lines = iter(lambda: follow.next(timeout=60), None)
        assert any("/followed" in line.text for line in lines)
        assert "/followed" in deployment.output(tail=200)
        deployment.stop()
        assert all(line.text for line in lines)
    nothing_is_left(playground)


def test_a_command_is_run_in_a_container(playground: Playground) -> None:
    with playground.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main", env={"MODE": "test"}).wait()
        done = deployment.exec(["sh", "-c", 'echo "$MODE"; echo oh >&2; exit 7'])
        assert (done.stdout, done.stderr, done.code) == ("test\n", "oh\n", 7)
        assert deployment.exec(["no-such-program"]).code == 127
    nothing_is_left(playground)


def test_a_failing_test_shows_what_its_deployment_said(playground: Playground, tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(
        "import pytest\n"
        "@pytest.mark.sandbox(eredar='main')\n"
        "def test_it(sandbox):\n"
        "    assert sandbox.name == 'another'\n",
        encoding="utf-8",
    )
    program = [sys.executable, "-m", "pytest", "--sdp-keep", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(program, env=playground.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "= running" in done.stdout
    assert "source = main at" in done.stdout
    assert "sdp output: " in done.stdout
    assert re.search(r"eredar listens on \S*:\d+", done.stdout)
    kept = [sandbox.name for sandbox in playground.client.sandboxes()]
    assert len(kept) == 1
    assert f"sdp sandbox delete {kept[0]}" in done.stdout
    playground.client.get_sandbox(kept[0]).delete()
    nothing_is_left(playground)
