//! Who may change what: changes worked out on the overrides there are. Pure; every [`RouteStore`](crate::RouteStore)
//! decides by it, and adds only what its gateway's file allows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    model::{
        names::{SandboxName, ServiceName},
        route::{Override, RequestRoutes, RouteChanges, TakenRoute},
    },
    routes::RouteError,
};

/// All that SDP adds to a gateway's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// For every request, by service.
    pub overrides: BTreeMap<ServiceName, Override>,
    /// For the requests of each sandbox.
    pub requests: BTreeMap<SandboxName, RequestRoutes>,
}

/// A change, worked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Everything afterwards.
    pub claims: Claims,
    /// What other sandboxes lost by it.
    pub taken: Vec<TakenRoute>,
    /// The services whose override the change is about.
    pub services: BTreeSet<ServiceName>,
}

impl Claims {
    /// Works out `changes` at the time `now`.
    ///
    /// # Errors
    /// [`RouteError::Claimed`], [`RouteError::NotOwner`], [`RouteError::ForeignKey`].
    pub fn changed(&self, changes: &RouteChanges, now: Timestamp) -> Result<Changed, RouteError> {
        let mut change = Changed { claims: self.clone(), ..Changed::default() };
        if changes.clear_expired {
            let expired = self.overrides.iter().filter(|(_, held)| held.is_expired(now));
            expired.for_each(|(service, _)| change.set(changes, service, None, now));
        }
        for sandbox in &changes.clear {
            own(changes, sandbox)?;
            let held = self.overrides.iter().filter(|(_, held)| held.owner == *sandbox);
            held.for_each(|(service, _)| change.set(changes, service, None, now));
            change.claims.requests.remove(sandbox);
        }
        for (service, target) in &changes.services {
            let held = change.claims.overrides.get(service);
            if let Some(held) = held.filter(|held| !held.is_expired(now))
                && !changes.takeover
                && changes.by.as_ref() != Some(&held.owner)
            {
                return Err(RouteError::Claimed {
                    service: service.clone(),
                    holder: held.owner.clone(),
                    reason: held.reason.clone(),
                    expires_at: held.expires_at,
                });
            }
            change.set(changes, service, target.clone(), now);
        }
        for (sandbox, routes) in &changes.requests {
            own(changes, sandbox)?;
            match routes {
                Some(routes) if routes.key.sandbox() != *sandbox => {
                    return Err(RouteError::ForeignKey { sandbox: sandbox.clone(), key: routes.key.clone() });
                }
                Some(routes) => change.claims.requests.insert(sandbox.clone(), routes.clone()),
                None => change.claims.requests.remove(sandbox),
            };
        }
        Ok(change)
    }
}

/// Whether `changes` may touch all that `sandbox` has.
fn own(changes: &RouteChanges, sandbox: &SandboxName) -> Result<(), RouteError> {
    if changes.takeover || changes.by.as_ref() == Some(sandbox) {
        return Ok(());
    }
    Err(RouteError::NotOwner { sandbox: sandbox.clone() })
}

