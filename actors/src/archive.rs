//! The pipe from the maker of an archive to its reader. Whole only if the maker said so: a maker that panics, is dropped
//! or forgotten leaves a stream that ends in an error, never one that looks complete.

use bytes::Bytes;
use headwater_protocol::agent::{Refusal, RefusalKind};
use tokio::sync::mpsc;

enum Piece {
    Bytes(Bytes),
    Failed(Refusal),
    End,
}

/// The maker's side.
pub struct ArchiveWriter(mpsc::Sender<Piece>);

/// Pieces of an archive stream, for its reader.
pub struct ArchiveStream {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

/// The reader went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NobodyReads;

/// A pipe that holds up to `pieces` before the maker waits for the reader.
pub fn pipe(pieces: usize) -> (ArchiveWriter, ArchiveStream) {
    let (sender, receiver) = mpsc::channel(pieces.max(1));
    let stream = ArchiveStream {
        pieces: receiver,
        ended: false,
    };
    (ArchiveWriter(sender), stream)
}

impl ArchiveWriter {
    /// Hands a piece over, when there is room.
    pub async fn write(&self, piece: Bytes) -> Result<(), NobodyReads> {
        self.0.send(Piece::Bytes(piece)).await.map_err(|_| NobodyReads)
    }

    /// The archive cannot be completed.
    pub async fn fail(self, why: Refusal) {
        // A reader that went away needs no reason.
        let _ = self.0.send(Piece::Failed(why)).await;
    }

    /// Everything was written.
    pub async fn finish(self) -> Result<(), NobodyReads> {
        self.0.send(Piece::End).await.map_err(|_| NobodyReads)
    }
}

impl ArchiveStream {
    /// The next piece; `None` only after the maker finished. After an `Err` nothing more comes.
    pub async fn next(&mut self) -> Option<Result<Bytes, Refusal>> {
        if self.ended {
            return None;
        }
        match self.pieces.recv().await {
            Some(Piece::Bytes(piece)) => Some(Ok(piece)),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            Some(Piece::Failed(why)) => {
                self.ended = true;
                Some(Err(why))
            }
            None => {
                self.ended = true;
                let message = "the archive broke off before its end: start the restore again";
                Some(Err(Refusal::new(RefusalKind::Internal, message)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut stream: ArchiveStream) -> (usize, Option<RefusalKind>) {
        let mut pieces = 0;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(_) => pieces += 1,
                Err(why) => {
                    assert!(stream.next().await.is_none());
                    return (pieces, Some(why.kind));
                }
            }
        }
        (pieces, None)
    }

    #[tokio::test]
    async fn a_stream_is_whole_only_when_its_maker_said_so() {
        let (writer, stream) = pipe(4);
        writer.write(Bytes::from_static(b"a")).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(read(stream).await, (1, None));

        let (writer, stream) = pipe(4);
        writer.write(Bytes::from_static(b"a")).await.unwrap();
        writer.fail(Refusal::new(RefusalKind::StoreFull, "planted")).await;
        assert_eq!(read(stream).await, (1, Some(RefusalKind::StoreFull)));
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a task that panics, in a test")]
    async fn a_maker_that_vanishes_leaves_an_error() {
        let (writer, stream) = pipe(4);
        writer.write(Bytes::from_static(b"a")).await.unwrap();
        drop(writer);
        assert_eq!(read(stream).await, (1, Some(RefusalKind::Internal)));

        let (writer, stream) = pipe(1);
        let maker = tokio::spawn(async move {
            writer.write(Bytes::from_static(b"a")).await.unwrap();
            panic!("planted");
        });
        assert_eq!(read(stream).await, (1, Some(RefusalKind::Internal)));
        assert!(maker.await.is_err());
    }

    #[tokio::test]
    async fn a_maker_learns_that_nobody_reads() {
        let (writer, stream) = pipe(1);
        drop(stream);
        assert_eq!(writer.write(Bytes::new()).await, Err(NobodyReads));
    }
}
