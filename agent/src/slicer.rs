//! Gathers documents into slices by size.

/// A closed slice: documents back to back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Raw BSON, back to back.
    pub payload: Vec<u8>,
    /// How many documents.
    pub count: u32,
}

/// Collects documents until there is a slice of them.
///
/// A slice closes at `target` bytes and never holds more than `most`, unless a single document is larger: that one then
/// is a slice of its own. Nothing is lost, doubled or put in another order.
#[derive(Debug)]
pub struct Slicer {
    target: usize,
    most: usize,
    payload: Vec<u8>,
    count: u32,
}

impl Slicer {
    /// `target <= most`, in bytes.
    pub fn new(target: usize, most: usize) -> Self {
        Slicer {
            target,
            most: most.max(target),
            payload: Vec::new(),
            count: 0,
        }
    }

    /// To be asked before each [`Slicer::add`]: what must be closed first because a document of `len` bytes no longer fits.
    pub fn make_room(&mut self, len: usize) -> Option<Cut> {
        if self.payload.len() + len > self.most {
            self.close()
        } else {
            None
        }
    }

    /// Takes a document; gives the slice that it completes.
    pub fn add(&mut self, document: &[u8]) -> Option<Cut> {
        if self.payload.capacity() == 0 {
            self.payload.reserve(self.target.min(64 << 10));
        }
        self.payload.extend_from_slice(document);
        self.count += 1;
        if self.payload.len() >= self.target {
            self.close()
        } else {
            None
        }
    }

    /// Closes what there is, if there is anything.
    pub fn close(&mut self) -> Option<Cut> {
        if self.count == 0 {
            return None;
        }
        Some(Cut {
            payload: std::mem::take(&mut self.payload),
            count: std::mem::take(&mut self.count),
        })
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::limits::MIB;
    use headwater_protocol::slices::documents;
    use proptest::prelude::*;

    fn document(len: usize, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; len];
        bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[len - 1] = 0;
        bytes
    }

    fn slices(mut slicer: Slicer, documents: &[Vec<u8>]) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for document in documents {
            cuts.extend(slicer.make_room(document.len()));
            cuts.extend(slicer.add(document));
        }
        cuts.extend(slicer.close());
        assert!(slicer.is_empty());
        cuts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn slices_hold_every_document_once_in_order_and_within_the_limits(
            sizes in prop::collection::vec(prop_oneof![
                20 => 5usize..2000, 5 => 2000usize..300_000, 2 => 300_000usize..4 * MIB, 1 => Just(16 * MIB),
            ], 0..60),
            target in 1usize..6 * MIB,
            slack in 0usize..2 * MIB,
        ) {
            let given: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, len)| document(*len, i as u8)).collect();
            let cuts = slices(Slicer::new(target, target + slack), &given);
            let mut back = Vec::new();
            for cut in &cuts {
                let within: Vec<&[u8]> = documents(&cut.payload).collect::<Result<_, _>>().unwrap();
                prop_assert_eq!(within.len(), cut.count as usize);
                prop_assert!(cut.count == 1 || cut.payload.len() <= target + slack);
                back.extend(within.into_iter().map(<[u8]>::to_vec));
            }
            prop_assert_eq!(back, given);
        }
    }

    #[test]
    fn a_document_of_one_byte_less_than_the_room_left_still_fits() {
        let mut slicer = Slicer::new(100, 120);
        assert_eq!(slicer.add(&document(90, 1)), None);
        assert_eq!(slicer.make_room(30), None);
        assert_eq!(slicer.make_room(31).map(|cut| cut.count), Some(1));
    }
}
