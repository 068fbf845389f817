//! A network for each sandbox.

use sdp_core::{
    DeployError, DeployJob, Deployer, HealthProbe, Instance, Probe, testing::conformance::deployer::Program,
};
use sdp_docker::{DockerConfig, DockerDeployer, testing::PrivateEngine};

use crate::support::{Jobs, config, docker, private_engine};

async fn jobs(engine: &PrivateEngine, owner: &str) -> Jobs<DockerDeployer> {
    Jobs::new(DockerDeployer::connect(config(engine, owner)).await.unwrap(), "/bin/busybox")
}

/// The names of the networks that sandboxes have.
fn networks(engine: &PrivateEngine) -> Vec<String> {
    let filter = ["network", "ls", "--filter", "label=sdp.sandbox", "--format", "{{.Name}}"];
    let mut names: Vec<_> = docker(engine, &filter).lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Whether an instance finds another by this name, and is answered by it. The image's programs cannot
/// look up names for themselves.
async fn finds(deployer: &DockerDeployer, instance: &Instance, name: &str) -> bool {
    let script = "address=$(timeout 3 nslookup -type=a $0 127.0.0.11 | sed -n '/^Name/,$s/^Address: //p' | head -n 1) && \
        [ -n \"$address\" ] && wget -q -O - http://$address:8000/";
    let command = ["sh", "-c", script, name].map(str::to_owned).to_vec();
    deployer.probe(instance, &HealthProbe::Command(command)).await.unwrap() == Probe::Healthy
}

async fn run(jobs: &Jobs<DockerDeployer>, job: &DeployJob) -> Instance {
    let replacement = jobs.start(job).await.unwrap_or_else(|error| panic!("{}", sdp_core::problem::chain(&error)));
    assert_eq!(jobs.becomes(&replacement.current, job).await, Probe::Healthy);
    jobs.deployer.settle(&replacement).await.unwrap();
    replacement.current
}

#[test]
fn instances_of_a_sandbox_find_each_other_by_repo_and_service_and_no_other_sandboxs() {
    let engine = private_engine();
    engine.run(async || {
        let jobs = jobs(&engine, "names").await;
        let mut served = jobs.in_sandbox("pay", "one");
        served.repo.service = Some("prices".parse().unwrap());
        let one = run(&jobs, &served).await;
        let two = run(&jobs, &jobs.in_sandbox("pay", "two")).await;
        let three = run(&jobs, &jobs.in_sandbox("other", "three")).await;
        let quick = run(&jobs, &jobs.make("four", Program::Healthy)).await;
        for name in ["one", "prices", "sdp-pay-one"] {
            assert!(finds(&jobs.deployer, &two, name).await, "{name}");
        }
        for stranger in [&three, &quick] {
            assert!(!finds(&jobs.deployer, stranger, "prices").await, "{}", stranger.key);
        }
        assert!(finds(&jobs.deployer, &one, "two").await);
        assert_eq!(networks(&engine), ["sdp-other", "sdp-pay"]);
        let of_quick = docker(
            &engine,
            &["inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "sdp-four"],
        );
        assert_eq!(of_quick, "bridge");

        // A newer one is found under the same names.
        let again = run(&jobs, &served).await;
        assert_ne!(again.id, one.id);
        assert!(finds(&jobs.deployer, &two, "prices").await);

        // One that is stopped needs its network too, to be started again.
        jobs.deployer.stop(&served.key).await.unwrap();
        jobs.deployer.remove(&two.key).await.unwrap();
        assert_eq!(networks(&engine), ["sdp-other", "sdp-pay"]);
        jobs.deployer.restart(&served.key).await.unwrap();
        jobs.deployer.remove(&served.key).await.unwrap();
        assert_eq!(networks(&engine), ["sdp-other"]);
    });
}

#[test]
fn deployments_side_by_side_and_agents_on_one_engine_share_the_sandboxs_network() {
    let engine = private_engine();
    engine.run(async || {
        let (here, there) = (jobs(&engine, "here").await, jobs(&engine, "there").await);
        let of = |jobs: &Jobs<DockerDeployer>, repo: &str| jobs.in_sandbox("pay", repo);
        let (one, two, three, four) = (of(&here, "one"), of(&there, "two"), of(&here, "three"), of(&there, "four"));
        let (a, b, c, d) = tokio::join!(run(&here, &one), run(&there, &two), run(&here, &three), run(&there, &four));
        assert_eq!(networks(&engine), ["sdp-pay"]);
        assert!(finds(&here.deployer, &a, "two").await);
        assert!(finds(&there.deployer, &d, "three").await);
        tokio::try_join!(
            here.deployer.remove(&a.key),
            there.deployer.remove(&b.key),
            here.deployer.remove(&c.key),
            there.deployer.remove(&d.key)
        )
        .unwrap();
        there.deployer.remove(&d.key).await.unwrap();
        assert!(networks(&engine).is_empty());
    });
}

#[test]
fn what_a_crash_left_is_removed_and_what_is_not_ours_is_refused_and_kept() {
    let engine = private_engine();
    engine.run(async || {
        let jobs = jobs(&engine, "left").await;
        let ours = ["--label", "sdp.owner=left", "--label", "sdp.sandbox=gone"];
        let others = ["--label", "sdp.owner=other", "--label", "sdp.sandbox=busy"];
        docker(&engine, &[&["network", "create", "sdp-gone"], &ours[..]].concat());
        docker(&engine, &[&["network", "create", "sdp-busy"], &others[..]].concat());
        docker(&engine, &["network", "create", "sdp-foreign"]);
        let job = jobs.in_sandbox("pay", "one");
        jobs.start(&job).await.unwrap();
        jobs.deployer.prune().await.unwrap();
        assert_eq!(networks(&engine), ["sdp-busy", "sdp-pay"]);

        let error = jobs.start(&jobs.in_sandbox("foreign", "two")).await.unwrap_err();
        assert!(matches!(&error, DeployError::NameTaken { name, .. } if name == "sdp-foreign"), "{error}");
        docker(&engine, &["network", "inspect", "sdp-foreign"]);

        // Older engines let two networks have one name.
        let body = r#"{"Name":"sdp-pay","Labels":{"sdp.owner":"left","sdp.sandbox":"pay"}}"#;
        let socket = engine.socket();
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sf", "-H", "content-type: application/json", "-d", body]).arg("--unix-socket").arg(socket);
        assert!(curl.arg("http://engine/networks/create").output().unwrap().status.success());
        assert_eq!(networks(&engine), ["sdp-busy", "sdp-pay", "sdp-pay"]);
        run(&jobs, &jobs.in_sandbox("pay", "two")).await;
        assert_eq!(networks(&engine), ["sdp-busy", "sdp-pay"]);
    });
}

#[test]
fn an_exhausted_pool_is_told_with_its_cure_and_a_sandbox_that_goes_makes_room() {
    let engine = private_engine();
    engine.run(async || {
        let config = DockerConfig { network_pool: "10.99.0.0/26".parse().unwrap(), ..config(&engine, "full") };
        let jobs = Jobs::new(DockerDeployer::connect(config).await.unwrap(), "/bin/busybox");
        let first = run(&jobs, &jobs.in_sandbox("a", "one")).await;
        run(&jobs, &jobs.in_sandbox("b", "two")).await;
        let third = jobs.in_sandbox("c", "three");
        let error = jobs.start(&third).await.unwrap_err();
        assert!(matches!(&error, DeployError::NoFreeNetwork { networks: 2, .. }), "{error}");
        assert!(error.to_string().contains("deployer.network_pool"), "{error}");
        jobs.deployer.remove(&first.key).await.unwrap();
        run(&jobs, &third).await;
    });
}
