//! Disks that are full, fail, and forget.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::medium::Medium;

/// A file as Linux shows one: what is read comes from the cache, what a crash leaves is what was
/// synced, and what a failed sync was to write is forgotten. Clones are the same file.
///
/// ```
/// use sdp_core::{medium::Medium, testing::ForgetfulDisk};
/// let disk = ForgetfulDisk::default();
/// disk.write_all_at(b"kept", 0)?;
/// disk.sync_data()?;
/// disk.write_all_at(b" and lost", 4)?;
/// disk.crash(|_| false);
/// assert_eq!(disk.contents(), b"kept");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ForgetfulDisk {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    torn_writes: Trouble,
    failing_syncs: Trouble,
}

#[derive(Debug, Default)]
struct State {
    cache: Vec<u8>,
    /// What was written since the last sync, in order.
    dirty: Vec<Range<usize>>,
    durable: Vec<u8>,
    /// Where the file was cut off since the last sync.
    cut: Option<usize>,
}

/// How many of the next calls fail, and how.
#[derive(Debug, Default)]
struct Trouble {
    left: AtomicU32,
    kind: Mutex<Option<io::ErrorKind>>,
}

impl Trouble {
    fn set(&self, calls: u32, kind: io::ErrorKind) {
        *self.kind.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        self.left.store(calls, Ordering::SeqCst);
    }

    fn strike(&self) -> io::Result<()> {
        let struck = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match struck {
            Ok(_) => {
                let kind = *self.kind.lock().unwrap_or_else(PoisonError::into_inner);
                Err(kind.unwrap_or(io::ErrorKind::Other).into())
            }
            Err(_) => Ok(()),
        }
    }
}

impl ForgetfulDisk {
    /// The next `calls` writes write half of what they should, and fail.
    pub fn tear_writes(&self, calls: u32, kind: io::ErrorKind) {
        self.inner.torn_writes.set(calls, kind);
    }

    /// The next `calls` syncs fail, and what they should have written is forgotten.
    pub fn fail_syncs(&self, calls: u32, kind: io::ErrorKind) {
        self.inner.failing_syncs.set(calls, kind);
    }

    /// The power goes: what was not synced is gone, but for those writes that had reached the disk by
    /// themselves. `reached` is asked for each of them, oldest first, by its number.
    pub fn crash(&self, mut reached: impl FnMut(usize) -> bool) {
        let mut state = self.state();
        let State { cache, dirty, durable, cut } = &mut *state;
        for (number, range) in dirty.drain(..).enumerate() {
            if reached(number) {
                persist(cache, durable, range);
            }
        }
        *cut = None;
        cache.clone_from(durable);
    }

    /// What is read now.
    pub fn contents(&self) -> Vec<u8> {
        self.state().cache.clone()
    }

    /// What would be left if the power went now.
    pub fn durable(&self) -> Vec<u8> {
        self.state().durable.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a written range over to the disk; what is not there yet before it reads as zeros.
fn persist(cache: &[u8], durable: &mut Vec<u8>, range: Range<usize>) {
    let range = range.start.min(cache.len())..range.end.min(cache.len());
    if durable.len() < range.end {
        durable.resize(range.end, 0);
    }
    durable[range.clone()].copy_from_slice(&cache[range]);
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl Medium for ForgetfulDisk {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let struck = self.inner.torn_writes.strike();
        let bytes = if struck.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let mut state = self.state();
        let start = place(offset)?;
        let range = start..start + bytes.len();
        if state.cache.len() < range.end {
            state.cache.resize(range.end, 0);
        }
        state.cache[range.clone()].copy_from_slice(bytes);
        state.dirty.push(range);
        struck
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let (state, start) = (self.state(), place(offset)?);
        let found = state.cache.get(start..start + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.state().cache.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, len) = (self.state(), place(len)?);
        state.cache.resize(len, 0);
        state.cut = Some(state.cut.map_or(len, |cut| cut.min(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let struck = self.inner.failing_syncs.strike();
        let mut state = self.state();
        let State { cache, dirty, durable, cut } = &mut *state;
        if let (Ok(()), Some(cut)) = (&struck, cut.take()) {
            durable.truncate(cut);
        }
        for range in dirty.drain(..) {
            if struck.is_ok() {
                persist(cache, durable, range);
            }
        }
        struck
    }
}
