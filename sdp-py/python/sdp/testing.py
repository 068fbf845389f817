"""The doubles of the platform's parts, to be scripted: repositories, a machine and a gateway in memory; and a real git
host on this machine.

Give them to :class:`sdp.local.Platform` or :class:`sdp.local.Pipeline` in place of the real parts::

    repos = MemoryRepos(eredar={"main": {"main.go": "package main"}})
    machine = MemoryDeployer()
    with sdp.local.Platform() as platform:
        platform.start_agent("micro-1", repos, deployer=machine)
        client = platform.login("ada", "anything")
        machine.behave("never-healthy")
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional

from . import _sdp
from ._convert import read, write
from .model import Instance

__all__ = ["GitHost", "MemoryDeployer", "MemoryRepos", "MemoryRoutes"]

Files = Mapping[str, str]
"""The files of a commit: text by path."""


class MemoryRepos:
    """Repositories in memory. Any user and password is accepted until :meth:`accept` says otherwise.

    Args:
        directory: Where checkouts are written as files, so that a real deployer can build them; nowhere when None.
        repos: For each repo, the files of each branch.

    Raises:
        InvalidInput: A name is not valid.
    """

    def __init__(self, directory: Optional[str] = None, **repos: Mapping[str, Files]) -> None:
        self._native = _sdp.MemoryRepos(directory)
        for repo, branches in repos.items():
            self.add(repo)
            for branch, files in branches.items():
                self.push(repo, branch, files)

    def add(self, name: str, spec: Optional[Mapping[str, Any]] = None) -> None:
        """Adds a repo, which serves the service of its own name.

        Args:
            name: Its name.
            spec: All of its configuration, in the words of an agent's ``[[repo]]``.
        """
        self._native.add(name, None if spec is None else write({"name": name, **spec}))

    def push(self, repo: str, branch: str, files: Optional[Files] = None) -> str:
        """Puts the tip of a branch at a new commit of exactly these files.

        Returns:
            The commit.
        """
        return self._native.push(repo, branch, list((files or {}).items()))

    def accept(self, user: str, password: str) -> None:
        """Accepts only this user and password from now on."""
        self._native.accept(user, password)

    def fail(self, fail: bool = True) -> None:
        """Whether checkouts fail from now on."""
        self._native.fail(fail)

    def hang(self, hang: bool = True) -> None:
        """Whether checkouts wait, from now on, until they are cancelled."""
        self._native.hang(hang)


class MemoryDeployer:
    """A machine in memory, which runs nothing and says what would run."""

    def __init__(self) -> None:
        self._native = _sdp.MemoryDeployer()

    def behave(self, behaviour: str) -> None:
        """Behaves so from now on.

        Args:
            behaviour: ``works``, ``build-fails``, ``build-hangs``, ``start-fails``, ``start-hangs``, ``crashes``,
                ``never-healthy``, ``revert-fails``, ``engine-away`` or ``engine-hangs``.

        Raises:
            InvalidSettings: It is none of these.
        """
        self._native.behave(behaviour)

    def make_healthy(self) -> None:
        """Lets what never became healthy do so."""
        self._native.make_healthy()

    def has_program(self, name: str, *, stdout: str = "", stderr: str = "", code: Optional[int] = 0) -> None:
        """Has a program that commands may run do so from now on. There are no others.

        Args:
            name: The program.
            stdout: What it prints to standard output.
            stderr: What it prints to standard error.
            code: What it exits with; when None, it goes on until it is given up.
        """
        self._native.has_program(name, stdout, stderr, code)

    def commands(self) -> List[List[str]]:
        """The commands that run now."""
        commands: List[List[str]] = json.loads(self._native.commands())
        return commands

    @property
    def builds(self) -> int:
        """How many builds were begun."""
        return self._native.builds

    @property
    def reloads(self) -> int:
        """How often an instance was told to reload."""
        return self._native.reloads

    def answering(self) -> List[Instance]:
        """What answers its port now."""
        return [read(Instance, it) for it in json.loads(self._native.answering())]


class MemoryRoutes:
    """A gateway in memory.

    Args:
        branch: The branch it is on.
        services: The branch's own URL of each service.

    Raises:
        InvalidInput: A name is not valid.
    """

    def __init__(self, branch: str = "main", **services: str) -> None:
        self._native = _sdp.MemoryRoutes(branch, list(services.items()))

    def switch(self, branch: str, services: Mapping[str, str]) -> None:
        """What a fresh checkout of a branch does: its own URLs, and no overrides in the file."""
        self._native.switch(branch, list(services.items()))

    def edit_by_hand(self, service: str, value: str) -> None:
        """What a person with an editor does."""
        self._native.edit_by_hand(service, value)

    def route_per_request(self, on: bool = True) -> None:
        """Whether it routes per request from the next change on."""
        self._native.route_per_request(on)

    def file(self) -> Dict[str, str]:
        """The URL of each service in the file now."""
        values: Dict[str, str] = json.loads(self._native.file())
        return values

    @property
    def reloads(self) -> int:
        """How often it was reloaded."""
        return self._native.reloads

    def fail(self, fail: bool = True) -> None:
        """Whether reloads fail from now on."""
        self._native.fail(fail)

    def hang(self, hang: bool = True) -> None:
        """Whether changes do not come to an end from now on."""
        self._native.hang(hang)


class GitHost:
    """A real git host on 127.0.0.1 over HTTP with basic authentication. It ends with this object.

    Args:
        users: The password of each user.

    Raises:
        InvalidSettings: It cannot be started; git must be installed.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._native = _sdp.GitHost(list(users.items()))
        self._branches: Dict[str, List[str]] = {}

    def url(self, repo: str) -> str:
        """The remote of a repo."""
        return self._native.url(repo)

    def push(self, repo: str, branch: str, files: Files, message: str = "a change", onto: Optional[str] = None) -> str:
        """Commits exactly these files onto a branch; repo and branch are made where they are not there.

        Args:
            repo: The repo.
            branch: The branch.
            files: All files of the commit.
            message: The commit's message.
            onto: For a new branch, the branch it begins from.

        Returns:
            The commit.
        """
        if repo not in self._branches:
            self._native.create_repo(repo)
            self._branches[repo] = []
        branches = self._branches[repo]
        parent = branch if branch in branches else onto
        commit = self._native.commit(repo, branch, parent, list(files.items()), message)
        if branch not in branches:
            branches.append(branch)
        return commit

    def behave(self, mood: str) -> None:
        """Behaves so from now on.

        Args:
            mood: ``good``; ``broken`` answers 500, ``hanging`` nothing, ``not-git`` a web page.
        """
        self._native.behave(mood)

    def requests(self) -> List[str]:
        """The requests so far: method, path and status."""
        return self._native.requests()
