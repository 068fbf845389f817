//! Services of a real swarm of one node.

use std::net::TcpListener;

use sdp_core::{
    DeployError, Deployer, HostPort, InstanceState, Probe,
    testing::conformance::deployer::{Program, suite},
};
use sdp_docker::{
    SwarmConfig, SwarmDeployer,
    testing::{PrivateEngine, Stop},
};

use crate::support::{Jobs, docker, private_engine};

/// An engine that is a swarm of its own.
fn swarm() -> PrivateEngine {
    let engine = private_engine();
    docker(&engine, &["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    engine
}

fn config(engine: &PrivateEngine, owner: &str) -> SwarmConfig {
    let stop_timeout = std::time::Duration::from_secs(1);
    SwarmConfig { socket: engine.socket(), stop_timeout, ..SwarmConfig::new(owner) }
}

async fn jobs(engine: &PrivateEngine, owner: &str) -> Jobs<SwarmDeployer> {
    Jobs::new(SwarmDeployer::connect(config(engine, owner)).await.unwrap(), "/bin/busybox")
}

#[test]
fn services_keep_the_contract() {
    let engine = swarm();
    engine.run(async || suite(&jobs(&engine, "contract").await).await);
}

#[test]
fn a_service_has_the_constraints_limits_and_port_that_were_asked_for_and_its_image_by_id() {
    let engine = swarm();
    let node = docker(&engine, &["info", "-f", "{{.Swarm.NodeID}}"]);
    docker(&engine, &["node", "update", "--label-add", "sdp=yes", &node]);
    engine.run(async || {
        let config = SwarmConfig { constraints: vec!["node.labels.sdp==yes".into()], ..config(&engine, "spec") };
        let jobs = Jobs::new(SwarmDeployer::connect(config).await.unwrap(), "/bin/busybox");
        let mut job = jobs.make("one", Program::Healthy);
        job.repo.limits = serde_json::from_value(serde_json::json!({"cpus": 0.5, "memory_mib": 64})).unwrap();
        let replacement = jobs.start(&job).await.unwrap();
        assert_eq!(jobs.becomes(&replacement.current, &job).await, Probe::Healthy);
        assert!(replacement.current.name.starts_with("sdp-one-"), "{}", replacement.current.name);
        assert_eq!(replacement.current.host, None, "it runs here");
        let inspected = docker(&engine, &["service", "inspect", &replacement.current.id]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let (spec, task) = (&inspected[0]["Spec"], &inspected[0]["Spec"]["TaskTemplate"]);
        assert_eq!(spec["Labels"]["sdp.repo"], "one");
        assert_eq!(task["Placement"]["Constraints"], serde_json::json!(["node.labels.sdp==yes"]));
        let limits = &task["Resources"]["Limits"];
        assert_eq!((&limits["NanoCPUs"], &limits["MemoryBytes"]), (&500_000_000.into(), &(64u64 << 20).into()));
        // A name would be looked up in a registry by each node.
        assert!(task["ContainerSpec"]["Image"].as_str().unwrap().starts_with("sha256:"));
        let port = &spec["EndpointSpec"]["Ports"][0];
        assert_eq!((&port["PublishMode"], &port["TargetPort"]), (&"host".into(), &8000.into()));
        assert_eq!(port["PublishedPort"], job.host_port.get());
    });
}

#[test]
fn what_a_swarm_cannot_run_is_refused_with_the_reason_and_what_served_serves_on() {
    let engine = swarm();
    engine.run(async || {
        let here = jobs(&engine, "refused").await;
        let good = here.make("one", Program::Healthy);
        let replacement = here.start(&good).await.unwrap();
        assert_eq!(here.becomes(&replacement.current, &good).await, Probe::Healthy);
        here.deployer.settle(&replacement).await.unwrap();

        let mut missing = here.make("one", Program::Healthy);
        missing.repo.image = Some("no/such-image:1".into());
        let error = here.start(&missing).await.unwrap_err();
        assert!(matches!(&error, DeployError::ImageMissing { .. }), "{error}");

        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let mut taken = here.make("two", Program::Healthy);
        taken.host_port = HostPort::new(listener.local_addr().unwrap().port()).unwrap();
        let error = here.start(&taken).await.unwrap_err();
        assert!(matches!(&error, DeployError::PortTaken { .. }), "{error}");

        let constraints = vec!["node.labels.nowhere==yes".into()];
        let nowhere = SwarmConfig { constraints, ..config(&engine, "refused") };
        let nowhere = Jobs::new(SwarmDeployer::connect(nowhere).await.unwrap(), "/bin/busybox");
        let mut unplaced = nowhere.make("one", Program::Healthy);
        unplaced.host_port = good.host_port;
        let error = sdp_core::problem::chain(&nowhere.start(&unplaced).await.unwrap_err());
        assert!(error.contains("no suitable node"), "{error}");

        let instance = here.deployer.inspect(&good.key).await.unwrap();
        assert_eq!(instance.deployment, good.deployment);
        assert_eq!(here.becomes(&instance, &good).await, Probe::Healthy);
        assert_eq!(here.deployer.list().await.unwrap().len(), 1);
    });
}

#[test]
fn services_come_back_with_their_engine_but_those_that_were_stopped() {
    let engine = swarm();
    engine.run(async || {
        let jobs = jobs(&engine, "back").await;
        let (runs, stopped) = (jobs.make("one", Program::Healthy), jobs.make("two", Program::Healthy));
        for job in [&runs, &stopped] {
            let replacement = jobs.start(job).await.unwrap();
            jobs.deployer.settle(&replacement).await.unwrap();
        }
        jobs.deployer.stop(&stopped.key).await.unwrap();
        tokio::task::block_in_place(|| engine.stop(Stop::Gracefully).and_then(|()| engine.resume())).unwrap();
        let instance = jobs.deployer.inspect(&runs.key).await.unwrap();
        assert_eq!(jobs.becomes(&instance, &runs).await, Probe::Healthy);
        let state = jobs.deployer.inspect(&stopped.key).await.unwrap().state;
        assert!(matches!(state, InstanceState::Exited { .. }), "{state:?}");
    });
}

#[test]
fn an_engine_that_manages_no_swarm_is_refused_with_the_cure() {
    let engine = private_engine();
    engine.run(async || {
        let error = SwarmDeployer::connect(config(&engine, "none")).await.unwrap_err();
        assert!(sdp_core::problem::chain(&error).contains("docker swarm init"), "{error}");
    });
}
