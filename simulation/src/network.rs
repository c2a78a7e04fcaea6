//! The network: messages between processes, each with a fate of its own, drawn when it is sent.
//!
//! A call is two messages. Each may be late, lost, or meet a cut link; a request may arrive twice. Who waits for an answer
//! that was lost waits until its own patience ends, as with a real network.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot};

use crate::trace;

/// How slow and how bad a network is.
#[derive(Clone, Copy, Debug)]
pub struct NetworkDraw {
    /// The longest a message usually takes, in milliseconds.
    pub delay_ms: u64,
    /// Of a thousand messages, so many take up to a hundred times as long.
    pub slow: u32,
    /// Of a thousand messages, so many are lost.
    pub lost: u32,
    /// Of a thousand requests, so many arrive twice.
    pub twice: u32,
}

/// A place messages go to: `d1` is a daemon, `a1` an agent, `user`.
pub type Peer = &'static str;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// An agent's POST.
    Agent {
        /// The path of the URL.
        path: String,
        /// The bearer's key.
        key: String,
        /// The body.
        body: Bytes,
    },
    /// A daemon's call to another.
    Member {
        /// The node that is meant.
        to: u64,
        /// As [`headwater_host::Transport`] has it.
        kind: u8,
        /// The body.
        body: Vec<u8>,
    },
    /// A user's wish.
    User(crate::user::Wish),
}

impl Request {
    fn name(&self) -> String {
        match self {
            Request::Agent { path, body, .. } => format!("{path} {} bytes", body.len()),
            Request::Member { kind, body, .. } => format!("call {kind} {} bytes", body.len()),
            Request::User(wish) => format!("{wish:?}"),
        }
    }
}

/// Status as of HTTP, and a body.
pub type Answer = (u16, Bytes);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody listens there.
    Refused,
    /// Nothing comes back.
    Lost,
}

/// A request at the door of a process.
pub struct Delivery {
    /// From whom.
    pub from: Peer,
    /// What.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

struct Sent {
    from: Peer,
    to: Peer,
    request: Request,
    answer: oneshot::Sender<Result<Answer, Silence>>,
}

struct Links {
    rng: StdRng,
    draw: NetworkDraw,
    listeners: BTreeMap<Peer, mpsc::UnboundedSender<Delivery>>,
    /// One way: from, to.
    cut: BTreeSet<(Peer, Peer)>,
}

/// The network as the world has it. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    links: Rc<RefCell<Links>>,
    socket: Socket,
}

/// The network as processes have it: usable from any task.
#[derive(Clone)]
pub struct Socket(mpsc::UnboundedSender<Sent>);

impl Network {
    /// Starts the network on the world's `LocalSet`.
    pub fn start(seed: u64, draw: NetworkDraw) -> Network {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let network = Network {
            links: Rc::new(RefCell::new(Links {
                rng: StdRng::seed_from_u64(seed),
                draw,
                listeners: BTreeMap::new(),
                cut: BTreeSet::new(),
            })),
            socket: Socket(sender),
        };
        let carrier = network.clone();
        tokio::task::spawn_local(async move {
            while let Some(sent) = receiver.recv().await {
                carrier.carry(sent);
            }
        });
        network
    }

    /// What processes call others with.
    pub fn socket(&self) -> Socket {
        self.socket.clone()
    }

    /// Lets a process answer for `peer`, in place of whoever did before: within that process, one task a request.
    pub fn listen(&self, peer: Peer, serve: impl Fn(Peer, Request) -> LocalBoxFuture<'static, Answer> + 'static) {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Delivery>();
        self.links.borrow_mut().listeners.insert(peer, sender);
        tokio::task::spawn_local(async move {
            while let Some(delivery) = receiver.recv().await {
                let serving = serve(delivery.from, delivery.request);
                tokio::task::spawn_local(async move {
                    // The asker may be gone.
                    let _ = delivery.answer.send(serving.await);
                });
            }
        });
    }

