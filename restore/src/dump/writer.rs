//! Writes an archive as a stream of chunks.
//!
//! Several collections are under way at once and their segments take turns, so that the restoring side has work for
//! several inserters. A stream that breaks off lacks the end of at least one namespace and never looks complete: the
//! last of them is written as the very last thing.

use std::sync::Arc;

use bson::{Document, RawDocument, doc};
use bytes::{BufMut, Bytes, BytesMut};
use futures::channel::mpsc;
use futures::stream::{self, FuturesUnordered, Stream};
use futures::{FutureExt, SinkExt, StreamExt, future};
use headwater_model::{Namespace, limits};

use super::archive::{CRC, EntryType, FORMAT, MAGIC, TERMINATOR};
use super::{DumpFault, metadata::metadata};
use crate::naming::{Chosen, Item, Kind};
use crate::source::{Rows, Source};

/// Collections under way at once.
const CONCURRENT: usize = 4;
/// A segment is closed once it holds this many bytes.
const SEGMENT_TARGET: usize = limits::MIB;
/// What the archive says wrote it.
const TOOL: &str = concat!("headwater ", env!("CARGO_PKG_VERSION"));

/// The archive of what was chosen, chunk by chunk; about [`CONCURRENT`] segments of a mebibyte are in memory.
/// `server_version` is that of the backup's source; readers choose by it how to restore.
///
/// The stream ends with an error if the archive cannot be completed.
pub fn archive(
    source: Arc<dyn Source>,
    chosen: Chosen,
    server_version: &str,
) -> impl Stream<Item = Result<Bytes, DumpFault>> + Send + 'static {
    let (mut chunks, received) = mpsc::channel(1);
    let server_version = server_version.to_owned();
    let work = async move {
        if let Err(Ended::Fault(fault)) = write(&*source, &chosen.items, &server_version, &mut chunks).await {
            // A receiver that went away wants to hear nothing.
            let _ = chunks.send(Err(fault)).await;
        }
    };
    stream::select(received, work.into_stream().filter_map(|()| future::ready(None)))
}

type Chunks = mpsc::Sender<Result<Bytes, DumpFault>>;

enum Ended {
    Fault(DumpFault),
    ReaderGone,
}

impl From<DumpFault> for Ended {
    fn from(fault: DumpFault) -> Self {
        Ended::Fault(fault)
    }
}

impl From<mpsc::SendError> for Ended {
    fn from(_: mpsc::SendError) -> Self {
        Ended::ReaderGone
    }
}

async fn write(source: &dyn Source, items: &[Item], server_version: &str, out: &mut Chunks) -> Result<(), Ended> {
    out.send(Ok(prelude(items, server_version)?)).await?;
    let (views, with_data): (Vec<_>, Vec<_>) = items.iter().partition(|i| matches!(i.kind, Kind::View(_)));
    for view in views {
        let mut chunk = BytesMut::new();
        header(&mut chunk, &view.to, Some(0))?;
        out.send(Ok(chunk.freeze())).await?;
    }
    let mut waiting = with_data.into_iter();
    let mut under_way = FuturesUnordered::new();
    for item in waiting.by_ref().take(CONCURRENT) {
        let part = Part::open(source, item).await?;
        under_way.push(next_segment(part));
    }
    while let Some(segment) = under_way.next().await {
        let (part, chunk) = segment?;
        out.send(Ok(chunk)).await?;
        if !part.ended {
            under_way.push(next_segment(part));
        } else if let Some(item) = waiting.next() {
            let part = Part::open(source, item).await?;
            under_way.push(next_segment(part));
        }
    }
    Ok(())
}

/// A collection under way.
struct Part<'a> {
    item: &'a Item,
    name: Namespace,
    rows: Option<Box<dyn Rows + 'a>>,
    crc: crc::Digest<'static, u64, crc::Table<16>>,
    ended: bool,
}

