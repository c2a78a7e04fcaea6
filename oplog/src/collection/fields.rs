//! A document taken apart so that fields can be set and removed, their order kept.

use std::borrow::Cow;

use bytes::Bytes;

use crate::raw::{self, BsonFault, Element, Writer};

/// The fields of a document.
pub struct Fields<'a>(Vec<Field<'a>>);

struct Field<'a> {
    kind: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
}

impl<'a> Fields<'a> {
    /// Takes a document apart.
    pub fn of(document: &'a [u8]) -> Result<Self, BsonFault> {
        let field = |Element { kind, name, value }| Field {
            kind,
            name,
            value: Cow::Borrowed(value),
        };
        raw::elements(document)
            .map(|element| element.map(field))
            .collect::<Result<_, _>>()
            .map(Fields)
    }

    /// The field of that name.
    pub fn get(&self, name: &str) -> Option<Element<'_>> {
        let field = self.0.iter().find(|field| field.name == name.as_bytes())?;
        Some(Element {
            kind: field.kind,
            name: field.name,
            value: &field.value,
        })
    }

    /// Gives the field a value: at its place, else at the end.
    pub fn set(&mut self, name: &'a str, kind: u8, value: impl Into<Cow<'a, [u8]>>) {
        self.put(Field {
            kind,
            name: name.as_bytes(),
            value: value.into(),
        });
    }

    /// Takes over a whole field.
    pub fn take(&mut self, Element { kind, name, value }: Element<'a>) {
        self.put(Field {
            kind,
            name,
            value: value.into(),
        });
    }

    fn put(&mut self, new: Field<'a>) {
        match self.0.iter_mut().find(|field| field.name == new.name) {
            Some(field) => *field = new,
            None => self.0.push(new),
        }
    }

    /// Removes the field.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|field| field.name != name.as_bytes());
    }

    /// Puts the document together again.
    pub fn write(&self) -> Result<Bytes, BsonFault> {
        let mut out = Vec::new();
        let writer = Writer::begin(&mut out);
        for Field { kind, name, value } in &self.0 {
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
