//! Every limit in one place, with the inequalities that make them safe.
//!
//! Bytes unless the name says otherwise. A limit that an operator may change is a default here and a field of
//! `config`'s Settings.

/// One mebibyte.
pub const MIB: usize = 1 << 20;

/// The longest name of a deployment, a replica set or a snapshot.
pub const NAME_MAX_BYTES: usize = 64;

/// The largest user document a MongoDB server takes.
pub const DOCUMENT_MAX_BYTES: usize = 16 * MIB;
/// The largest BSON we accept anywhere: an oplog entry is an envelope around a document, and replay of old diffs on
/// newer states may grow documents past the user limit for a moment (`reference/oplog.md` §1.1, §4.2).
pub const BSON_MAX_BYTES: usize = 48 * MIB;
/// How deep BSON may nest. The server allows 200 in storage; an oplog entry wraps a document a few levels deeper.
pub const BSON_MAX_DEPTH: usize = 256;

/// A sync slice closes once it holds this much BSON…
pub const SYNC_SLICE_TARGET_BYTES: usize = 10 * MIB;
/// …and never holds more than this, unless a single document is larger.
pub const SYNC_SLICE_MAX_BYTES: usize = 15 * MIB;
/// An oplog slice closes at this much BSON…
pub const OPLOG_SLICE_TARGET_BYTES: usize = 4 * MIB;
/// …or at this age, in milliseconds.
pub const OPLOG_SLICE_MAX_AGE_MS: u64 = 200;
/// The largest frame the service reads from a request: header and compressed payload.
pub const FRAME_MAX_BYTES: usize = 64 * MIB;
/// The most BSON one frame may unpack to; stops a compressed bomb.
pub const FRAME_MAX_RAW_BYTES: usize = 56 * MIB;
/// The most bytes of a frame's header.
pub const FRAME_HEADER_MAX_BYTES: usize = MIB;

/// A leaf block is cut about here.
pub const LEAF_TARGET_BYTES: usize = 64 << 10;
/// A leaf is not cut before this.
pub const LEAF_MIN_BYTES: usize = LEAF_TARGET_BYTES / 4;
/// A leaf is always cut here, unless one record is larger.
pub const LEAF_MAX_BYTES: usize = LEAF_TARGET_BYTES * 4;
/// An interior block of a tree is cut at about this many children…
pub const NODE_TARGET_CHILDREN: usize = 256;
/// …not before this many…
pub const NODE_MIN_CHILDREN: usize = NODE_TARGET_CHILDREN / 4;
/// …and always here.
pub const NODE_MAX_CHILDREN: usize = NODE_TARGET_CHILDREN * 4;
/// The most raw bytes of one block: the largest record and some room.
pub const BLOCK_MAX_BYTES: usize = BSON_MAX_BYTES + MIB;
/// How many levels a tree may have: with 2 children at the least, beyond any data set.
pub const TREE_MAX_LEVELS: usize = 48;
/// A pack is closed once it holds this much.
pub const PACK_TARGET_BYTES: usize = 16 * MIB;

/// Changes held in memory before they are spilled into a layer.
pub const MEMTABLE_BUDGET_BYTES: usize = 96 * MIB;
/// Blocks kept in memory by a block cache.
pub const BLOCK_CACHE_BYTES: usize = 64 * MIB;
/// The most layers in a stack before it must be folded.
pub const STACK_MAX_LAYERS: usize = 8;
/// The most slices or layers merged at once; each holds one block or one slice in memory.
pub const MERGE_FAN_IN: usize = 64;
/// Pending changes of one document held as one record; at this size the memtable is frozen, so that a record fits a
/// block.
pub const PENDING_CHANGES_MAX_BYTES: usize = 8 * MIB;
/// Slices of a first copy that are sorted in memory as one run.
pub const BUILD_RUN_SLICES: u32 = 4;
/// Runs of one first copy that are built at once.
pub const BUILD_RUNS_AT_ONCE: usize = 2;
/// Bytes of documents that validation of a first copy reads back at the most.
pub const VALIDATE_READ_BYTES: u64 = 128 * MIB as u64;
/// One batch of a scan closes at this much.
pub const SCAN_BATCH_BYTES: usize = MIB;
/// A fold that rewrites at most this many times the bytes of change is cheap.
pub const FOLD_CHEAP_FACTOR: u64 = 4;

