//! Reading and writing frames on a QUIC stream, with bounds on size and time.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use skerry_wire::codec::Schema;
use skerry_wire::frame::FRAME_BYTES_MAX;
use std::time::Duration;

/// Bytes taken from a stream at once.
const READ_BYTES_MAX: usize = 64 << 10;

/// Why there is no (further) frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the stream ended")]
    End,
    #[error("the stream ended inside a frame")]
    Torn,
    #[error("a frame of {0} bytes, at most {FRAME_BYTES_MAX} are read")]
    Large(u32),
    #[error("a frame was not finished in time")]
    Slow,
    #[error("the stream was lost: {0}")]
    Lost(#[from] quinn::ReadError),
    #[error("not a frame: {0}")]
    Garbage(#[from] skerry_wire::CodecError),
}

impl FrameError {
    /// For counters and close reasons.
    pub fn code(&self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Torn => "torn",
            Self::Large(_) => "too_large",
            Self::Slow => "too_slow",
            Self::Lost(_) => "lost",
            Self::Garbage(_) => "garbage",
        }
    }

    /// Whether the peer broke the protocol, rather than going away.
    pub fn is_breach(&self) -> bool {
        matches!(
            self,
            Self::Torn | Self::Large(_) | Self::Slow | Self::Garbage(_)
        )
    }
}

/// Frames from one stream. Holds what arrived, never what a length merely claims.
pub struct Frames {
    stream: RecvStream,
    buffer: BytesMut,
    finish_within: Duration,
}

impl Frames {
    pub fn new(stream: RecvStream, finish_within: Duration) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            finish_within,
        }
    }

    /// The next frame's bytes. Waits for its first byte as long as the stream lives, for the rest
    /// only so long.
    pub async fn next(&mut self) -> Result<Bytes, FrameError> {
        if self.buffer.is_empty() {
            self.read().await?;
        }
        tokio::time::timeout(self.finish_within, self.rest())
            .await
            .map_err(|_| FrameError::Slow)?
    }

    /// The next frame's bytes, the wait for the first one included in the limit.
    pub async fn next_soon(&mut self) -> Result<Bytes, FrameError> {
        let limit = self.finish_within;
        let next = async {
            if self.buffer.is_empty() {
                self.read().await?;
            }
            self.rest().await
        };
        tokio::time::timeout(limit, next)
            .await
            .map_err(|_| FrameError::Slow)?
    }

    async fn rest(&mut self) -> Result<Bytes, FrameError> {
        while self.buffer.len() < 4 {
            self.more().await?;
        }
        let length = self.buffer.get_u32_le();
        let wanted = length as usize;
        if wanted > FRAME_BYTES_MAX {
            return Err(FrameError::Large(length));
        }
        while self.buffer.len() < wanted {
            self.more().await?;
        }
        Ok(self.buffer.split_to(wanted).freeze())
    }

    async fn more(&mut self) -> Result<(), FrameError> {
        self.read().await.map_err(|error| {
            if matches!(error, FrameError::End) {
                FrameError::Torn
            } else {
                error
            }
        })
    }

    async fn read(&mut self) -> Result<(), FrameError> {
        match self.stream.read_chunk(READ_BYTES_MAX, true).await? {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(())
            }
            None => Err(FrameError::End),
        }
    }

    /// Takes the stream's end in where it came with the last frame, as it does: a stream that is
    /// dropped before its end was seen sends the peer a datagram to say so.
    pub async fn see_end(&mut self) {
        tokio::select! {
            biased;
            _ = self.stream.read_chunk(1, true) => {}
            () = std::future::ready(()) => {}
        }
    }

    pub fn stop(&mut self, code: quinn::VarInt) {
        // Closed already is as good.
        let _ = self.stream.stop(code);
    }
}

/// Writes encoded bytes as one frame, without copying them.
pub async fn write_bytes(stream: &mut SendStream, body: Bytes) -> Result<(), quinn::WriteError> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    stream
        .write_all_chunks(&mut [Bytes::copy_from_slice(&length), body])
        .await
}

/// Encodes and writes one frame.
pub async fn write<T: Schema + serde::Serialize>(
    stream: &mut SendStream,
    frame: &T,
) -> Result<(), FrameError> {
    let body = Bytes::from(skerry_wire::encode(frame)?);
    if body.len() > FRAME_BYTES_MAX {
        return Err(FrameError::Large(
            u32::try_from(body.len()).unwrap_or(u32::MAX),
        ));
    }
    write_bytes(stream, body).await.map_err(|_| FrameError::End)
}
