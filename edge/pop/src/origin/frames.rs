//! Frames on QUIC streams: a length, then that many bytes.
//!
//! Invariants: a length is checked before anything is allocated, and memory grows with what has
//! arrived; a peer that has begun a frame finishes it in [`FRAME_MS_MAX`] or is cut off.

use quinn::RecvStream;
use skerry_wire::frame::{FRAME_BYTES_MAX, FRAME_MS_MAX};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// First allocation for a frame, in bytes; beyond it memory follows what arrives.
const FIRST_BYTES: usize = 16 << 10;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the stream has ended or the connection is lost")]
    Lost,
    #[error("the stream ended inside a frame")]
    Torn,
    #[error("a frame of {0} bytes, at most {FRAME_BYTES_MAX} are taken")]
    Large(u32),
    #[error("a frame was begun and not finished in time")]
    Slow,
}

impl FrameError {
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Lost => "frame_lost",
            Self::Torn => "frame_torn",
            Self::Large(_) => "frame_large",
            Self::Slow => "frame_slow",
        }
    }
}

/// The next frame's bytes. Waits for its first byte as long as the caller lets it.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Vec<u8>, FrameError> {
    read_within(stream, Duration::from_millis(FRAME_MS_MAX)).await
}

async fn read_within<R: AsyncRead + Unpin>(
    stream: &mut R,
    limit: Duration,
) -> Result<Vec<u8>, FrameError> {
    let first = stream.read_u8().await.map_err(|_| FrameError::Lost)?;
    let finish = async {
        let mut rest = [0; 3];
        stream
            .read_exact(&mut rest)
            .await
            .map_err(|_| FrameError::Torn)?;
        let [second, third, fourth] = rest;
        let length = u32::from_le_bytes([first, second, third, fourth]);
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        if wanted > FRAME_BYTES_MAX {
            return Err(FrameError::Large(length));
        }
        read_bytes(stream, wanted).await
    };
    tokio::time::timeout(limit, finish)
        .await
        .map_err(|_| FrameError::Slow)?
}

/// The one frame of a stream. The stream's end comes with it, as a rule: a stream that is dropped before
/// that is seen sends its peer a datagram to say so.
pub async fn read_only(stream: &mut RecvStream) -> Result<Vec<u8>, FrameError> {
    let frame = read(stream).await?;
    tokio::select! {
        biased;
        _ = stream.read_chunk(1, true) => {}
        () = std::future::ready(()) => {}
    }
    Ok(frame)
}

/// Exactly so many bytes, allocated as they come.
pub async fn read_bytes<R: AsyncRead + Unpin>(
    stream: &mut R,
    wanted: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::with_capacity(wanted.min(FIRST_BYTES));
    let mut limited = stream.take(wanted as u64);
    while bytes.len() < wanted {
        match limited.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(FrameError::Torn),
            Ok(_) => {}
        }
    }
    Ok(bytes)
}

pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, frame: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::Large(length));
    }
    let write = async {
        stream.write_all(&length.to_le_bytes()).await?;
        stream.write_all(frame).await
    };
    let written = tokio::time::timeout(Duration::from_millis(FRAME_MS_MAX), write).await;
    written
        .map_err(|_| FrameError::Slow)?
        .map_err(|_| FrameError::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::testing::server;
    use quinn::Endpoint;
    use skerry_wire::frame::SERVER_NAME;

    async fn read_all(bytes: &[u8]) -> String {
        let mut stream = bytes;
        match read(&mut stream).await {
            Ok(frame) => format!("{} bytes", frame.len()),
            Err(error) => error.code().to_owned(),
        }
    }

    #[tokio::test]
    async fn what_is_a_frame_and_what_is_not() {
        let whole = [&5u32.to_le_bytes()[..], b"hello"].concat();
        let large = [&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()[..], &[0; 64]].concat();
        let cases: [(&str, &[u8], &str); 7] = [
            ("whole", &whole, "5 bytes"),
            ("empty", &0u32.to_le_bytes(), "0 bytes"),
            ("nothing", &[], "frame_lost"),
            ("half a length", &whole[..2], "frame_torn"),
            ("half a frame", &whole[..7], "frame_torn"),
            ("too large", &large, "frame_large"),
            ("garbage", &[0xff; 32], "frame_large"),
        ];
        for (name, bytes, want) in cases {
            assert_eq!(read_all(bytes).await, want, "{name}");
        }
    }

    #[tokio::test]
    async fn a_frame_begun_and_left_is_given_up() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let limit = Duration::from_millis(30);
        let idle = tokio::time::timeout(limit * 3, read_within(&mut ours, limit)).await;
        assert!(idle.is_err(), "nothing begun: no hurry");
        theirs.write_all(&[9, 0, 0, 0, 1, 2]).await.unwrap();
        assert_eq!(
            read_within(&mut ours, limit).await.unwrap_err().code(),
            "frame_slow"
        );
    }

    #[tokio::test]
    async fn written_frames_are_read_back() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        for size in [0, 1, FIRST_BYTES + 1, 100_000] {
            write(&mut theirs, &vec![7; size]).await.unwrap();
            assert_eq!(read(&mut ours).await.unwrap().len(), size);
        }
        let error = write(&mut theirs, &vec![7; FRAME_BYTES_MAX + 1])
            .await
            .unwrap_err();
        assert_eq!(error.code(), "frame_large");
    }

    /// Both ends of a connection on this machine.
    async fn connected() -> (Endpoint, quinn::Connection, Endpoint, quinn::Connection) {
        let (server, config) = server();
        let client = Endpoint::client((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connecting = client.connect_with(config, server.local_addr().unwrap(), SERVER_NAME);
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let (ours, theirs) = tokio::join!(connecting.unwrap(), accepting);
        (client, ours.unwrap(), server, theirs)
    }

    #[tokio::test]
    async fn streams_are_read_to_their_end() {
        const ASKED: u64 = 40;
        let (_client, ours, _server, theirs) = connected().await;
        let answering = async {
            for _ in 0..ASKED {
                let (mut send, mut recv) = theirs.accept_bi().await.unwrap();
                read_only(&mut recv).await.unwrap();
                write(&mut send, &[7; 100]).await.unwrap();
                send.finish().unwrap();
            }
        };
        let asking = async {
            for _ in 0..ASKED {
                let (mut send, mut recv) = ours.open_bi().await.unwrap();
                write(&mut send, &[7; 100]).await.unwrap();
                send.finish().unwrap();
                assert_eq!(read_only(&mut recv).await.unwrap().len(), 100);
            }
        };
        tokio::join!(answering, asking);
        for (side, connection) in [("asking", &ours), ("answering", &theirs)] {
            let told_to_stop = connection.stats().frame_rx.stop_sending;
            assert!(told_to_stop < ASKED / 4, "{side}: {told_to_stop}");
        }
    }
}