impl Changed {
    fn set(&mut self, changes: &RouteChanges, service: &ServiceName, target: Option<Override>, now: Timestamp) {
        self.services.insert(service.clone());
        let was = self.claims.overrides.remove(service);
        let owner = target.as_ref().map(|target| &target.owner).or(changes.by.as_ref());
        let mut since = None;
        if let Some(was) = was {
            let expired = was.is_expired(now);
            if owner == Some(&was.owner) {
                since = Some(was.since).filter(|since| !expired && *since != Timestamp::UNIX_EPOCH);
            } else {
                self.taken.push(TakenRoute { service: service.clone(), was, expired });
            }
        }
        if let Some(mut target) = target {
            target.since = since.unwrap_or(target.since);
            if target.since == Timestamp::UNIX_EPOCH {
                target.since = now;
            }
            self.claims.overrides.insert(service.clone(), target);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::route::OverrideKind;

    const START: Timestamp = Timestamp::constant(1_767_225_600, 0);

    fn after(seconds: u64) -> Timestamp {
        START.saturating_add(Duration::from_secs(seconds)).unwrap()
    }

    fn set(by: &str, service: &str, expires_at: Option<Timestamp>) -> RouteChanges {
        let url = "http://127.0.0.1:9".parse().unwrap();
        let mut over = Override::new(url, OverrideKind::Sandbox, by.parse().unwrap());
        over.expires_at = expires_at;
        let services = [(service.parse().unwrap(), Some(over))].into();
        RouteChanges { services, by: Some(by.parse().unwrap()), ..RouteChanges::default() }
    }

    fn held() -> Claims {
        let claims = Claims::default().changed(&set("pay", "eredar", Some(after(60))), START).unwrap().claims;
        claims.changed(&set("pay", "thrall", None), START).unwrap().claims
    }

    #[test]
    fn a_claim_holds_until_its_last_second_and_then_keeps_nobody_off() {
        let take = set("ship", "eredar", None);
        assert!(matches!(held().changed(&take, after(59)), Err(RouteError::Claimed { .. })));
        let changed = held().changed(&take, after(60)).unwrap();
        assert_eq!(changed.taken[0].was.owner.as_str(), "pay");
        assert!(changed.taken[0].expired);
    }

    #[test]
    fn the_same_owner_keeps_the_start_of_its_claim_and_loses_nothing() {
        let changed = held().changed(&set("pay", "eredar", None), after(5)).unwrap();
        assert_eq!(changed.claims.overrides[&"eredar".parse().unwrap()].since, START);
        assert!(changed.taken.is_empty());
        // After its end it is a claim of a new start.
        let changed = held().changed(&set("pay", "eredar", None), after(90)).unwrap();
        assert_eq!(changed.claims.overrides[&"eredar".parse().unwrap()].since, after(90));
    }

    #[test]
    fn expired_claims_go_together_and_are_told() {
        let clear = RouteChanges { clear_expired: true, ..RouteChanges::default() };
        assert_eq!(held().changed(&clear, after(59)).unwrap().claims, held());
        let changed = held().changed(&clear, after(61)).unwrap();
        let left: Vec<_> = changed.claims.overrides.keys().map(ServiceName::as_str).collect();
        assert_eq!((left, changed.taken.len()), (vec!["thrall"], 1));
    }

    #[test]
    fn what_is_cleared_first_is_free_for_the_rest_of_the_same_change() {
        let change = RouteChanges { clear_expired: true, ..set("ship", "eredar", None) };
        let changed = held().changed(&change, after(61)).unwrap();
        assert_eq!(changed.claims.overrides[&"eredar".parse().unwrap()].owner.as_str(), "ship");
        assert_eq!(changed.taken.len(), 1);
    }

    proptest! {
        #[test]
        fn nobody_loses_a_claim_that_lasts_but_by_its_owner_or_a_takeover_and_every_loss_is_told(
            steps in prop::collection::vec(
                (0usize..3, 0usize..3, prop::option::of(prop::option::of(0u64..90)), any::<bool>(), 0u64..40, 0u8..8), 1..40,
            )
        ) {
            let names = ["pay", "ship", "mail"];
            let (mut claims, mut now) = (Claims::default(), 0);
            for (by, service, target, takeover, passed, kind) in steps {
                now += passed;
                let mut change = match target {
                    Some(end) => set(names[by], ["a", "b", "c"][service], end.map(|end| after(now + end))),
                    None => RouteChanges { by: Some(names[by].parse().unwrap()), ..RouteChanges::default() },
                };
                change.takeover = takeover;
                change.clear_expired = kind == 0;
                if kind == 1 {
                    change.clear.insert(names[service].parse().unwrap());
                }
                let Ok(changed) = claims.changed(&change, after(now)) else { continue };
                let lost: Vec<_> = claims
                    .overrides
                    .iter()
                    .filter(|(service, was)| {
                        let is = changed.claims.overrides.get(*service);
                        is.is_none_or(|is| is.owner != was.owner) && change.by.as_ref() != Some(&was.owner)
                    })
                    .collect();
                let told: Vec<_> = changed.taken.iter().map(|taken| (&taken.service, &taken.was)).collect();
                for (service, was) in &lost {
                    prop_assert!(takeover || was.is_expired(after(now)), "{service} was taken from {}", was.owner);
                    prop_assert!(told.contains(&(*service, *was)), "{service}: {told:?}");
                }
                // What the asker gives up itself is no loss.
                prop_assert!(told.iter().all(|(_, was)| change.by.as_ref() != Some(&was.owner)), "{told:?}");
                claims = changed.claims;
            }
        }
    }
}
