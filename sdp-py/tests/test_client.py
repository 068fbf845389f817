"""The client that waits, against a real server in this process."""

from __future__ import annotations

import inspect
import time
from datetime import datetime, timedelta, timezone
from typing import Callable, List, Sequence

import pytest
from world import World

import sdp
from sdp import DeploymentState, ServiceSpec, errors


def test_who_is_signed_in_is_told(client: sdp.Client) -> None:
    me = client.me()
    assert (me.user, me.role) == ("ada", "admin")
    assert me.expires_at > datetime.now(timezone.utc)
    assert client.health().status == "ok"
    assert client.readiness().agents_connected == 1
    assert "sdp_agent_connected" in client.metrics()
    assert client.openapi()["openapi"].startswith("3.1")


def test_what_can_be_deployed_is_listed(client: sdp.Client) -> None:
    assert {repo.name: repo.gateway for repo in client.repos()} == {"eredar": False, "gateway": True, "illidan": False}
    assert [branch.name for branch in client.branches("eredar", "FEATURE")] == ["feature/x"]
    agent = client.agent("micro-1")
    assert agent.connected
    assert agent.inventory is not None
    assert agent.inventory.deployer == "memory"


def test_a_sandbox_is_there_for_its_block_and_gone_after_it(client: sdp.Client) -> None:
    with client.sandbox() as sandbox:
        assert [it.name for it in client.sandboxes()] == [sandbox.name]
        assert sandbox.expires_at - sandbox.created_at == timedelta(days=1)
        assert sandbox.headers == {"X-SDP-Sandbox": sandbox.key}
    assert list(client.sandboxes()) == []


def test_a_sandbox_is_gone_also_when_its_block_fails_or_somebody_else_deleted_it(client: sdp.Client) -> None:
    with pytest.raises(ZeroDivisionError), client.sandbox():
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), client.sandbox():
        raise KeyboardInterrupt
    with client.sandbox() as sandbox:
        client.get_sandbox(sandbox.name).delete()
    assert list(client.sandboxes()) == []


def test_a_sandbox_whose_services_do_not_come_up_is_not_left_behind(world: World) -> None:
    client = world.client
    client.create_template("checkout", services=[ServiceSpec("eredar", "main")])
    world.machine.behave("crashes")
    with pytest.raises(errors.Unhealthy) as caught, client.sandbox(template="checkout", deploy=True):
        pytest.fail("the block began")
    assert caught.value.stage == "health"
    assert list(client.sandboxes()) == []


def test_a_branch_is_deployed_followed_and_waited_for(client: sdp.Client) -> None:
    with client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", branch="feature/x", env={"MODE": "test"})
        assert deployment.state.is_active
        follow = deployment.follow()
        lines = [str(line) for line in follow]
        assert follow.state is DeploymentState.RUNNING
        assert any(line.endswith("= running") for line in lines)
        assert deployment.wait() is deployment
        assert (deployment.state, deployment.branch, deployment.env) == ("running", "feature/x", {"MODE": "test"})
        assert [str(stage.stage) for stage in deployment.stages] == ["source", "build", "start", "health", "routes"]
        assert deployment.log().splitlines() == lines
        assert deployment.log(tail=1).strip() == lines[-1]
        assert next(deployment.follow(from_=3)).seq == 3
        assert sandbox.deployment("eredar").id == deployment.id
        assert deployment.stop().state == "stopped"
        assert deployment.restart().state == "running"
        again = deployment.retry().wait()
        assert again.id != deployment.id
        assert [it.id for it in sandbox.history()] == [again.id, deployment.id]


def test_a_command_is_run_where_a_deployment_runs(world: World) -> None:
    with world.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main").wait()
        world.machine.has_program("migrate", stdout="one\ntwo\n", stderr="careful\n", code=3)
        done = deployment.exec(["migrate", "--force"])
        assert done == sdp.CompletedCommand(stdout="one\ntwo\n", stderr="careful\n", code=3)
        assert str(done) == "one\ntwo\n"
        assert deployment.exec(("no-such",)).code == 127
        world.machine.has_program("hang", stdout="begun\n", code=None)
        with pytest.raises(TimeoutError):
            deployment.exec(["hang"], timeout=0.5)
        until(lambda: not world.machine.commands())
        wrongs: List[Sequence[str]] = [[], [""], ["a\0b"], "ls -la"]
        for wrong in wrongs:
            with pytest.raises(errors.InvalidInput):
                deployment.exec(wrong)
        deployment.stop()
        with pytest.raises(errors.Conflict, match="restart it first"):
            deployment.exec(["migrate"])
    entries = [it for it in world.client.audit() if it.action == "exec"]
    assert [it.detail for it in reversed(entries)] == ["migrate --force", "no-such", "hang"]


