//! The part of a file that a durable log uses, so that logs can be tested on disks that fill up, fail
//! and forget: see `sdp_core::testing::disks`.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes on a disk.
///
/// # Contract
/// - What was written is read back at once, and is certain to outlive a power cut only after the next
///   [`sync_data`](Self::sync_data) that succeeds.
/// - After a sync that failed, what was written before it may be lost though a later sync succeeds:
///   so Linux does it. Whoever needs it durable writes it again.
pub trait Medium: std::fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`. On an error any part of them may be written.
    ///
    /// # Errors
    /// The operating system's.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] past the end; the operating system's.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills as much of `bytes` from `offset` on as is in memory already, and says how much: nothing where that cannot
    /// be told. Never waits for the disk.
    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> usize {
        let _ = (bytes, offset);
        0
    }

    /// How many bytes there are.
    ///
    /// # Errors
    /// The operating system's.
    fn size(&self) -> io::Result<u64>;

    /// Cuts off what is past `len`.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written is on the disk.
    ///
    /// # Errors
    /// The operating system's; then nothing written since the last success is certain.
    fn sync_data(&self) -> io::Result<()>;
}

impl Medium for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    /// With `RWF_NOWAIT`, see `preadv2(2)`.
    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> usize {
        let into = &mut [io::IoSliceMut::new(bytes)];
        rustix::io::preadv2(self, into, offset, rustix::io::ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

/// Reads from the beginning to the end.
#[derive(Debug)]
pub struct Reader<'a> {
    medium: &'a dyn Medium,
    at: u64,
}

impl<'a> Reader<'a> {
    /// A reader of everything.
    pub fn new(medium: &'a dyn Medium) -> Self {
        Self { medium, at: 0 }
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.medium.size()?.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let take = left.min(bytes.len());
        self.medium.read_exact_at(&mut bytes[..take], self.at)?;
        self.at += take as u64;
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_without_waiting_is_what_is_there_and_ends_where_the_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
        Medium::write_all_at(&file, b"0123456789", 0).unwrap();
        let mut bytes = [0; 8];
        // Not every file system can tell.
        let read = file.read_cached_at(&mut bytes, 4);
        assert!(read <= 6 && bytes[..read] == b"456789"[..read], "{read} {bytes:?}");
        assert_eq!(file.read_cached_at(&mut bytes, 10), 0);
    }
}