impl<'a> Part<'a> {
    async fn open(source: &'a dyn Source, item: &'a Item) -> Result<Self, DumpFault> {
        let rows = match item.uuid() {
            Some(uuid) => Some(source.rows(uuid, None).await?),
            None => None,
        };
        Ok(Part {
            item,
            name: item.to_data(),
            rows,
            crc: CRC.digest(),
            ended: false,
        })
    }
}

/// The next segment of a part; with the end of the namespace after its last one.
async fn next_segment(mut part: Part<'_>) -> Result<(Part<'_>, Bytes), DumpFault> {
    let mut chunk = BytesMut::with_capacity(SEGMENT_TARGET + SEGMENT_TARGET / 8);
    header(&mut chunk, &part.name, None)?;
    let start = chunk.len();
    while chunk.len() < SEGMENT_TARGET && !part.ended {
        let batch = match &mut part.rows {
            Some(rows) => rows.next_batch().await?,
            None => Vec::new(),
        };
        part.ended = batch.is_empty();
        for row in batch.iter().filter(|row| is_given(part.item, &row.doc)) {
            if row.doc.len() > limits::DOCUMENT_MAX_BYTES {
                let namespace = part.item.from.clone();
                return Err(DumpFault::DocumentTooLarge {
                    namespace,
                    bytes: row.doc.len(),
                });
            }
            part.crc.update(&row.doc);
            chunk.extend_from_slice(&row.doc);
        }
    }
    if chunk.len() == start {
        chunk.clear();
    } else {
        chunk.extend_from_slice(&TERMINATOR);
    }
    if part.ended {
        header(&mut chunk, &part.name, Some(part.crc.clone().finalize()))?;
    }
    Ok((part, chunk.freeze()))
}

/// Of the version documents only the schema of users is data; the others tell of the source's own state.
pub(crate) fn is_given(item: &Item, document: &[u8]) -> bool {
    item.kind != Kind::AuthSchema
        || RawDocument::from_bytes(document).is_ok_and(|d| d.get_str("_id").is_ok_and(|id| id == "authSchema"))
}

fn prelude(items: &[Item], server_version: &str) -> Result<Bytes, DumpFault> {
    let mut out = BytesMut::new();
    out.put_u32_le(MAGIC);
    let concurrent = items.len().clamp(1, CONCURRENT) as i32;
    let about = doc! {
        "concurrent_collections": concurrent, "version": FORMAT,
        "server_version": server_version, "tool_version": TOOL,
    };
    append(&mut out, &about, &Namespace::new("archive", "header"))?;
    for item in items {
        let text = metadata(item);
        if text.len() > limits::DOCUMENT_MAX_BYTES / 2 {
            let detail = format!("{} bytes of metadata are too much for an archive", text.len());
            return Err(DumpFault::Metadata {
                namespace: item.from.clone(),
                detail,
            });
        }
        let entry = doc! {
            "db": &item.to.db, "collection": &item.to.coll, "metadata": text,
            "size": 0, "type": EntryType::of(item).text(),
        };
        append(&mut out, &entry, &item.from)?;
    }
    out.extend_from_slice(&TERMINATOR);
    Ok(out.freeze())
}

/// Begins a segment, or ends a namespace with its checksum.
fn header(out: &mut BytesMut, name: &Namespace, end: Option<u64>) -> Result<(), DumpFault> {
    let crc = end.unwrap_or_default() as i64;
    let header = doc! { "db": &name.db, "collection": &name.coll, "EOF": end.is_some(), "CRC": crc };
    append(out, &header, name)?;
    if end.is_some() {
        out.extend_from_slice(&TERMINATOR);
    }
    Ok(())
}

fn append(out: &mut BytesMut, document: &Document, namespace: &Namespace) -> Result<(), DumpFault> {
    let fault = |e: bson::error::Error| DumpFault::Metadata {
        namespace: namespace.clone(),
        detail: e.to_string(),
    };
    out.extend_from_slice(&bson::serialize_to_vec(document).map_err(fault)?);
    Ok(())
}
