//! An engine that is restarted between two calls, or during one.

use std::time::Duration;

use sdp_core::{Deployer, InstanceState, Probe, testing::conformance::deployer::Program};
use sdp_docker::{DockerDeployer, testing::Stop};

use crate::support::{Jobs, config, private_engine};

#[test]
fn what_ran_comes_back_with_its_engine_and_what_a_person_stopped_does_not() {
    let engine = private_engine();
    engine.run(async || {
        let jobs = Jobs::new(DockerDeployer::connect(config(&engine, "back")).await.unwrap(), "/bin/busybox");
        let (runs, stopped) = (jobs.make("one", Program::Healthy), jobs.make("two", Program::Healthy));
        for job in [&runs, &stopped] {
            let replacement = jobs.start(job).await.unwrap();
            jobs.deployer.settle(&replacement).await.unwrap();
        }
        jobs.deployer.stop(&stopped.key).await.unwrap();
        for how in [Stop::Gracefully, Stop::Abruptly] {
            tokio::task::block_in_place(|| engine.stop(how).and_then(|()| engine.resume())).unwrap();
            let instance = jobs.deployer.inspect(&runs.key).await.unwrap();
            assert_eq!(jobs.becomes(&instance, &runs).await, Probe::Healthy, "{how:?}");
            let state = jobs.deployer.inspect(&stopped.key).await.unwrap().state;
            assert!(matches!(state, InstanceState::Exited { .. }), "{how:?}: {state:?}");
        }
        jobs.deployer.restart(&stopped.key).await.unwrap();
        tokio::task::block_in_place(|| engine.stop(Stop::Abruptly).and_then(|()| engine.resume())).unwrap();
        let instance = jobs.deployer.inspect(&stopped.key).await.unwrap();
        assert_eq!(jobs.becomes(&instance, &stopped).await, Probe::Healthy, "it is not stopped any more");
    });
}

#[test]
fn calls_wait_for_an_engine_that_comes_back_and_name_one_that_does_not() {
    let engine = private_engine();
    engine.run(async || {
        let patient = Jobs::new(DockerDeployer::connect(config(&engine, "waits")).await.unwrap(), "/bin/busybox");
        let mut config = config(&engine, "waits");
        config.patience = Duration::from_millis(50);
        let hasty = DockerDeployer::connect(config).await.unwrap();
        let job = patient.make("one", Program::Healthy);
        engine.stop(Stop::Abruptly).unwrap();
        let error = sdp_core::problem::chain(&hasty.list().await.unwrap_err());
        assert!(error.contains("the container engine does not answer") && error.contains("start it"), "{error}");

        let resume = async {
            // So that the call meets the absence.
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| engine.resume()).unwrap();
        };
        let started = tokio::join!(patient.start(&job), resume).0.unwrap();
        assert_eq!(patient.becomes(&started.current, &job).await, Probe::Healthy);
        assert_eq!(patient.deployer.list().await.unwrap().len(), 1);
    });
}