/// Mail waiting for one actor before senders wait.
pub const MAILBOX_CAPACITY: usize = 64;
/// Requests for missing documents handed to an agent at once.
pub const FETCH_BATCH: usize = 1000;
/// Bytes of ids in one such request, in hexadecimal; a single longer id is a request of its own.
pub const FETCH_BATCH_BYTES: usize = MIB;

/// The longest key of the local key-value disk.
pub const KV_KEY_MAX_BYTES: usize = 256;
/// The largest value of the local key-value disk. A larger one could end up outside the file that a flush makes
/// durable (`reference/simulation.md` §6).
pub const KV_VALUE_MAX_BYTES: usize = (64 << 10) - 1;

/// The largest command that is submitted to the cluster, encoded.
pub const COMMAND_MAX_BYTES: usize = 32 << 10;
/// The most commands, encoded, that go into one Raft entry.
pub const ENTRY_MAX_BYTES: usize = 48 << 10;
/// The control image is stored in pieces of this size.
pub const CONTROL_PIECE_BYTES: usize = 32 << 10;
/// The largest control state, encoded: what a node reads from its disk or from a peer.
pub const CONTROL_STATE_MAX_BYTES: usize = 256 * MIB;
/// Commands waiting to be submitted before submitters wait.
pub const CONTROL_MAILBOX_CAPACITY: usize = 1024;
/// The longest connection string.
pub const URI_MAX_BYTES: usize = 4 << 10;
/// The longest name of an image.
pub const IMAGE_NAME_MAX_BYTES: usize = 256;
/// The longest text of a problem or error that users see; longer ones are cut.
pub const PROBLEM_MAX_BYTES: usize = 2 << 10;
/// The longest request or cursor of a restore.
pub const RESTORE_TEXT_MAX_BYTES: usize = 24 << 10;
/// Deployments in one cluster.
pub const DEPLOYMENTS_MAX: usize = 4096;
/// Replica sets in one deployment.
pub const REPLICA_SETS_PER_DEPLOYMENT: usize = 256;
/// Snapshots of one replica set that are asked for and not complete.
pub const SNAPSHOTS_WAITING_PER_SET: usize = 8;
/// Chunks of a cluster that is restored as a whole: about a hundred bytes of memory each.
pub const CHUNKS_MAX: usize = 4_000_000;
/// Restores that run at once.
pub const RESTORES_RUNNING_MAX: usize = 32;
/// Restores that are remembered, running ones included.
pub const RESTORES_KEPT: usize = 500;
/// Notes of one restore that are remembered; the others are counted…
pub const RESTORE_NOTES_KEPT: usize = 16;
/// …and how long one may be.
pub const RESTORE_NOTE_MAX_BYTES: usize = 256;
/// Checks of one replica set that wait or run.
pub const CHECKS_WAITING_PER_SET: usize = 8;
/// Ended checks of one kind that are remembered of one replica set.
pub const CHECKS_KEPT_PER_KIND: usize = 5;
/// Findings of one check that are kept in words; the others are counted.
pub const CHECK_FINDINGS_KEPT: usize = 20;
/// The longest finding in words.
pub const FINDING_MAX_BYTES: usize = 512;
/// Damaged objects of one replica set that are remembered one by one.
pub const DAMAGE_KEPT_PER_SET: usize = 256;
/// Alerts that are remembered, open ones included.
pub const ALERTS_KEPT: usize = 500;
/// The longest id, kind and subject of an alert together.
pub const ALERT_ID_MAX_BYTES: usize = 1024;
/// Deeds that the log of who did what remembers.
pub const AUDIT_KEPT: usize = 1000;
/// The longest text of one of them.
pub const AUDIT_TEXT_MAX_BYTES: usize = 256;
/// Nodes of one cluster.
pub const NODES_MAX: usize = 64;
/// Keys that may call.
pub const KEYS_MAX: usize = 4096;
/// Deployments that one key names.
pub const KEY_SCOPE_MAX: usize = 64;

