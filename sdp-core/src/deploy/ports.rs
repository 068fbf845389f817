//! Host ports: chosen by a person or picked from a range, and held while a deployment is on its way.

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    deployer::DeployError,
    model::{
        ids::{HostPort, InstanceKey, PortRange},
        instance::Instance,
    },
};

/// Which port a deployment would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWish {
    /// This one, which a person asked for.
    This(HostPort),
    /// The one that its running instance has, or a free one of the range.
    Same,
    /// A free one of the range, so that its running instance can serve on until the new one does; the
    /// same when there is none.
    Another,
}

/// What is picked from where no port is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PortPick<'a> {
    /// The one that was picked already, which is taken if nobody has it.
    pub port: Option<HostPort>,
    /// Where another is picked from; the pool's range when none is given.
    pub range: Option<&'a PortRange>,
}

/// The host ports of one agent. Leases make sure that two deployments under way never mean the
/// same port; what already runs is told by the deployer's list.
#[derive(Debug)]
pub struct PortPool {
    range: RangeInclusive<u16>,
    publish: IpAddr,
    leases: Mutex<BTreeMap<HostPort, InstanceKey>>,
}

impl PortPool {
    /// A pool that picks from `range`, for ports published on `publish`.
    pub fn new(range: RangeInclusive<u16>, publish: IpAddr) -> Self {
        Self { range, publish, leases: Mutex::default() }
    }

    /// Leases a port for `key`.
    ///
    /// # Errors
    /// [`DeployError::PortTaken`] names the holder of the one wished for; [`DeployError::NoFreePort`].
    pub fn lease(
        self: &Arc<Self>,
        key: &InstanceKey,
        wish: PortWish,
        pick: PortPick<'_>,
        running: &[Instance],
    ) -> Result<PortLease, DeployError> {
        let picked = pick.port;
        let range = pick.range.map_or(&self.range, |range| &range.0);
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = |port: HostPort| {
            let under_way = leases.get(&port).map(|key| format!("a deployment of {key} that is under way"));
            let runs = running.iter().find(|instance| instance.host_port == port && instance.key != *key);
            under_way.or_else(|| runs.map(|instance| format!("{} ({})", instance.key, instance.name)))
        };
        let own = running.iter().find(|instance| instance.key == *key && !instance.parked);
        let own = own.map(|instance| instance.host_port);
        // Its own instance has it bound, and gives it up in time.
        let free = |port: &HostPort| holder(*port).is_none() && (Some(*port) == own || self.can_bind(*port));
        let others = |port: &HostPort| free(port) && !running.iter().any(|it| it.key == *key && it.host_port == *port);
        let mut ports = range.clone().filter_map(|port| HostPort::new(port).ok());
        let port = match wish {
            PortWish::This(port) => match holder(port) {
                Some(holder) => return Err(DeployError::PortTaken { port, holder }),
                None => Some(port),
            },
            // Who picked another one wants both to serve for a while: if not there, then elsewhere.
            PortWish::Same if own.is_none() || picked.is_none() || picked == own => {
                picked.filter(free).or(own.filter(free)).or_else(|| ports.find(free))
            }
            PortWish::Same | PortWish::Another => {
                picked.filter(others).or_else(|| ports.find(others)).or(own.filter(|port| holder(*port).is_none()))
            }
        };
        let none = || DeployError::NoFreePort { first: *range.start(), last: *range.end() };
        let port = port.ok_or_else(none)?;
        leases.insert(port, key.clone());
        Ok(PortLease { pool: Arc::clone(self), port })
    }

    fn can_bind(&self, port: HostPort) -> bool {
        TcpListener::bind((self.publish, port.get())).is_ok()
    }
}

/// A port that no other deployment gets while this value lives.
#[derive(Debug)]
pub struct PortLease {
    pool: Arc<PortPool>,
    port: HostPort,
}

impl PortLease {
    /// The port.
    pub fn port(&self) -> HostPort {
        self.port
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.pool.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn key(repo: &str) -> InstanceKey {
        InstanceKey::quick(repo.parse().unwrap())
    }

    /// A pool over three consecutive ports that were free a moment ago.
    fn pool() -> (Arc<PortPool>, u16) {
        let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
        let first = (20_000..60_000)
            .step_by(7)
            .find(|first| (*first..first + 3).all(|port| TcpListener::bind((localhost, port)).is_ok()))
            .unwrap();
        (Arc::new(PortPool::new(first..=first + 2, localhost)), first)
    }

    #[test]
    fn a_lease_keeps_others_off_until_it_is_dropped() {
        let (pool, first) = pool();
        let port = HostPort::new(first).unwrap();
        let lease = pool.lease(&key("a"), PortWish::This(port), PortPick::default(), &[]).unwrap();
        let error = pool.lease(&key("b"), PortWish::This(port), PortPick::default(), &[]).unwrap_err();
        assert!(error.to_string().contains("a deployment of a that is under way"), "{error}");
        drop(lease);
        assert_eq!(pool.lease(&key("b"), PortWish::This(port), PortPick::default(), &[]).unwrap().port(), port);
    }

    #[test]
    fn picking_skips_what_is_leased_or_bound_and_says_when_nothing_is_left() {
        let (pool, first) = pool();
        let bound = TcpListener::bind(("127.0.0.1", first + 1)).unwrap();
        let one = pool.lease(&key("a"), PortWish::Same, PortPick::default(), &[]).unwrap();
        let two = pool.lease(&key("b"), PortWish::Another, PortPick::default(), &[]).unwrap();
        assert_eq!((one.port().get(), two.port().get()), (first, first + 2));
        let error = pool.lease(&key("c"), PortWish::Same, PortPick::default(), &[]).unwrap_err();
        assert!(matches!(error, DeployError::NoFreePort { .. }), "{error}");
        drop(bound);
    }

    #[test]
    fn a_picked_port_is_taken_unless_a_stranger_has_it() {
        let (pool, first) = pool();
        let port = |more: u16| HostPort::new(first + more).unwrap();
        let pick = PortPick { port: Some(port(2)), range: None };
        assert_eq!(pool.lease(&key("a"), PortWish::Same, pick, &[]).unwrap().port(), port(2));
        let stranger = TcpListener::bind(("127.0.0.1", first + 2)).unwrap();
        assert_eq!(pool.lease(&key("a"), PortWish::Same, pick, &[]).unwrap().port(), port(0));
        let range = PortRange(first + 1..=first + 2);
        let pick = PortPick { range: Some(&range), ..pick };
        assert_eq!(pool.lease(&key("a"), PortWish::Same, pick, &[]).unwrap().port(), port(1), "of where it was picked");
        drop(stranger);
    }
}