def until(holds: Callable[[], bool]) -> None:
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def test_what_a_program_prints_is_read_and_followed(world: World) -> None:
    with world.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main").wait()
        printed = deployment.output().splitlines()
        assert printed[0] == "starting"
        assert printed[1].endswith(f"listens on {deployment.host_port}")
        assert deployment.output(tail=1).splitlines() == printed[1:]
        follow = deployment.follow_output()
        assert [(line.stream, str(line)) for line in follow] == [("stdout", line) for line in printed]
        assert follow.next(timeout=60) is None
        assert [line.text for line in deployment.follow_output(tail=1)] == printed[1:]
        for asked in [deployment.output, deployment.follow_output]:
            with pytest.raises(errors.InvalidInput) as caught:
                asked(tail=-1)
            assert caught.value.field == "tail"
        world.machine.behave("build-fails")
        failed = sandbox.deploy("illidan", "main").wait(check=False)
        with pytest.raises(errors.Conflict, match="no program of it is there"):
            failed.output()
        with pytest.raises(errors.Conflict, match="no program of it is there"):
            next(failed.follow_output())


def test_a_failure_is_the_class_of_its_code(world: World) -> None:
    world.machine.behave("build-fails")
    with world.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main")
        with pytest.raises(errors.BuildFailed, match="eredar main did not come up") as caught:
            deployment.wait()
        assert caught.value.deployment is deployment
        assert caught.value.stage == "build"
        assert deployment.wait(check=False).state == "failed"


def test_a_wait_ends_with_its_time_and_a_cancelled_deployment_is_told(world: World) -> None:
    world.machine.behave("build-hangs")
    with world.client.sandbox() as sandbox:
        deployment = sandbox.deploy("eredar", "main")
        with pytest.raises(TimeoutError):
            deployment.wait(timeout=0.2)
        follow = deployment.follow(from_=1000)
        with pytest.raises(TimeoutError):
            follow.next(timeout=timedelta(milliseconds=100))
        deployment.cancel()
        with pytest.raises(errors.Cancelled):
            deployment.wait()


def test_routes_are_toggled_one_and_many_and_read_back(world: World) -> None:
    with world.client.sandbox() as sandbox:
        url = sandbox.deploy("eredar", "main").wait().url
        table = sandbox.route("eredar", "sandbox", reason="a test", expires_in="1h")
        assert (table["eredar"].value, table["eredar"].origin, table["eredar"].owner) == (url, "sandbox", sandbox.name)
        assert table["eredar"].reason == "a test"
        table = sandbox.set_routes({"eredar": "ocp", "illidan": "http://127.0.0.1:9"})
        assert (table["eredar"].origin, table["illidan"].origin) == ("ocp", "custom")
        assert "jaina" not in table
        with pytest.raises(KeyError):
            table["jaina"]
        assert world.routes.file()["illidan"] == "http://127.0.0.1:9"
        assert sandbox.refresh().wanted_routes["illidan"] == {"url": "http://127.0.0.1:9"}
        assert sandbox.explain("eredar").because
        assert world.client.explain("illidan", key=sandbox.key).sandbox == sandbox.name
    assert world.routes.file()["illidan"] == "http://illidan.stable.example"


def test_ready_is_when_requests_with_the_key_reach_what_runs(world: World) -> None:
    with world.client.sandbox() as sandbox:
        assert sandbox.ready(timeout=0) is sandbox
        url = sandbox.deploy("eredar", "main").wait().url
        sandbox.ready()
        assert sandbox.routes().requests[sandbox.name].services == {"eredar": url}
        world.routes.fail()
        sandbox.deploy("illidan", "main").wait()
        with pytest.raises(TimeoutError, match="to its illidan yet"):
            sandbox.ready(timeout=0.3)
        world.routes.fail(False)


