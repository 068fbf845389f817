//! Files parsed lately. A change parses the same few again and again (the commit's, the one on disk, the new one, to see
//! that it reads as intended), and each time costs a thread.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use super::ConfigFile;

/// So many are kept.
const KEPT: usize = 8;

/// The largest that is kept, in bytes. Real configurations have a few thousand.
const LARGEST: usize = 64 << 10;

static RECENT: Mutex<VecDeque<ConfigFile>> = Mutex::new(VecDeque::new());

/// The file with exactly these bytes, if it was parsed lately.
pub(super) fn find(bytes: &[u8]) -> Option<ConfigFile> {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = recent.iter().position(|file| file.bytes() == bytes)?;
    let file = recent.remove(at)?;
    recent.push_front(file.clone());
    Some(file)
}

pub(super) fn keep(file: &ConfigFile) {
    if file.bytes().len() <= LARGEST {
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(KEPT - 1);
        recent.push_front(file.clone());
    }
}
