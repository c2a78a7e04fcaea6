//! The control image on disk: the whole state at one log entry, in pieces.
//!
//! Pieces of a new generation are written first, then the header that names the generation, in one batch with the removal
//! of the old pieces, then the barrier. A crash in between leaves the old image, and pieces that the next write removes.

use headwater_host::Op;
use headwater_model::limits;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskError, IMAGE, piece_key, put, put_bytes};
use super::records::MetaRecord;

/// Pieces written in one batch.
const BATCH_PIECES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageHeader {
    pub meta: MetaRecord,
    pub generation: u64,
    pub pieces: u64,
    pub bytes: u64,
    /// BLAKE3 of all of it.
    pub hash: [u8; 32],
}

pub(crate) fn header(disk: &Disk) -> Result<Option<ImageHeader>, DiskError> {
    disk.get("control image", IMAGE)
}

/// Replaces the image, durably. An image older than the present one is not written. Not to be called twice at once.
pub(crate) async fn write(disk: &Disk, meta: MetaRecord, data: &[u8]) -> Result<(), DiskError> {
    let before = header(disk)?;
    let index = |meta: &MetaRecord| meta.last.map(|id| id.index);
    if before.as_ref().is_some_and(|before| index(&before.meta) > index(&meta)) {
        return Ok(());
    }
    let generation = before.map_or(0, |before| before.generation) + 1;
    let old_pieces = disk.piece_keys()?;
    let pieces: Vec<&[u8]> = data.chunks(limits::CONTROL_PIECE_BYTES).collect();
    for (batch, chunk) in pieces.chunks(BATCH_PIECES).enumerate() {
        let first = (batch * BATCH_PIECES) as u64;
        let puts = chunk
            .iter()
            .zip(first..)
            .map(|(piece, number)| put_bytes(&piece_key(generation, number), piece));
        disk.write(puts.collect())?;
    }
    let header = ImageHeader {
        meta,
        generation,
        pieces: pieces.len() as u64,
        bytes: data.len() as u64,
        hash: *blake3::hash(data).as_bytes(),
    };
    let mut last = vec![put("control image", IMAGE, &header)?];
    // What a crash left of this very generation has been overwritten or lies behind its last piece.
    let present = piece_key(generation, 0)..piece_key(generation, header.pieces);
    last.extend(
        old_pieces
            .into_iter()
            .filter(|key| !present.contains(key))
            .map(Op::delete),
    );
    disk.write(last)?;
    disk.flush().await
}

/// The image, verified.
pub(crate) fn read(disk: &Disk) -> Result<Option<(MetaRecord, Vec<u8>)>, DiskError> {
    let Some(header) = header(disk)? else { return Ok(None) };
    if header.bytes > limits::CONTROL_STATE_MAX_BYTES as u64 {
        return Err(DiskError::Wrong(format!(
            "a control image of {} bytes is beyond the limit",
            header.bytes
        )));
    }
    let mut data = Vec::with_capacity(header.bytes as usize);
    for number in 0..header.pieces {
        let piece = disk.get_bytes("piece of the control image", &piece_key(header.generation, number))?;
        let piece = piece.ok_or_else(|| DiskError::Wrong(format!("piece {number} of the control image is missing")))?;
        data.extend(piece);
    }
    if blake3::hash(&data) != header.hash {
        return Err(DiskError::Wrong("the control image does not match its hash".to_owned()));
    }
    Ok(Some((header.meta, data)))
}