def test_who_holds_a_route_is_named(client: sdp.Client) -> None:
    with client.sandbox() as one, client.sandbox() as other:
        one.route("eredar", "http://127.0.0.1:1")
        with pytest.raises(errors.RouteClaimed) as caught:
            other.route("eredar", "http://127.0.0.1:2")
        assert (caught.value.holder, caught.value.status, caught.value.code) == (one.name, 409, "route-claimed")
        assert other.route("eredar", "http://127.0.0.1:2", takeover=True)["eredar"].owner == other.name
        assert one.refresh().taken[0].by == other.name


def test_templates_are_saved_used_changed_and_deleted(client: sdp.Client) -> None:
    template = client.create_template(
        "checkout",
        services=[ServiceSpec("eredar", "main", env={"A": "1"}), {"repo": "illidan", "branch": "main"}],
        routes={"eredar": "sandbox"},
        expires_in=timedelta(days=2),
    )
    assert template.expires_in == timedelta(days=2)
    with client.sandbox(template="checkout", branches={"eredar": "feature/x"}, expires_in=None, deploy=True) as sandbox:
        assert {it.repo: it.branch for it in sandbox.services} == {"eredar": "feature/x", "illidan": "main"}
        assert all(it.state == "running" for it in sandbox.deployments)
        assert sandbox.expires_at - sandbox.created_at == timedelta(days=2)
        clone = sandbox.clone()
        assert clone.services == sandbox.services
        clone.delete()
        client.create_template("copy", from_sandbox=sandbox.name)
    stale = client.template("checkout")
    template.expires_in = timedelta(hours=3)
    template.save()
    with pytest.raises(errors.Changed):
        stale.save()
    assert {it.name: it.expires_in for it in client.templates()}["checkout"] == timedelta(hours=3)
    client.template("copy").delete()
    stale.refresh().delete()
    with pytest.raises(errors.NotFound):
        client.template("checkout")


def test_environments_are_made_changed_and_deleted(client: sdp.Client) -> None:
    made = client.create_environment("qa", agents=["micro-1"], env={"A": "1"}, ports="21000-21999", idle_after="2h")
    assert (made.ports, made.idle_after) == ("21000-21999", timedelta(hours=2))
    made.env["B"] = "2"
    assert made.save().env == {"A": "1", "B": "2"}
    with client.sandbox(environment="qa"), pytest.raises(errors.Conflict):
        client.environment("qa").delete()
    made.delete()
    assert [it.name for it in client.environments()] == ["default"]


def test_a_sandbox_is_changed_slept_and_woken(client: sdp.Client) -> None:
    with client.sandbox() as sandbox:
        end = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=3)
        assert sandbox.extend(end).expires_at == end
        assert sandbox.extend(timedelta(days=2)).expires_at < end
        assert sandbox.share(["bob"]).shared_with == ["bob"]
        sandbox.deploy("eredar", "main").wait()
        assert sandbox.sleep().state == "asleep"
        sandbox.wake()
        assert sandbox.refresh().state == "active"


def test_a_document_says_what_a_sandbox_is(client: sdp.Client) -> None:
    document = {"services": [{"repo": "eredar", "branch": "main"}], "expires_in": "2d"}
    assert [it.change for it in client.diff_sandbox("paper", document)] == ["create", "add-service"]
    applied = client.apply_sandbox("paper", document)
    client.deployment(applied.deployments[0].id).wait()
    sandbox = client.get_sandbox("paper")
    assert sandbox.diff(document) == []
    text = sandbox.export()
    assert "repo: eredar" in text
    changes = sandbox.apply(text.replace("branch: main", "branch: feature/x")).changes
    assert [(it.change, it.details["to"]["branch"]) for it in changes] == [("change-service", "feature/x")]
    with pytest.raises(errors.InvalidInput, match="line 1"):
        sandbox.apply("servces: []")
    sandbox.delete()


