//! WebSockets on raw sockets, so that no client library's cost is in a measurement, as with the peers.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::wire::Wire;

/// As the peers' clients have it.
const BUFFER_BYTES: usize = 128 * 1024;

/// Masking is a client's duty; which mask it is makes no difference to the work.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x11, 0x7e];

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// What the server sends. Pings are not answered: a measurement is shorter than the server's patience.
#[derive(Debug)]
pub struct Reader(Wire<OwnedReadHalf>);

/// What the server is sent.
#[derive(Debug)]
pub struct Writer(BufWriter<OwnedWriteHalf>);

/// Opens a WebSocket.
///
/// # Panics
/// When the server does not switch protocols.
pub async fn connect(server: SocketAddr, path: &str, bearer: Option<&str>) -> (Reader, Writer) {
    let stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    upgrade(stream, server, path, bearer).await
}

/// Opens a WebSocket that takes little from the server before its reader does, and gives the socket.
///
/// # Panics
/// As [`connect`].
pub async fn connect_narrow(server: SocketAddr, path: &str, bearer: Option<&str>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let (reader, writer) = upgrade(socket.connect(server).await.unwrap(), server, path, bearer).await;
    reader.0.into_inner().reunite(writer.0.into_inner()).unwrap()
}

async fn upgrade(stream: TcpStream, server: SocketAddr, path: &str, bearer: Option<&str>) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let (mut reader, mut writer) = (Reader(Wire::new(read)), Writer(BufWriter::with_capacity(BUFFER_BYTES, write)));
    let authorization = bearer.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2RwLWJlbmNobWFyay1rZXk=\r\n{authorization}\r\n"
    );
    writer.0.write_all(request.as_bytes()).await.unwrap();
    writer.flush().await;
    let mut line = reader.0.line().await;
    assert!(line.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&line));
    while line != b"\r\n"[..] {
        line = reader.0.line().await;
    }
    (reader, writer)
}

impl Reader {
    /// The next text or binary message.
    ///
    /// # Panics
    /// When the connection ends.
    pub async fn message(&mut self) -> BytesMut {
        loop {
            let mut head = self.0.take(2).await;
            let (first, length) = (head.get_u8(), head.get_u8());
            let length = match length {
                126 => usize::from(self.0.take(2).await.get_u16()),
                127 => usize::try_from(self.0.take(8).await.get_u64()).unwrap(),
                short => usize::from(short),
            };
            let body = self.0.take(length).await;
            match first & 0x0f {
                TEXT | BINARY => return body,
                CLOSE => panic!("the server closed: {}", String::from_utf8_lossy(body.get(2..).unwrap_or_default())),
                _ => {}
            }
        }
    }
}

impl Writer {
    /// Takes a text message into the buffer.
    pub async fn text(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes()).await;
    }

    /// Takes a binary message into the buffer.
    pub async fn binary(&mut self, bytes: &[u8]) {
        self.frame(BINARY, bytes).await;
    }

    /// Sends what is in the buffer.
    ///
    /// # Panics
    /// When the connection has ended, as all of these.
    pub async fn flush(&mut self) {
        self.0.flush().await.unwrap();
    }

    async fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            medium @ 126..65536 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        let begin = frame.len();
        frame.extend_from_slice(payload);
        // Eight at a time, as libraries do it.
        let mask = u64::from_ne_bytes([MASK, MASK].concat().try_into().unwrap());
        let (eights, rest) = frame[begin..].as_chunks_mut::<8>();
        for eight in eights {
            *eight = (u64::from_ne_bytes(*eight) ^ mask).to_ne_bytes();
        }
        rest.iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        self.0.write_all(&frame).await.unwrap();
    }
}
