//! The addresses that sandboxes' networks are made from.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::Deserialize;

/// The prefix length of one sandbox's network: room for 29 instances beside the gateway.
const EACH: u8 = 27;

/// A range of IPv4 addresses, written `10.231.0.0/19`. Each sandbox's network takes 32 of them:
/// Docker's own choice would be exhausted after some thirty networks.
///
/// ```
/// let pool: sdp_docker::NetworkPool = "10.231.0.0/19".parse()?;
/// assert_eq!(pool, sdp_docker::NetworkPool::default());
/// assert_eq!(pool.networks(), 256);
/// # Ok::<(), sdp_docker::InvalidNetworkPool>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NetworkPool(Subnet);

/// A text that is not a range of addresses for sandboxes' networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pool of networks: write an IPv4 range of 32 addresses or more, such as \"10.231.0.0/19\"")]
pub struct InvalidNetworkPool(String);

impl Default for NetworkPool {
    fn default() -> Self {
        Self(Subnet { address: u32::from(Ipv4Addr::new(10, 231, 0, 0)), prefix: 19 })
    }
}

impl NetworkPool {
    /// How many networks it has room for.
    pub fn networks(&self) -> usize {
        1 << (EACH - self.0.prefix)
    }

    /// Those of its networks that overlap none of `taken`. Which comes first depends on `name`, so
    /// that whoever makes a network of that name tries the same one first.
    pub(crate) fn free<'a>(&self, name: &str, taken: &'a [Subnet]) -> impl Iterator<Item = Subnet> + use<'a> {
        let (first, count) = (self.0.address, self.networks());
        // FNV-1a: any spread will do, but it must stay the same.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let places = (0..count).map(move |step| (hash as usize + step) % count);
        let subnets =
            places.map(move |place| Subnet { address: first + ((place as u32) << (32 - EACH)), prefix: EACH });
        subnets.filter(|subnet| !taken.iter().any(|other| other.overlaps(subnet)))
    }
}

impl FromStr for NetworkPool {
    type Err = InvalidNetworkPool;

    fn from_str(text: &str) -> Result<Self, InvalidNetworkPool> {
        let subnet: Option<Subnet> = text.parse().ok();
        let pool = subnet.filter(|subnet| (8..=EACH).contains(&subnet.prefix) && subnet.is_whole());
        pool.map(Self).ok_or_else(|| InvalidNetworkPool(text.to_owned()))
    }
}

impl TryFrom<String> for NetworkPool {
    type Error = InvalidNetworkPool;

    fn try_from(text: String) -> Result<Self, InvalidNetworkPool> {
        text.parse()
    }
}

impl fmt::Display for NetworkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    address: u32,
    prefix: u8,
}

impl Subnet {
    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    /// Whether no bit after the prefix is set.
    fn is_whole(self) -> bool {
        self.address & !Self::mask(self.prefix) == 0
    }

    fn overlaps(&self, other: &Self) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.address & mask == other.address & mask
    }

    /// What this machine reaches directly, from the kernel's table of routes, but for the engine's own
    /// bridges: it knows them better, and they are there before it tells of them.
    pub(crate) fn of_links(table: &str) -> Vec<Self> {
        let of_line = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let number = |at: usize| fields.get(at).and_then(|field| u32::from_str_radix(field, 16).ok());
            // In the byte order of the network, read as one of the machine.
            let (address, gateway, mask) = (number(1)?.swap_bytes(), number(2)?, number(7)?.swap_bytes());
            let prefix = u8::try_from(mask.leading_ones()).ok()?;
            let is_link = gateway == 0 && prefix > 0 && !fields[0].starts_with("br-");
            is_link.then_some(Self { address, prefix })
        };
        table.lines().filter_map(of_line).collect()
    }
}

impl FromStr for Subnet {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address: Ipv4Addr = address.parse().map_err(|_| ())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or(())?;
        Ok(Self { address: address.into(), prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_ranges_that_have_room_for_a_network_are_pools() {
        for text in ["10.231.0.0/19", "10.0.0.0/8", "192.168.7.64/27"] {
            assert_eq!(text.parse::<NetworkPool>().unwrap().to_string(), text);
        }
        for text in
            ["", "10.231.0.0", "10.231.0.1/19", "10.231.0.0/28", "0.0.0.0/0", "10.231.0.0/33", "fd00::/64", "x/8"]
        {
            let error = text.parse::<NetworkPool>().unwrap_err().to_string();
            assert!(error.contains("10.231.0.0/19"), "{error}");
        }
    }

    #[test]
    fn a_pools_networks_are_all_given_out_and_none_that_is_taken() {
        let pool: NetworkPool = "10.231.0.0/25".parse().unwrap();
        let free = |name: &str, taken: &[&str]| {
            let mut free: Vec<_> = pool.free(name, &subnets(taken)).map(|subnet| subnet.to_string()).collect();
            free.sort();
            free
        };
        assert_eq!(free("pay", &[]), ["10.231.0.0/27", "10.231.0.32/27", "10.231.0.64/27", "10.231.0.96/27"]);
        assert_eq!(free("pay", &["10.231.0.40/30", "10.231.0.64/26", "172.17.0.0/16"]), ["10.231.0.0/27"]);
        assert!(free("pay", &["10.0.0.0/8"]).is_empty());
    }

    #[test]
    fn one_name_begins_at_one_place_and_names_are_spread() {
        let pool = NetworkPool::default();
        let first = |name: &str| pool.free(name, &[]).next().unwrap().to_string();
        assert_eq!(first("sdp-pay"), first("sdp-pay"));
        let firsts: std::collections::BTreeSet<_> = (0..100).map(|at| first(&format!("sdp-s{at}"))).collect();
        assert!(firsts.len() > 50, "{}", firsts.len());
    }

    #[test]
    fn what_the_machine_reaches_directly_is_read_from_the_kernels_table() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            br-6f2\t0000E70A\t00000000\t0001\t0\t0\t0\tE0FFFFFF\t0\t0\t0\n\
            eth0\t0000000A\t0100A8C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n";
        assert_eq!(Subnet::of_links(table), subnets(&["192.168.0.0/24"]));
    }
}