def test_history_and_audit_come_page_by_page(client: sdp.Client) -> None:
    with client.sandbox() as sandbox:
        for _ in range(5):
            sandbox.deploy("eredar", "main", force=True).wait(check=False)
        ids = [it.id for it in client.deployments(sandbox=sandbox.name, page=2)]
        assert len(ids) == 5
        assert ids == sorted(ids, reverse=True)
        assert [it.id for it in client.deployments(repo="illidan")] == []
        done = [it.action for it in client.audit(subject=f"sandboxes/{sandbox.name}", page=2)]
        assert done.count("deploy") == 5
        assert done[-1] == "sandbox-create"


def test_what_changes_is_told(client: sdp.Client) -> None:
    changes = client.events()
    begins = changes.next(timeout=30)
    assert begins.type == "position"
    with client.sandbox() as sandbox:
        event = changes.next(timeout=30)
        assert (event.type, event.name, event.change) == ("sandbox", sandbox.name, "created")
        position = changes.position
    again = client.events(position)
    assert [again.next(timeout=30).type for _ in range(2)][1] == "sandbox"


def test_tokens_are_made_used_and_revoked(world: World) -> None:
    issued = world.client.create_token("nightly", ["read"], expires_in=timedelta(days=1))
    assert issued.secret not in repr(issued)
    script = world.platform.client(issued.secret)
    assert script.me().role == "viewer"
    with pytest.raises(errors.NotAllowed):
        script.create_sandbox()
    world.client.revoke_token(issued.token.id)
    with pytest.raises(errors.NotSignedIn, match="sign in again"):
        script.me()


def test_people_and_agents_are_looked_after(world: World) -> None:
    client = world.client
    bob = world.platform.login("bob", "secret")
    assert {it.name: str(it.role) for it in client.users()} == {"ada": "admin", "bob": "developer"}
    assert client.change_user("bob", role="viewer").role == "viewer"
    with pytest.raises(errors.NotAllowed):
        bob.users()
    issued = client.enrol_agent("micro-2")
    assert client.rotate_agent("micro-2").token != issued.token
    client.revoke_agent("micro-2")
    assert [it.name for it in client.agents()] == ["micro-1"]
    bob.logout()
    with pytest.raises(errors.NotSignedIn):
        bob.me()


def test_input_that_breaks_a_rule_names_its_field(client: sdp.Client) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        client.deploy("eredar", "../x")
    assert (caught.value.field, caught.value.status) == ("branch", 422)
    with client.sandbox() as sandbox, pytest.raises(errors.InvalidInput) as caught:
        sandbox.deploy("eredar", "main", port=0)
    assert caught.value.field == "host_port"
    with pytest.raises(errors.InvalidInput):
        client.deployment("nonsense")


def test_a_client_needs_an_address(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.delenv("SDP_SERVER", raising=False)
    with pytest.raises(errors.InvalidSettings, match="SDP_SERVER"):
        sdp.Client()
    for bad in ["ftp://a", "http://ada:pw@a"]:
        with pytest.raises(errors.InvalidSettings) as caught:
            sdp.Client(bad)
        assert "pw" not in str(caught.value)
    with pytest.raises(errors.InvalidSettings):
        sdp.Client("http://a", token="two words")
    with pytest.raises(errors.InvalidSettings, match="connect_timeout"):
        sdp.Client("http://a", connect_timeout=-1)
    monkeypatch.setenv("SDP_SERVER", world.platform.url)
    monkeypatch.setenv("SDP_TOKEN", world.client.token or "")
    with sdp.Client() as client:
        assert client.me().user == "ada"
        assert client.token is not None
        assert client.token not in repr(client)


def test_a_server_that_is_not_there_is_told_with_the_cure() -> None:
    with pytest.raises(errors.Unreachable, match="start sdp-server there") as caught:
        sdp.Client("http://127.0.0.1:1", retries=0).health()
    assert (caught.value.status, caught.value.retryable) == (None, True)


def test_every_public_method_says_what_it_does() -> None:
    documents = [sdp.Client, sdp.Sandbox, sdp.Deployment, sdp.Template, sdp.Environment]
    for kind in [*documents, sdp.LogFollow, sdp.OutputFollow, sdp.Changes]:
        for name, member in inspect.getmembers(kind):
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"
