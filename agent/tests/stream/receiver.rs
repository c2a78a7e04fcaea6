//! An honest service in memory over real HTTP: it keeps what it is given, refuses what does not follow, and can be told to
//! lose connections and answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use headwater_host::Host;
use headwater_model::{CollectionUuid, Incarnation};
use headwater_protocol::agent::*;
use headwater_protocol::frame::{Frame, FrameKind};
use headwater_protocol::slices::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What has arrived of one part.
#[derive(Default)]
pub struct Arrived {
    pub checksums: Vec<[u8; 32]>,
    pub documents: Vec<Vec<u8>>,
    pub resume: bson::Document,
    pub done: bool,
}

/// Everything the service knows.
#[derive(Default)]
pub struct Kept {
    pub orders: Vec<DeploymentOrder>,
    pub order_faults: Vec<DeploymentFault>,
    pub incarnation: Incarnation,
    pub begun: Option<(SyncBeginHeader, Vec<CollectionMeta>)>,
    pub parts: BTreeMap<(CollectionUuid, u32), Arrived>,
    pub ended: Option<SyncEnd>,
    pub tip: Option<TailOrder>,
    /// Entries, in the order of the chain.
    pub entries: Vec<Vec<u8>>,
    pub slices: usize,
    pub faults: BTreeSet<String>,
    pub last_poll: Option<PollRequest>,
    pub fetch: Vec<FetchRequest>,
    pub answers: BTreeMap<u64, (DocumentsHeader, Vec<Vec<u8>>)>,
    /// Every so many requests one is mistreated; 0 for never.
    pub mistreat_every: u64,
    /// How many slices of each part are taken; without, all.
    pub slices_at_most: Option<u32>,
    /// How often a slice was refused for that.
    pub slices_refused: u64,
    requests: u64,
    /// What an honest agent must never be refused for.
    pub complaints: Vec<String>,
}

type Answer = Result<Vec<u8>, Refusal>;

/// A running service.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    kept: Arc<Mutex<Kept>>,
}

impl Receiver {
    pub async fn start(host: &Host) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Receiver {
            url,
            kept: Arc::default(),
        };
        let (served, host_of_connections) = (receiver.clone(), host.clone());
        drop(host.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = served.clone();
                drop(host_of_connections.spawn(async move { receiver.serve(stream).await.unwrap_or_default() }));
            }
        }));
        receiver
    }

    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    async fn serve(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let head = loop {
                if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
            let path = String::from_utf8_lossy(&buffer[..head])
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            while buffer.len() < head + length {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            let body = Bytes::copy_from_slice(&buffer[head..head + length]);
            buffer.drain(..head + length);
            assert!(text.contains("authorization: bearer secret-key"), "{text}");
            let mistreatment = self.mistreatment();
            if mistreatment == Some(0) {
                return Ok(()); // The request is lost.
            }
            let answer = match mistreatment {
                Some(1) => Err(Refusal::new(RefusalKind::Unavailable, "busy")),
                _ => self.kept().answer(&path, body),
            };
            if mistreatment == Some(2) {
                return Ok(()); // The answer is lost.
            }
            let (status, body) = match answer {
                Ok(body) => (200, body),
                Err(refusal) => (refusal.kind.status(), serde_json::to_vec(&refusal).unwrap()),
            };
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
        }
    }

    fn mistreatment(&self) -> Option<u64> {
        let mut kept = self.kept();
        kept.requests += 1;
        let every = kept.mistreat_every;
        (every > 0 && kept.requests.is_multiple_of(every)).then(|| kept.requests / every % 3)
    }
}

fn json<T: Serialize>(value: &T) -> Answer {
    Ok(serde_json::to_vec(value).unwrap())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::new(RefusalKind::Invalid, e.to_string()))
}

fn divided(frame: &Frame, count: u32) -> Result<Vec<Vec<u8>>, Refusal> {
    let payload = frame.payload().unwrap();
    let items: Vec<Vec<u8>> = documents(&payload).map(|item| item.unwrap().to_vec()).collect();
    if items.len() == count as usize {
        Ok(items)
    } else {
        Err(Refusal::new(RefusalKind::Invalid, "the count does not agree"))
    }
}

impl Kept {
    fn answer(&mut self, path: &str, body: Bytes) -> Answer {
        let result = self.route(path, body);
        if let Err(refusal) = &result
            && refusal.kind == RefusalKind::Invalid
        {
            self.complaints.push(format!("{path}: {}", refusal.message));
        }
        result
    }

