//! Calls between the daemons of one cluster: `POST /internal/v1/call`, the body as it is, the rest in headers.
//!
//! | header | |
//! |---|---|
//! | `headwater-cluster` | the cluster's name for machines; empty from a node that wants to join one |
//! | `headwater-from`, `headwater-to` | numbers of the nodes; 0 for one that is not known |
//! | `headwater-kind` | how the body is to be read |
//! | `headwater-nonce` | 16 random bytes, in hexadecimal |
//! | `headwater-seal` | keyed BLAKE3 over all of it, in hexadecimal; also of the answer, over nonce and body |
//!
//! The key never travels, and neither a question nor an answer can be made up or changed on the way. A question
//! can be sent again: every question of ours may be. Without TLS they can also be read: keep such a network to yourself.

/// Where calls go.
pub const PATH: &str = "/internal/v1/call";
/// Header: the cluster.
pub const CLUSTER: &str = "headwater-cluster";
/// Header: who calls.
pub const FROM: &str = "headwater-from";
/// Header: who is called.
pub const TO: &str = "headwater-to";
/// Header: the kind.
pub const KIND: &str = "headwater-kind";
/// Header: the nonce.
pub const NONCE: &str = "headwater-nonce";
/// Header: the seal.
pub const SEAL: &str = "headwater-seal";
/// The kind of the only call that a node outside of the cluster may make.
pub const KIND_JOIN: u8 = 17;

/// What daemons of one cluster share and nobody else knows.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

/// What is said about a call besides its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The cluster's name.
    pub cluster: String,
    /// Who calls.
    pub from: u64,
    /// Who is called.
    pub to: u64,
    /// How the body is to be read.
    pub kind: u8,
    /// Ties the answer to the question.
    pub nonce: [u8; 16],
}

impl ClusterKey {
    /// The key that a key file's text stands for.
    pub fn new(text: &str) -> Self {
        ClusterKey(blake3::derive_key(
            "headwater 2026-11 calls between daemons",
            text.as_bytes(),
        ))
    }

    /// The seal of a call, in hexadecimal.
    pub fn seal_call(&self, envelope: &Envelope, body: &[u8]) -> String {
        self.call(envelope, body).to_hex().to_string()
    }

    /// Whether the seal is that of the call. Takes the same time whatever is wrong with it.
    pub fn is_call(&self, envelope: &Envelope, body: &[u8], seal: &str) -> bool {
        blake3::Hash::from_hex(seal).is_ok_and(|seal| seal == self.call(envelope, body))
    }

    /// The seal of an answer, in hexadecimal.
    pub fn seal_answer(&self, nonce: &[u8; 16], body: &[u8]) -> String {
        self.answer(nonce, body).to_hex().to_string()
    }

    /// Whether the seal is that of the answer to the call with this nonce.
    pub fn is_answer(&self, nonce: &[u8; 16], body: &[u8], seal: &str) -> bool {
        blake3::Hash::from_hex(seal).is_ok_and(|seal| seal == self.answer(nonce, body))
    }

    fn call(&self, envelope: &Envelope, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"call");
        hasher.update(&(envelope.cluster.len() as u64).to_le_bytes());
        hasher.update(envelope.cluster.as_bytes());
        hasher.update(&envelope.from.to_le_bytes());
        hasher.update(&envelope.to.to_le_bytes());
        hasher.update(&[envelope.kind]);
        hasher.update(&envelope.nonce);
        hasher.update(body);
        hasher.finalize()
    }

    fn answer(&self, nonce: &[u8; 16], body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"answer").update(nonce).update(body);
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            cluster: "c".to_owned(),
            from: 1,
            to: 2,
            kind: 3,
            nonce: [4; 16],
        }
    }

    #[test]
    fn a_seal_fits_one_call_of_one_key_only() {
        let key = ClusterKey::new("secret");
        let seal = key.seal_call(&envelope(), b"body");
        assert!(key.is_call(&envelope(), b"body", &seal));
        assert!(!ClusterKey::new("other").is_call(&envelope(), b"body", &seal));
        assert!(!key.is_call(&envelope(), b"bodi", &seal));
        assert!(!key.is_call(&envelope(), b"body", ""));
        let change: [fn(&mut Envelope); 5] = [
            |e| e.cluster = "d".to_owned(),
            |e| e.from = 9,
            |e| e.to = 9,
            |e| e.kind = 9,
            |e| e.nonce = [9; 16],
        ];
        for change in change {
            let mut other = envelope();
            change(&mut other);
            assert!(!key.is_call(&other, b"body", &seal), "{other:?}");
        }
    }

    #[test]
    fn an_answer_fits_its_own_question_only() {
        let key = ClusterKey::new("secret");
        let seal = key.seal_answer(&[1; 16], b"yes");
        assert!(key.is_answer(&[1; 16], b"yes", &seal));
        assert!(!key.is_answer(&[2; 16], b"yes", &seal));
        assert!(!key.is_answer(&[1; 16], b"no", &seal));
        assert!(!key.is_answer(&envelope().nonce, b"body", &key.seal_call(&envelope(), b"body")));
    }
}
