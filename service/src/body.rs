//! Bodies, read whole, with a limit and two deadlines: a sender may neither fill the memory nor hold a place by
//! trickling.

use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use headwater_model::limits;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::callers::{CALLERS, Room};
use crate::fault::Fault;

/// The largest JSON body.
const JSON_MAX_BYTES: usize = limits::MIB;
/// A sender that is silent for this long is cut off.
const PIECE_DEADLINE: Duration = Duration::from_secs(30);
/// A body that is not whole by then is refused: 64 MiB in this time is 220 KiB/s.
const WHOLE_DEADLINE: Duration = Duration::from_secs(300);
/// The same for a call of another daemon, its wait for room included: no caller waits longer for an answer.
const CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Frames held in memory at once, over all connections; others wait with their bodies unread.
const FRAMES_AT_ONCE: usize = 16;

static FRAME_PLACES: Semaphore = Semaphore::const_new(FRAMES_AT_ONCE);

/// A frame as received, with its place in memory: drop it once the frame is dealt with.
pub(crate) struct FrameBody {
    pub(crate) bytes: Bytes,
    pub(crate) _place: tokio::sync::SemaphorePermit<'static>,
}

/// Reads a frame.
pub(crate) async fn frame(req: &HttpRequest, payload: web::Payload) -> Result<FrameBody, Fault> {
    let declared = declared(req);
    within(declared, limits::FRAME_MAX_BYTES)?;
    let _place = FRAME_PLACES.acquire().await.map_err(|_| Fault::not_wired())?;
    let bytes = read(payload, declared, limits::FRAME_MAX_BYTES).await?;
    Ok(FrameBody { bytes, _place })
}

/// A call as received, with its room in memory: drop that once it is known who calls.
pub(crate) struct CallBody {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<Room>,
}

/// Reads a call of another daemon: a frame with some words around it, or the whole control state.
pub(crate) async fn call(req: &HttpRequest, payload: web::Payload, kind: u8) -> Result<CallBody, Fault> {
    let from = req.peer_addr().map(|from| from.ip());
    let declared = declared(req);
    let limit = CALLERS.limit(from, kind);
    within(declared, limit)?;
    let most = declared.map_or(limit, |len| len as usize);
    let reading = async {
        let room = CALLERS.room(from, most).await?;
        let bytes = collect(payload, declared, most).await?;
        Ok(CallBody { bytes, room })
    };
    timeout(CALL_DEADLINE, reading).await.map_err(|_| Fault::too_slow())?
}

/// Reads JSON.
pub(crate) async fn json<T: DeserializeOwned>(req: &HttpRequest, payload: web::Payload) -> Result<T, Fault> {
    let bytes = read(payload, declared(req), JSON_MAX_BYTES).await?;
    serde_json::from_slice(&bytes).map_err(|e| Fault::malformed(&e))
}

fn declared(req: &HttpRequest) -> Option<u64> {
    req.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn within(declared: Option<u64>, limit: usize) -> Result<(), Fault> {
    if declared.is_some_and(|len| len > limit as u64) {
        Err(Fault::too_large(limit))
    } else {
        Ok(())
    }
}

async fn read<S>(pieces: S, declared: Option<u64>, limit: usize) -> Result<Bytes, Fault>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    within(declared, limit)?;
    timeout(WHOLE_DEADLINE, collect(pieces, declared, limit))
        .await
        .map_err(|_| Fault::too_slow())?
}

async fn collect<S>(mut pieces: S, declared: Option<u64>, limit: usize) -> Result<Bytes, Fault>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let mut whole = BytesMut::with_capacity(declared.map_or(0, |len| len as usize));
    while let Some(piece) = timeout(PIECE_DEADLINE, pieces.next())
        .await
        .map_err(|_| Fault::too_slow())?
    {
        let piece = piece.map_err(|e| Fault::cut_body(&e))?;
        if whole.len() + piece.len() > limit {
            return Err(Fault::too_large(limit));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use futures::stream;

    use super::*;

    type Piece = Result<Bytes, PayloadError>;

    fn pieces(of: &[&'static [u8]]) -> impl Stream<Item = Piece> + Unpin + use<> {
        stream::iter(of.iter().map(|p| Ok(Bytes::from_static(p))).collect::<Vec<_>>())
    }

    fn status(result: Result<Bytes, Fault>) -> u16 {
        result.err().map_or(200, |fault| fault.status_code().as_u16())
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_whole() {
        assert_eq!(read(pieces(&[b"ab", b"c"]), Some(3), 3).await.unwrap(), "abc");
        assert_eq!(read(pieces(&[]), None, 3).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_by_its_length_or_on_the_way() {
        assert_eq!(status(read(pieces(&[]), Some(4), 3).await), 413);
        assert_eq!(status(read(pieces(&[b"ab", b"cd"]), None, 3).await), 413);
        assert_eq!(status(read(pieces(&[b"ab", b"cd"]), Some(1), 3).await), 413);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let cut = stream::iter(vec![Ok(Bytes::from_static(b"a")), Err(PayloadError::Incomplete(None))]);
        assert_eq!(status(read(cut, None, 3).await), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_falls_silent_is_cut_off() {
        let silent = stream::iter(vec![Ok(Bytes::from_static(b"a"))]).chain(stream::pending());
        assert_eq!(status(read(Box::pin(silent), None, 3).await), 408);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_trickles_is_cut_off() {
        let trickle = stream::repeat(()).then(|()| async {
            tokio::time::sleep(PIECE_DEADLINE / 2).await;
            Piece::Ok(Bytes::from_static(b"a"))
        });
        assert_eq!(status(read(Box::pin(trickle), None, limits::MIB).await), 408);
    }
}