/// Attempts at a checkpoint while something is under way at its cuts, such as a resharding; the last one is sealed and marked.
pub const CHECKPOINT_ATTEMPTS: u32 = 12;
/// The pause after the first of them, in milliseconds; each one is twice as long as the one before…
pub const CHECKPOINT_REST_MS: i64 = 500;
/// …up to this: about two minutes in all.
pub const CHECKPOINT_REST_MAX_MS: i64 = 16_000;
/// So many things that are under way at a cut are told of one by one…
pub const UNDER_WAY_KEPT: usize = 8;
/// …each in so many bytes.
pub const UNDER_WAY_MAX_BYTES: usize = 400;

const _: () = assert!(SYNC_SLICE_TARGET_BYTES < SYNC_SLICE_MAX_BYTES && SYNC_SLICE_MAX_BYTES < DOCUMENT_MAX_BYTES);
const _: () = assert!(DOCUMENT_MAX_BYTES < BSON_MAX_BYTES, "replay may exceed the user limit");
const _: () = assert!(
    BSON_MAX_BYTES < FRAME_MAX_RAW_BYTES,
    "the largest entry must fit a frame"
);
const _: () = assert!(
    FRAME_MAX_RAW_BYTES < FRAME_MAX_BYTES,
    "what does not compress must fit too"
);
const _: () = assert!(LEAF_MIN_BYTES < LEAF_TARGET_BYTES && LEAF_TARGET_BYTES < LEAF_MAX_BYTES);
const _: () = assert!(LEAF_MAX_BYTES < BLOCK_MAX_BYTES && BSON_MAX_BYTES < BLOCK_MAX_BYTES);
const _: () = assert!(PENDING_CHANGES_MAX_BYTES + BSON_MAX_BYTES / 2 < BLOCK_MAX_BYTES);
const _: () = assert!(
    2 <= NODE_MIN_CHILDREN && NODE_MIN_CHILDREN < NODE_TARGET_CHILDREN && NODE_TARGET_CHILDREN < NODE_MAX_CHILDREN
);
const _: () = assert!(
    RESTORE_TEXT_MAX_BYTES + PROBLEM_MAX_BYTES + (RESTORE_NOTES_KEPT + 1) * RESTORE_NOTE_MAX_BYTES + 1024
        < COMMAND_MAX_BYTES,
    "an update must fit"
);
const _: () = assert!(
    COMMAND_MAX_BYTES < ENTRY_MAX_BYTES,
    "an entry takes at least one command"
);
const _: () = assert!(
    ENTRY_MAX_BYTES + 1024 < KV_VALUE_MAX_BYTES,
    "an entry with its frame is one value"
);
const _: () = assert!(
    CONTROL_PIECE_BYTES + 1024 < KV_VALUE_MAX_BYTES,
    "a piece with its frame is one value"
);
const _: () = assert!(
    AUDIT_KEPT > RESTORES_RUNNING_MAX,
    "who began a restore is known while it runs"
);
const _: () = assert!(CHECKPOINT_REST_MS < CHECKPOINT_REST_MAX_MS && CHECKPOINT_ATTEMPTS < 32);
const _: () = assert!(
    UNDER_WAY_KEPT * UNDER_WAY_MAX_BYTES + 4096 < COMMAND_MAX_BYTES,
    "what is under way must fit"
);
const _: () = assert!(RESTORES_RUNNING_MAX < RESTORES_KEPT);
const _: () = assert!(
    (KEY_SCOPE_MAX + 4) * (NAME_MAX_BYTES + 8) < COMMAND_MAX_BYTES,
    "a key must fit"
);
const _: () = assert!(
    (CHECK_FINDINGS_KEPT + 4) * FINDING_MAX_BYTES < COMMAND_MAX_BYTES,
    "an update of a check must fit"
);