    fn route(&mut self, path: &str, body: Bytes) -> Answer {
        let call = path.strip_prefix("/agent/v1/").unwrap_or_default();
        if call == "orders" {
            self.order_faults = read::<OrdersRequest>(&body)?.faults;
            return json(&OrdersReply {
                deployments: self.orders.clone(),
            });
        }
        let call = call.splitn(3, '/').nth(2).unwrap_or_default();
        match call {
            "open" => self.open(read(&body)?),
            "sync/begin" => self.begin(body),
            "sync/slice" => self.slice(body),
            "sync/end" => {
                let end: SyncEnd = read(&body)?;
                self.current(end.incarnation)?;
                self.ended = Some(end);
                json(&Accepted {})
            }
            "oplog" => self.oplog(body),
            "documents" => {
                let frame = Frame::open(FrameKind::Documents, body).unwrap();
                let header: DocumentsHeader = frame.header().unwrap();
                let items = divided(&frame, header.count)?;
                self.fetch.retain(|request| request.request != header.request);
                self.answers.insert(header.request, (header, items));
                json(&Accepted {})
            }
            "poll" => {
                let poll: PollRequest = read(&body)?;
                self.faults.extend(poll.fault.iter().map(|fault| format!("{fault:?}")));
                let reopen = poll.incarnation != self.incarnation;
                self.last_poll = Some(poll);
                json(&PollReply {
                    reopen,
                    fetch: self.fetch.clone(),
                    note: None,
                    balancer: None,
                })
            }
            other => Err(Refusal::new(RefusalKind::NotFound, other)),
        }
    }

    fn current(&self, incarnation: Incarnation) -> Result<(), Refusal> {
        if incarnation == self.incarnation {
            Ok(())
        } else {
            Err(Refusal::new(RefusalKind::Stale, "another incarnation is current"))
        }
    }

    fn open(&mut self, _request: OpenRequest) -> Answer {
        let begun = self.begun.as_ref().map(|(_, metas)| SyncBegun {
            collections: metas.iter().map(|meta| meta.uuid).collect(),
            parts: self
                .parts
                .iter()
                .map(|((collection, part), arrived)| PartProgress {
                    collection: *collection,
                    part: *part,
                    next_number: arrived.checksums.len() as u32,
                    resume: arrived.resume.clone(),
                    done: arrived.done,
                })
                .collect(),
            ended: self.ended.is_some(),
        });
        let sync = self.ended.is_none().then_some(SyncOrder { begun });
        json(&OpenReply {
            incarnation: self.incarnation,
            sync,
            tail: self.tip.clone(),
        })
    }

    fn begin(&mut self, body: Bytes) -> Answer {
        let frame = Frame::open(FrameKind::SyncBegin, body).unwrap();
        let header: SyncBeginHeader = frame.header().unwrap();
        self.current(header.incarnation)?;
        let payload = frame.payload().unwrap();
        let metas = documents(&payload)
            .map(|item| bson::deserialize_from_slice(item.unwrap()).unwrap())
            .collect();
        match &self.begun {
            None => {
                self.tip = Some(TailOrder {
                    after: header.tail_after,
                    previous_slice: String::new(),
                });
                self.begun = Some((header, metas));
                json(&Accepted {})
            }
            Some(_) => Err(Refusal::new(RefusalKind::Conflict, "a sync was begun already")),
        }
    }

    fn slice(&mut self, body: Bytes) -> Answer {
        let frame = Frame::open(FrameKind::SyncSlice, body).unwrap();
        let header: SyncSliceHeader = frame.header().unwrap();
        self.current(header.incarnation)?;
        if self.slices_at_most.is_some_and(|most| header.number >= most) {
            self.slices_refused += 1;
            return Err(Refusal::new(RefusalKind::Unavailable, "not yet"));
        }
        let items = divided(&frame, header.count)?;
        if header.count == 0 && !header.last {
            return Err(Refusal::new(
                RefusalKind::Invalid,
                "an empty slice that is not the last",
            ));
        }
        let arrived = self.parts.entry((header.collection, header.part)).or_default();
        match arrived.checksums.get(header.number as usize) {
            Some(known) if *known == frame.checksum() => return json(&Accepted {}),
            Some(_) => return Err(Refusal::new(RefusalKind::Conflict, "another slice has this number")),
            None if header.number as usize == arrived.checksums.len() && !arrived.done => {}
            None => return Err(Refusal::new(RefusalKind::Conflict, "not the next number")),
        }
        arrived.checksums.push(frame.checksum());
        arrived.documents.extend(items);
        arrived.resume = header.resume;
        arrived.done = header.last;
        json(&Accepted {})
    }

    fn oplog(&mut self, body: Bytes) -> Answer {
        let frame = Frame::open(FrameKind::OplogSlice, body).unwrap();
        let header: OplogSliceHeader = frame.header().unwrap();
        self.current(header.incarnation)?;
        let Some(tip) = self.tip.clone() else {
            return Err(Refusal::new(RefusalKind::Conflict, "no sync was begun"));
        };
        let checksum: String = frame.checksum().iter().map(|byte| format!("{byte:02x}")).collect();
        if checksum != tip.previous_slice {
            if header.previous != tip.after || header.previous_slice != tip.previous_slice {
                let gap = Refusal::new(RefusalKind::Gap, "the slice does not follow");
                return Err(Refusal { tail: Some(tip), ..gap });
            }
            self.entries.extend(divided(&frame, header.count)?);
            self.slices += 1;
            self.tip = Some(TailOrder {
                after: header.last,
                previous_slice: checksum,
            });
        }
        let tip = self.tip.clone().unwrap();
        json(&OplogAck {
            tip: tip.after,
            tip_slice: tip.previous_slice,
        })
    }
}