    /// Cuts the way from one to another.
    pub fn cut(&self, from: Peer, to: Peer) {
        trace::mark("network: link cut");
        trace::line(&format!("network: {from} no longer reaches {to}"));
        self.links.borrow_mut().cut.insert((from, to));
    }

    /// Undoes all cuts.
    pub fn mend(&self) {
        self.links.borrow_mut().cut.clear();
        trace::line("network: all links are whole");
    }

    /// From now on nothing is lost.
    pub fn heal(&self) {
        self.mend();
        let mut links = self.links.borrow_mut();
        (links.draw.lost, links.draw.twice, links.draw.slow) = (0, 0, 0);
    }

    /// Whether `from` reaches `to`.
    pub fn reaches(&self, from: Peer, to: Peer) -> bool {
        !self.links.borrow().cut.contains(&(from, to))
    }

    fn fate(&self, from: Peer, to: Peer) -> (Duration, bool) {
        let mut links = self.links.borrow_mut();
        let draw = links.draw;
        let mut delay = links.rng.gen_range(0..=draw.delay_ms);
        if links.rng.gen_range(0..1000) < draw.slow {
            trace::mark("network: late message");
            delay *= links.rng.gen_range(2..=100);
        }
        let lost = links.rng.gen_range(0..1000) < draw.lost;
        if lost {
            trace::mark("network: message lost");
        }
        let cut = links.cut.contains(&(from, to));
        (Duration::from_millis(delay), lost || cut)
    }

    fn carry(&self, sent: Sent) {
        let twice = {
            let mut links = self.links.borrow_mut();
            let twice = links.draw.twice;
            links.rng.gen_range(0..1000) < twice
        };
        if twice {
            trace::mark("network: message doubled");
            let (answer, _) = oneshot::channel();
            let copy = Sent {
                from: sent.from,
                to: sent.to,
                request: sent.request.clone(),
                answer,
            };
            tokio::task::spawn_local(self.clone().deliver(copy));
        }
        tokio::task::spawn_local(self.clone().deliver(sent));
    }

    async fn deliver(self, sent: Sent) {
        let Sent {
            from,
            to,
            request,
            answer,
        } = sent;
        let (delay, lost) = self.fate(from, to);
        tokio::time::sleep(delay).await;
        // Drawn at sending, cut at arrival: a link that was cut meanwhile counts.
        if lost || !self.reaches(from, to) {
            let _ = answer.send(Err(Silence::Lost));
            return;
        }
        trace::fine(&format!("{from} → {to} {}", request.name()));
        let listener = self.links.borrow().listeners.get(to).cloned();
        let (reply, replied) = oneshot::channel();
        let delivery = Delivery {
            from,
            request,
            answer: reply,
        };
        if listener.is_none_or(|listener| listener.send(delivery).is_err()) {
            let _ = answer.send(Err(Silence::Refused));
            return;
        }
        let Ok(replied) = replied.await else {
            trace::mark("network: answer died with its process");
            let _ = answer.send(Err(Silence::Refused));
            return;
        };
        let (delay, lost) = self.fate(to, from);
        tokio::time::sleep(delay).await;
        trace::fine(&format!("{from} ← {to} {} {} bytes", replied.0, replied.1.len()));
        let lost = lost || !self.reaches(to, from);
        if lost {
            trace::mark("network: answer lost");
        }
        // The asker may have lost its patience.
        let _ = answer.send(if lost { Err(Silence::Lost) } else { Ok(replied) });
    }
}

impl Socket {
    /// Asks, and waits for as long as it takes: for ever when the message or its answer is lost.
    pub async fn ask(&self, from: Peer, to: Peer, request: Request) -> Result<Answer, Silence> {
        let (answer, answered) = oneshot::channel();
        let sent = Sent {
            from,
            to,
            request,
            answer,
        };
        if self.0.send(sent).is_err() {
            return Err(Silence::Refused);
        }
        match answered.await {
            Ok(Err(Silence::Lost)) | Err(_) => std::future::pending().await,
            Ok(answer) => answer,
        }
    }
}
