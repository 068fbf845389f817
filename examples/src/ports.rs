//! Ports of one playground's own, so that several can run on one machine.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::RangeInclusive,
};

use crate::Failed;

/// Blocks lie below the ports that the system gives to outgoing connections.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 50;
const BLOCKS: u16 = 200;

/// A block of ports, kept from other playgrounds for as long as this lives.
#[derive(Debug)]
pub struct PortBlock {
    base: u16,
    /// Whoever listens on the block's first port owns the block.
    _held: TcpListener,
}

impl PortBlock {
    /// The first block that nobody has.
    ///
    /// # Errors
    /// When all are taken.
    pub fn take() -> Result<Self, Failed> {
        let blocks = (0..BLOCKS).map(|block| FIRST + block * BLOCK);
        let mut free = blocks.filter_map(|base| {
            let held = TcpListener::bind((Ipv4Addr::LOCALHOST, base)).ok()?;
            Some(Self { base, _held: held })
        });
        free.next().ok_or_else(|| Failed("every block of ports is taken by another playground".into()))
    }

    /// For the gateway, and after it those that sandboxes bring.
    pub fn gateways(&self) -> RangeInclusive<u16> {
        self.base + 1..=self.base + 4
    }

    /// For what is deployed beside it.
    pub fn services(&self) -> RangeInclusive<u16> {
        self.base + 5..=self.base + 41
    }

    /// For the stable cluster.
    pub fn stable(&self) -> RangeInclusive<u16> {
        self.base + 42..=self.base + BLOCK - 2
    }

    /// For the control plane.
    pub fn server(&self) -> u16 {
        self.base + BLOCK - 1
    }
}
