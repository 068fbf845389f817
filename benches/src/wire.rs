//! What comes over a connection, taken from where it was read into: no client copies what it only looks at.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once.
const READ_BYTES: usize = 128 * 1024;

/// A connection's incoming side.
#[derive(Debug)]
pub struct Wire<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Wire<R> {
    /// Of a connection of which nothing was read yet.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The connection.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The connection, without what was read of it and not taken.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next line, with its end.
    ///
    /// # Panics
    /// When the connection ends before it, as all of these.
    pub async fn line(&mut self) -> BytesMut {
        let mut looked_at = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[looked_at..]) {
                return self.buffer.split_to(looked_at + end + 1);
            }
            looked_at = self.buffer.len();
            self.read(1).await;
        }
    }

    /// The next `count` bytes.
    pub async fn take(&mut self, count: usize) -> BytesMut {
        while self.buffer.len() < count {
            self.read(count - self.buffer.len()).await;
        }
        self.buffer.split_to(count)
    }

    async fn read(&mut self, missing: usize) {
        self.buffer.reserve(missing.max(READ_BYTES));
        assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "the connection ended");
    }
}
