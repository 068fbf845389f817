//! What a deployment's log must say once it has ended.

use sdp_core::{Deployment, DeploymentState, Event, EventKind, LogStream};

/// How many lines the build prints, one every 20 ms.
pub const LINES: usize = 40;

/// Judges a deployment that has ended by its log.
pub fn judge(deployment: &Deployment, events: &[Event], complain: &mut impl FnMut(String)) {
    for (place, event) in (1..).zip(events) {
        if event.seq != place {
            return complain(format!("event {} stands where {place} was expected", event.seq));
        }
    }
    let mut state = DeploymentState::Queued;
    let mut lines = Vec::new();
    for event in events {
        match &event.kind {
            EventKind::State { state: next, .. } => {
                if *next != state && !state.can_become(*next) {
                    complain(format!("{state} became {next}"));
                }
                state = *next;
            }
            EventKind::Log { stream: LogStream::Stdout, line, .. } => lines.push(line.as_str()),
            _ => {}
        }
    }
    if !events.is_empty() && state != deployment.state {
        complain(format!("the log ends with {state}, the database says {}", deployment.state));
    }
    let whole: Vec<_> = (1..=LINES).map(|n| format!("line {n}")).collect();
    let as_expected = match deployment.state {
        DeploymentState::Running => lines == whole,
        _ => lines.len() <= LINES && lines == whole[..lines.len()],
    };
    if !as_expected {
        complain(format!("{} of the build's {LINES} lines, or in another order", lines.len()));
    }
    if deployment.state == DeploymentState::Failed && deployment.failure.as_ref().is_none_or(|it| it.reason.is_empty())
    {
        complain("it failed and does not say why".into());
    }
}

#[cfg(test)]
mod tests {
    use sdp_core::DeploymentId;

    use super::*;

    fn event(seq: u64, kind: EventKind) -> Event {
        serde_json::from_value(serde_json::json!({"seq": seq, "at": "2026-01-02T03:04:05Z", "type": "weather"}))
            .map(|event: Event| Event { kind, ..event })
            .unwrap()
    }

    fn complaints(state: &str, events: &[Event]) -> Vec<String> {
        let deployment = serde_json::json!({
            "id": DeploymentId::new(), "repo": "slow", "branch": "main", "agent": "micro", "state": state,
            "user": "ada", "created_at": "2026-01-02T03:04:05Z", "stages": []
        });
        let mut complaints = Vec::new();
        judge(&serde_json::from_value(deployment).unwrap(), events, &mut |what| complaints.push(what));
        complaints
    }

    #[test]
    fn what_must_not_happen_is_complained_of() {
        let state = |seq, state| event(seq, EventKind::state(state));
        let (queued, source) = (DeploymentState::Queued, DeploymentState::Source);
        assert!(complaints("source", &[state(1, queued), state(2, source)]).is_empty());
        for (ended, events) in [
            ("source", vec![state(1, queued), state(3, source)]),
            ("queued", vec![state(1, source), state(2, queued)]),
            ("build", vec![state(1, source)]),
            ("running", vec![state(1, DeploymentState::Running)]),
            ("failed", vec![]),
        ] {
            assert!(!complaints(ended, &events).is_empty(), "{ended} {events:?}");
        }
    }
}
