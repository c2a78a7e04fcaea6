//! A document taken apart so that fields can be set and removed, their order kept.

use std::borrow::Cow;

use bytes::Bytes;

use crate::raw::{self, BsonFault, Element, Writer};

/// The fields of a document.
pub struct Fields<'a>(Vec<(u8, Cow<'a, [u8]>, Cow<'a, [u8]>)>);

impl<'a> Fields<'a> {
    /// Takes a document apart.
    pub fn of(document: &'a [u8]) -> Result<Self, BsonFault> {
        let parts = |field: Element<'a>| (field.kind, field.name.into(), field.value.into());
        raw::elements(document)
            .map(|field| field.map(parts))
            .collect::<Result<_, _>>()
            .map(Fields)
    }

    /// The field of that name.
    pub fn get(&self, name: &str) -> Option<Element<'_>> {
        let (kind, name, value) = self.0.iter().find(|(_, other, _)| **other == *name.as_bytes())?;
        Some(Element {
            kind: *kind,
            name,
            value,
        })
    }

    /// Gives the field a value: at its place, else at the end.
    pub fn set(&mut self, name: &'a str, kind: u8, value: impl Into<Cow<'a, [u8]>>) {
        self.put(name.as_bytes(), kind, value.into());
    }

    /// Takes over a whole field.
    pub fn take(&mut self, field: Element<'a>) {
        self.put(field.name, field.kind, field.value.into());
    }

    fn put(&mut self, name: &'a [u8], kind: u8, value: Cow<'a, [u8]>) {
        match self.0.iter_mut().find(|(_, other, _)| **other == *name) {
            Some(field) => (field.0, field.2) = (kind, value),
            None => self.0.push((kind, name.into(), value)),
        }
    }

    /// Removes the field.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(_, other, _)| **other != *name.as_bytes());
    }

    /// Puts the document together again.
    pub fn write(&self) -> Result<Bytes, BsonFault> {
        let mut out = Vec::new();
        let writer = Writer::begin(&mut out);
        for (kind, name, value) in &self.0 {
            raw::element(
                &mut out,
                Element {
                    kind: *kind,
                    name,
                    value,
                },
            );
        }
        writer.end(&mut out)?;
        Ok(out.into())
    }
}
