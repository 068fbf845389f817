//! Sandboxes that share builds, and going back to what ran before, on real git and real programs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use sdp_core::{Deployment, DeploymentState, Stage, StageStatus, api::CreateSandbox};
use sdp_examples::{
    api::Api,
    content::{SERVICE, commit_service},
    playground::{Options, Playground, Runner},
    story,
};
use sdp_git::testing::Mood;

async fn answer(deployment: &Deployment) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(deployment.url.as_deref().unwrap()).send().await.unwrap().text().await.unwrap()
}

fn build(deployment: &Deployment) -> StageStatus {
    deployment.stages.iter().find(|record| record.stage == Stage::Build).unwrap().status
}

async fn deploy(api: &Api, sandbox: &str) -> Deployment {
    let mut told = Vec::new();
    let deployed = story::deploy(api, Some(sandbox), SERVICE, "main", &mut told).await;
    deployed.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&told)))
}

async fn roll_back(api: &Api, deployment: &Deployment) -> Deployment {
    let path = format!("/api/deployments/{}/rollback", deployment.id);
    let begun: Deployment = api.post(&path, &()).await.unwrap_or_else(|error| panic!("{error}"));
    let mut log = Vec::new();
    let ended = api.follow(begun.id, |event| log.push(event.to_string())).await.unwrap();
    assert_eq!(ended.state, DeploymentState::Running, "{log:#?}");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_built_once_for_all_sandboxes_and_again_for_no_rollback() {
    let options = Options::new(Runner::Process);
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let api = playground.sign_in().await.unwrap();
    for name in ["one", "two"] {
        let create = CreateSandbox::new(name.parse().unwrap());
        api.post::<_, serde_json::Value>("/api/sandboxes", &create).await.unwrap();
    }
    let good = deploy(&api, "one").await;
    let other = deploy(&api, "two").await;
    assert_eq!((build(&good), build(&other)), (StageStatus::Done, StageStatus::Skipped));
    let said = answer(&good).await;
    assert_eq!(answer(&other).await, said);

    commit_service(playground.git(), SERVICE, "main", "Prices with a mistake").await.unwrap();
    let bad = deploy(&api, "one").await;
    assert_eq!(build(&bad), StageStatus::Done);
    assert!(answer(&bad).await.contains("mistake"));

    // The git host is not needed for it.
    playground.git().set_mood(Mood::Broken);
    let back = roll_back(&api, &bad).await;
    assert_eq!((back.rollback_of, &back.commit), (Some(good.id), &good.commit));
    assert_ne!(back.host_port, bad.host_port, "both serve for a while");
    assert_eq!((build(&back), answer(&back).await), (StageStatus::Skipped, said.clone()));
    assert_eq!(api.deployment(bad.id).await.unwrap().state, DeploymentState::Superseded);
    assert_eq!(answer(&other).await, said, "the other sandbox has not noticed");

    // Forward again by name, and back; and the next deployment of the branch is of its tip.
    let forward = roll_back(&api, &bad).await;
    assert_eq!((build(&forward), &forward.commit), (StageStatus::Skipped, &bad.commit));
    roll_back(&api, &good).await;
    playground.git().set_mood(Mood::Good);
    let next = deploy(&api, "one").await;
    assert_eq!((next.rollback_of, &next.commit, build(&next)), (None, &bad.commit, StageStatus::Skipped));
    playground.shutdown().await.unwrap();
}
